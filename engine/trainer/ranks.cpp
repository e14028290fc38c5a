#include "engine/trainer/ranks.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/core/host_tensor.h"

namespace voca::engine {
namespace {

/// CRC-32C over masters and moments, concatenated.
std::uint32_t checksum(const ParameterStore& parameters) {
  std::uint32_t crc = 0;
  for (const Tensor& buffer : {parameters.masters(), parameters.exp_avgs(), parameters.exp_avg_sqs()}) {
    const HostTensor host(parameters.device(), buffer);
    crc = crc32c({static_cast<const std::byte*>(host.tensor().data), host.tensor().bytes()}, crc);
  }
  return crc;
}

}  // namespace

void warm_up(const Ranks& ranks, Device& device) {
  if (ranks.alone() || ranks.stream == nullptr) return;
  constexpr const char* kName = "first collectives";
  const auto most = static_cast<std::int64_t>(ranks.buckets.bucket_bytes / sizeof(float));
  const Device::Block block = device.allocate(kName, ranks.buckets.bucket_bytes);
  ranks.stream->wait_for(device.compute_stream());
  for (const std::int64_t elements : {std::int64_t{1}, std::max<std::int64_t>(most, 1)}) {
    const Tensor data{.data = block.data(),
                      .shape = {elements},
                      .dtype = DType::kF32,
                      .device = device.kind(),
                      .name = kName};
    ranks.gradients->all_reduce_sum(kName, data, ranks.stream->stream());
    ranks.stream->hold_up(device.compute_stream());  // serialised: both collectives use the same block
    ranks.main->all_reduce_sum(kName, data, device.compute_stream());
    ranks.main->broadcast(kName, data, 0, device.compute_stream());
    ranks.stream->wait_for(device.compute_stream());
  }
  device.synchronize(device.compute_stream());
}

std::int64_t sum_over_ranks(const Ranks& ranks, const char* name, std::int64_t mine) {
  if (ranks.alone()) return mine;
  const auto value = static_cast<double>(mine);
  const std::vector<double> all = ranks.main->all_gather_values(name, {&value, 1});
  return static_cast<std::int64_t>(std::accumulate(all.begin(), all.end(), 0.0));
}

bool any_rank(const Ranks& ranks, const char* name, bool mine) {
  return sum_over_ranks(ranks, name, mine ? 1 : 0) > 0;
}

std::string text_of_first_rank(const Ranks& ranks, const char* name, const std::string& mine) {
  if (ranks.alone()) return mine;
  const auto length = static_cast<double>(mine.size());
  const auto first_length =
      static_cast<std::size_t>(ranks.main->all_gather_values(name, {&length, 1}).front());
  std::vector<double> characters(mine.begin(), mine.end());
  characters.resize(first_length);  // of other ranks, they are not used
  const std::vector<double> all = ranks.main->all_gather_values(name, characters);
  std::string text(first_length, '\0');
  std::transform(all.begin(), all.begin() + std::ssize(text), text.begin(),
                 [](double c) { return static_cast<char>(c); });
  return text;
}

void broadcast_parameters(const Ranks& ranks, const ParameterStore& parameters, Stream stream) {
  if (ranks.alone()) return;
  ranks.main->broadcast("initial masters", parameters.masters(), 0, stream);
  if (parameters.weights().data != parameters.masters().data)
    ranks.main->broadcast("initial weights", parameters.weights(), 0, stream);
  ranks.main->broadcast("initial first moments", parameters.exp_avgs(), 0, stream);
  ranks.main->broadcast("initial second moments", parameters.exp_avg_sqs(), 0, stream);
}

void check_ranks_agree(const Ranks& ranks, const ParameterStore& parameters) {
  if (ranks.alone()) return;
  const auto mine = static_cast<double>(checksum(parameters));
  const std::vector<double> all = ranks.main->all_gather_values("checksums of the weights", {&mine, 1});
  std::vector<std::size_t> others;
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (all[rank] != all[0]) others.push_back(rank);
  if (others.empty()) return;
  throw InternalError(
      "training: the weights and moments of rank {} are not those of rank 0; nothing was saved, the last "
      "state that was is good",
      fmt::join(others, ", "));
}

}  // namespace voca::engine
