#include "tools/network_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "engine/base/error.h"
#include "engine/base/text.h"
#include "model/other_networks.h"
#include "model/registry.h"

namespace voca::tools {

using engine::DataError;
using engine::LoadedCheckpoint;
using engine::NamedTensor;
using engine::StateDict;

namespace {

constexpr std::size_t kMaxListed = 3;  // maximum number of names in a message
constexpr const char* kFileItself = ".";

/// Name components that wrappers insert between a module and its owner.
constexpr std::array<std::string_view, 5> kWrappers = {"module", "_orig_mod", "_fsdp_wrapped_module",
                                                       "_checkpoint_wrapped_module", "_fpw_module"};

std::string without_wrappers(std::string_view name) {
  std::string result;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (std::find(kWrappers.begin(), kWrappers.end(), part) == kWrappers.end())
      result += (result.empty() ? "" : ".") + std::string(part);
    begin = end + 1;
  }
  return result;
}

/// A parameter name, split into prefix and the name that the network uses.
struct SplitName {
  std::string prefix;  ///< "model.student"; empty: none
  std::string own;
};

std::optional<SplitName> split(const std::string& name) {
  for (std::size_t begin = 0; begin < name.size();) {
    if (model::is_parameter_name(std::string_view(name).substr(begin)))
      return SplitName{name.substr(0, begin == 0 ? 0 : begin - 1), name.substr(begin)};
    const std::size_t dot = name.find('.', begin);
    if (dot == std::string::npos) return std::nullopt;
    begin = dot + 1;
  }
  return std::nullopt;
}

/// Parameters of the network in one dict under one prefix.
struct Candidate {
  const StateDict* dict = nullptr;
  std::string prefix;
  std::string key;  ///< the dict's key; with the prefix if one dict has several candidates
  std::vector<NamedTensor> tensors;
  std::string broken;  ///< a parameter that is not a tensor, and what it is

  [[nodiscard]] bool telling() const {
    return !broken.empty() || std::any_of(tensors.begin(), tensors.end(), [](const NamedTensor& named) {
      return model::is_telling_name(named.name);
    });
  }
};

std::string joined(const std::string& a, const std::string& b) {
  return a.empty() || b.empty() ? a + b : a + "." + b;
}

/// The candidates of one dict by prefix; other networks may have very many.
class Candidates {
 public:
  explicit Candidates(const StateDict& dict) : dict_(dict) {}

  [[nodiscard]] bool has(const std::string& prefix) const { return places_.contains(prefix); }
  Candidate& at(const std::string& prefix) {
    const auto [place, fresh] = places_.try_emplace(prefix, all_.size());
    if (fresh) all_.push_back({.dict = &dict_, .prefix = prefix, .key = {}, .tensors = {}, .broken = {}});
    return all_[place->second];
  }
  std::vector<Candidate> take() { return std::move(all_); }

 private:
  const StateDict& dict_;
  std::vector<Candidate> all_;
  std::unordered_map<std::string, std::size_t> places_;
};

std::vector<Candidate> candidates_in(const StateDict& dict) {
  Candidates found(dict);
  for (const NamedTensor& named : dict.tensors) {
    if (const auto name = split(without_wrappers(named.name)))
      found.at(name->prefix).tensors.push_back({name->own, named.tensor});
  }
  for (const auto& [name, what] : dict.others) {
    const auto own = split(without_wrappers(name));
    if (own && (found.has(own->prefix) || model::is_telling_name(own->own)))
      found.at(own->prefix).broken = fmt::format("{} is {}", own->own, what);
  }
  std::vector<Candidate> candidates = found.take();
  std::erase_if(candidates, [](const Candidate& candidate) { return !candidate.telling(); });
  for (Candidate& candidate : candidates) {
    candidate.key = candidates.size() > 1 ? joined(dict.key, candidate.prefix) : dict.key;
    if (candidate.key.empty()) candidate.key = kFileItself;
  }
  return candidates;
}

/// Whether both refer to the same data in the file: scripts save one dict under several names.
bool same(const Candidate& a, const Candidate& b) {
  return std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(),
                    [](const NamedTensor& x, const NamedTensor& y) {
                      return x.name == y.name && x.tensor.storage == y.tensor.storage &&
                             x.tensor.offset == y.tensor.offset && x.tensor.shape == y.tensor.shape;
                    });
}

std::vector<Candidate> all_candidates(const std::string& path, const LoadedCheckpoint& checkpoint) {
  constexpr std::size_t kMax = 64;  // one training saves few: a model, its average, a teacher
  std::vector<Candidate> all;
  for (const StateDict& dict : checkpoint.state_dicts) {
    for (Candidate& candidate : candidates_in(dict)) all.push_back(std::move(candidate));
    if (all.size() > kMax) {
      throw DataError("{}: has weights of {} in more than {} places; no training saves so many", path,
                      model::network_titles(), kMax);
    }
  }
  return all;
}

std::string listed(const std::vector<std::string>& names) {
  const std::size_t shown = std::min(names.size(), kMaxListed);
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) text += (i > 0 ? ", " : "") + engine::printable(names[i]);
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

/// Throws DataError for a file without weights of the network, saying what it holds instead.
[[noreturn]] void refuse_others(const std::string& path, const LoadedCheckpoint& checkpoint) {
  const auto largest = std::max_element(
      checkpoint.state_dicts.begin(), checkpoint.state_dicts.end(),
      [](const StateDict& a, const StateDict& b) { return a.tensors.size() < b.tensors.size(); });
  if (largest == checkpoint.state_dicts.end() || largest->tensors.empty()) {
    throw DataError("{}: holds no weights{}; save model.state_dict() with torch.save", path,
                    checkpoint.not_loaded.empty()
                        ? std::string(", no dict of tensors by name")
                        : fmt::format(" (an object that is not loaded: {})", checkpoint.not_loaded.front()));
  }
  std::vector<std::string> names;
  for (const NamedTensor& named : largest->tensors) names.push_back(without_wrappers(named.name));
  if (const model::OtherNetwork* other = model::find_other_network(names)) {
    const auto tells = [&](const std::string& name) { return name.find(other->marker) != std::string::npos; };
    std::stable_partition(names.begin(), names.end(), tells);
    throw DataError("{}: is {}, not {}: its parameters are {}", path, other->title, model::network_titles(),
                    listed(names));
  }
  throw DataError("{}: is another network, not {}: its parameters are {}, where v_proj.0.weight was expected",
                  path, model::network_titles(), listed(names));
}

/// Whether the entry is no weight of the network: a counter, or the weights of a loss.
bool beside_weights(const NamedTensor& named) {
  const std::string_view name = named.name;
  const std::string_view last = name.substr(name.rfind('.') + 1);
  return !engine::is_floating(named.tensor.dtype) || last == "n_averaged" || last == "pos_weight" ||
         last == "class_weight" || last == "class_weights" || name.starts_with("criterion") ||
         name.starts_with("loss");
}

/// Adds the parameters under the candidate's prefix that the network does not have.
void add_unknown(Candidate& chosen, const std::vector<Candidate>& candidates) {
  for (const NamedTensor& named : chosen.dict->tensors) {
    const NamedTensor clean{without_wrappers(named.name), named.tensor};
    const auto name = split(clean.name);
    const std::string inside = chosen.prefix.empty() ? "" : chosen.prefix + ".";
    if ((name && name->prefix == chosen.prefix) || !clean.name.starts_with(inside) || beside_weights(clean))
      continue;
    const bool of_another =
        name && std::any_of(candidates.begin(), candidates.end(), [&](const Candidate& c) {
          return c.dict == chosen.dict && c.prefix == name->prefix;
        });
    if (!of_another) chosen.tensors.push_back(clean);
  }
}

std::string keys_of(const std::vector<Candidate>& candidates, const char* before, const char* between) {
  std::string text;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    text += (i > 0 ? between : "") + (before + engine::printable(candidates[i].key));
  return text;
}

}  // namespace

NetworkWeights find_weights(const std::string& path, const LoadedCheckpoint& checkpoint,
                            const std::string& key) {
  const std::vector<Candidate> all = all_candidates(path, checkpoint);
  if (all.empty()) refuse_others(path, checkpoint);
  std::vector<Candidate> chosen = all;
  if (!key.empty()) {
    std::erase_if(chosen, [&](const Candidate& candidate) {
      return candidate.key != key && candidate.prefix != key &&
             joined(candidate.dict->key, candidate.prefix) != key;
    });
    if (chosen.empty()) {
      throw engine::UsageError("--weights {}: {} has no weights of {} there; they are under {}", key, path,
                               model::network_titles(), keys_of(all, "", ", "));
    }
  }
  for (auto it = chosen.begin(); it != chosen.end();) {
    const bool again =
        std::any_of(chosen.begin(), it, [&](const Candidate& first) { return same(first, *it); });
    it = again ? chosen.erase(it) : it + 1;
  }
  if (chosen.size() > 1) {
    throw DataError("{}: has weights under {}; choose with {}", path, keys_of(chosen, "", " and "),
                    keys_of(chosen, "--weights ", " or "));
  }
  if (!chosen[0].broken.empty()) {
    throw DataError("{}: {}; save plain tensors, as model.state_dict() gives them", path,
                    engine::printable(chosen[0].broken));
  }
  add_unknown(chosen[0], all);
  return {.key = chosen[0].key, .tensors = std::move(chosen[0].tensors)};
}

}  // namespace voca::tools
