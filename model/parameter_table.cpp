#include "model/parameter_table.h"

#include <cmath>

namespace voca::model {
namespace {

using engine::Initializer;
using engine::ParameterId;
using engine::Shape;

// Registers parameters in the module's order. Backward ranks are assigned afterwards.
class Builder {
 public:
  explicit Builder(std::vector<engine::ParameterSpec>& specs) : specs_(specs) {}

  ParameterId add(const std::string& name, const Shape& shape, Initializer::Kind kind, double value) {
    specs_.push_back({.name = name, .shape = shape, .initializer = {.kind = kind, .value = value}});
    return static_cast<ParameterId>(specs_.size()) - 1;
  }

  // torch.nn.Linear: kaiming_uniform(a = √5) for the weight is uniform(±1/√fan_in), as for the bias.
  LinearParameters linear(const std::string& name, std::int64_t out, std::int64_t in) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    LinearParameters p;
    p.weight = add(name + ".weight", {out, in}, Initializer::Kind::kUniform, bound);
    p.bias = add(name + ".bias", {out}, Initializer::Kind::kUniform, bound);
    return p;
  }

  NormParameters norm(const std::string& name, std::int64_t width) {
    NormParameters p;
    p.gamma = add(name + ".weight", {width}, Initializer::Kind::kConstant, 1);
    p.beta = add(name + ".bias", {width}, Initializer::Kind::kConstant, 0);
    return p;
  }

  // torch.nn.MultiheadAttention: xavier_uniform over the stacked (3H, H) matrix, biases zero, out_proj as
  // Linear.
  void attention(const std::string& name, std::int64_t hidden, AttentionParameters& p) {
    const double bound = std::sqrt(6.0 / static_cast<double>(hidden + 3 * hidden));
    p.in_proj.weight =
        add(name + ".in_proj_weight", {3 * hidden, hidden}, Initializer::Kind::kUniform, bound);
    p.in_proj.bias = add(name + ".in_proj_bias", {3 * hidden}, Initializer::Kind::kConstant, 0);
    p.out_proj.weight = add(name + ".out_proj.weight", {hidden, hidden}, Initializer::Kind::kUniform,
                            1.0 / std::sqrt(static_cast<double>(hidden)));
    p.out_proj.bias = add(name + ".out_proj.bias", {hidden}, Initializer::Kind::kConstant, 0);
  }

 private:
  std::vector<engine::ParameterSpec>& specs_;
};

// Assigns ranks in the order in which backward completes the gradients.
class BackwardOrder {
 public:
  explicit BackwardOrder(std::vector<engine::ParameterSpec>& specs) : specs_(specs) {}

  void next(ParameterId id) {
    if (id != kNoParameter) specs_[static_cast<std::size_t>(id)].backward_rank = rank_++;
  }
  void next(const LinearParameters& p) {
    next(p.weight);
    next(p.bias);
  }
  void next(const NormParameters& p) {
    next(p.gamma);
    next(p.beta);
  }
  void next(const AttentionParameters& p) {
    next(p.norm);
    next(p.out_proj);
    next(p.in_proj);
  }

 private:
  std::vector<engine::ParameterSpec>& specs_;
  int rank_ = 0;
};

void order_by_backward(const ModelConfig& config, ParameterTable& table) {
  BackwardOrder order(table.specs);
  order.next(table.contrast2);
  order.next(table.contrast0);
  order.next(table.classifier3);
  order.next(table.classifier0);
  for (auto layer = static_cast<std::size_t>(config.num_layers); layer-- > 0;) {
    order.next(table.feed_forward[layer].norm);
    order.next(table.feed_forward[layer].linear2);
    order.next(table.feed_forward[layer].linear1);
    order.next(table.self_attention[layer]);
  }
  order.next(table.a2v);
  order.next(table.v2a);
  order.next(table.pos_embed);
  order.next(table.a_proj.norm);
  order.next(table.a_proj.linear);
  order.next(table.v_proj.norm);
  order.next(table.v_proj.linear);
}

void add_cross_attention(const ModelConfig& config, Builder& add, ParameterTable& table) {
  const std::int64_t hidden = config.hidden;
  if (config.cross_attention == CrossAttention::kA2v) {
    add.attention("cross_attn", hidden, table.a2v);
    table.a2v.norm = add.norm("cross_norm", hidden);
    return;
  }
  add.attention("a2v_attn", hidden, table.a2v);
  add.attention("v2a_attn", hidden, table.v2a);
  table.a2v.norm = add.norm("a2v_norm", hidden);
  table.v2a.norm = add.norm("v2a_norm", hidden);
}

void add_encoder_layer(const ModelConfig& config, std::size_t layer, Builder& add, ParameterTable& table) {
  const std::int64_t hidden = config.hidden;
  const std::string prefix = "temporal_encoder.layers." + std::to_string(layer);
  AttentionParameters& attention = table.self_attention[layer];
  FeedForwardParameters& feed_forward = table.feed_forward[layer];
  const std::size_t first = table.specs.size();
  add.attention(prefix + ".self_attn", hidden, attention);
  feed_forward.linear1 = add.linear(prefix + ".linear1", 4 * hidden, hidden);
  feed_forward.linear2 = add.linear(prefix + ".linear2", hidden, 4 * hidden);
  attention.norm = add.norm(prefix + ".norm1", hidden);
  feed_forward.norm = add.norm(prefix + ".norm2", hidden);
  // torch.nn.TransformerEncoder deep-copies one layer, so all layers start with the same values.
  const std::size_t per_layer = table.specs.size() - first;
  for (std::size_t i = 0; layer > 0 && i < per_layer; ++i)
    table.specs[first + i].same_start_as = static_cast<int>(first - layer * per_layer + i);
}

}  // namespace

ParameterTable make_parameter_table(const ModelConfig& config) {
  ParameterTable table;
  Builder add(table.specs);
  const std::int64_t hidden = config.hidden;
  if (config.positional_encoding == PositionalEncoding::kLearned)
    table.pos_embed = add.add("pos_embed", {config.seq_len, hidden}, Initializer::Kind::kNormal, 0.02);
  table.v_proj.linear = add.linear("v_proj.0", hidden, config.visual_dim);
  table.v_proj.norm = add.norm("v_proj.1", hidden);
  table.a_proj.linear = add.linear("a_proj.0", hidden, config.audio_dim);
  table.a_proj.norm = add.norm("a_proj.1", hidden);
  add_cross_attention(config, add, table);
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(config.num_layers); ++layer)
    add_encoder_layer(config, layer, add, table);
  table.classifier0 = add.linear("classifier.0", hidden / 2, hidden);
  table.classifier3 = add.linear("classifier.3", config.num_classes, hidden / 2);
  table.contrast0 = add.linear("contrast_proj.0", hidden, hidden);
  table.contrast2 = add.linear("contrast_proj.2", kContrastiveWidth, hidden);
  order_by_backward(config, table);
  return table;
}

}  // namespace voca::model
