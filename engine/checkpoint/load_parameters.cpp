// Compares a file's weights with a model's parameters and copies them.

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "engine/base/error.h"
#include "engine/base/text.h"
#include "engine/checkpoint/torch/training_checkpoint.h"

namespace voca::engine {
namespace {

constexpr std::size_t kMaxListed = 3;  // maximum number of names of each kind in a message

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

/// "a, b, c and 4 more"
std::string listed(const std::vector<std::string>& names) {
  const std::size_t shown = std::min(names.size(), kMaxListed);
  std::string text = fmt::format("{}", fmt::join(std::span(names).first(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

using TensorsByName = std::unordered_map<std::string, const TensorValue*>;

TensorsByName by_name(const std::string& source, std::span<const NamedTensor> tensors) {
  TensorsByName result;
  for (const NamedTensor& named : tensors) {
    if (!result.emplace(named.name, &named.tensor).second)
      throw DataError("{}: has {} twice", source, printable(named.name));
  }
  return result;
}

/// Row-major index of an element as "(3, 7)".
std::string place_of(std::size_t element, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> index(shape.size());
  auto rest = static_cast<std::int64_t>(element);
  for (std::size_t i = shape.size(); i-- > 0; rest /= shape[i]) index[i] = rest % shape[i];
  return shape_text(index);
}

}  // namespace

void check_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                      std::span<const ParameterTarget> targets) {
  const TensorsByName found = by_name(source, tensors);
  std::unordered_set<std::string> wanted;
  std::vector<std::string> missing;
  std::vector<std::string> mismatched;
  std::vector<std::string> unexpected;
  for (const ParameterTarget& target : targets) {
    wanted.insert(target.name);
    const auto entry = found.find(target.name);
    if (entry == found.end()) {
      missing.push_back(target.name);
    } else if (entry->second->shape != target.shape) {
      mismatched.push_back(fmt::format("{} is {}, expected {}", target.name, shape_text(entry->second->shape),
                                       shape_text(target.shape)));
    } else if (!is_floating(entry->second->dtype)) {
      mismatched.push_back(fmt::format("{} is {}", target.name, name_of(entry->second->dtype)));
    }
  }
  for (const NamedTensor& named : tensors)
    if (!wanted.contains(named.name)) unexpected.push_back(printable(named.name));
  if (missing.empty() && unexpected.empty() && mismatched.empty()) return;
  std::string message;
  const auto add = [&](std::string_view what, const std::vector<std::string>& names) {
    if (!names.empty()) message += fmt::format("; {} {}: {}", names.size(), what, listed(names));
  };
  add("missing", missing);
  add("unexpected", unexpected);
  add("that do not fit", mismatched);
  throw DataError("{}: its parameters are not the model's{}", source, message);
}

void check_finite(const std::string& source, std::span<const NamedTensor> tensors) {
  std::vector<float> elements;
  for (const NamedTensor& named : tensors) {
    elements.resize(static_cast<std::size_t>(named.tensor.elements()));
    named.tensor.copy_to(std::span<float>(elements));
    const auto finite = [](float element) { return std::isfinite(element); };
    const auto bad = std::find_if_not(elements.begin(), elements.end(), finite);
    if (bad == elements.end()) continue;
    const auto count = std::count_if(bad, elements.end(), [&](float element) { return !finite(element); });
    throw DataError(
        "{}: {} is {} at {} ({} of its {} numbers are not finite as float32); its training diverged or its "
        "numbers left the range of their type: use an earlier checkpoint",
        source, printable(named.name), *bad,
        place_of(static_cast<std::size_t>(bad - elements.begin()), named.tensor.shape), count,
        elements.size());
  }
}

void load_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                     std::span<const ParameterTarget> targets) {
  check_parameters(source, tensors, targets);
  const TensorsByName found = by_name(source, tensors);
  for (const ParameterTarget& target : targets) found.at(target.name)->copy_to(target.elements);
}

}  // namespace voca::engine
