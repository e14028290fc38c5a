#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/base/digest.h"
#include "engine/checkpoint/resume/resume_state.h"
#include "tests/engine/support/files.h"

namespace voca::engine::test {

/// A tensor of one dimension over `elements`, which must outlive it.
template <typename T>
NamedTensor row(const std::string& name, const std::vector<T>& elements) {
  return {name, contiguous_tensor(kDTypeOf<T>, {static_cast<std::int64_t>(elements.size())},
                                  borrow_storage(std::as_bytes(std::span(elements))))};
}

/// A small state all of which follows from one number.
struct NumberedState {
  static constexpr std::size_t kWeights = 9;
  std::vector<float> weights;
  std::vector<std::int64_t> counters;

  explicit NumberedState(int number) : weights(kWeights), counters(2, number) {
    for (std::size_t i = 0; i < weights.size(); ++i)
      weights[i] = static_cast<float>(number) + static_cast<float>(i) / 16;
  }
  std::vector<float> nothing;
  [[nodiscard]] std::vector<NamedTensor> tensors() const {
    return {row("weights", weights), row("nothing", nothing), row("counters", counters)};
  }
};

inline std::filesystem::path save_number(ResumeStore& store, int number) {
  return store.save({{"number", number}}, NumberedState(number).tensors());
}

/// The number of a state that save_number() saved; −1 unless all of it is there.
inline int number_of(const ResumeState& state) {
  const int number = state.header.at("number").get<int>();
  const NumberedState expected(number);
  const auto tensors = expected.tensors();
  const auto same = [](const NamedTensor& a, const NamedTensor& b) {
    return a.name == b.name && a.tensor.dtype == b.tensor.dtype && a.tensor.shape == b.tensor.shape &&
           a.tensor.bytes() == b.tensor.bytes();
  };
  return std::ranges::equal(state.tensors, tensors, same) ? number : -1;
}

/// The start of a state of the earlier form: everything before its first section.
inline std::string earlier_start(const std::string& header) {
  std::string start = "VOCARES\x01";
  const std::uint64_t length = header.size();
  start.append(reinterpret_cast<const char*>(&length), sizeof length);
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(header)), crc32c(std::as_bytes(std::span(start))));
  start.append(reinterpret_cast<const char*>(&crc), sizeof crc);
  return start + header;
}

/// Appends zeros up to the next section of a state of the earlier form.
inline void align_section(std::string& state) {
  state.resize((state.size() + 63) / 64 * 64, '\0');
}

/// `state` as the bytes of a file of the earlier form.
inline std::string earlier_form(const ResumeState& state) {
  nlohmann::ordered_json header{{"user", state.header}, {"sections", nlohmann::ordered_json::array()}};
  std::string sections;
  for (const NamedTensor& named : state.tensors) {
    align_section(sections);
    const std::vector<std::byte> bytes = named.tensor.bytes();
    header["sections"].push_back({{"name", named.name},
                                  {"dtype", static_cast<int>(named.tensor.dtype)},
                                  {"offset", sections.size()},
                                  {"bytes", bytes.size()},
                                  {"crc32c", crc32c(bytes)}});
    sections.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  std::string file = earlier_start(header.dump());
  align_section(file);
  return file + sections;
}

/// The small state of a number in `folder`, in the present and in the earlier form.
inline std::vector<std::filesystem::path> save_both_forms(const std::filesystem::path& folder, int number) {
  ResumeStore store(folder / "states");
  const std::filesystem::path present = save_number(store, number);
  const std::filesystem::path earlier = folder / "earlier.resume";
  write_bytes(earlier, earlier_form(read_resume_state(present)));
  return {present, earlier};
}

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace voca::engine::test
