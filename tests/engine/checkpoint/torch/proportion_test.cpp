// A small file cannot make work or output out of proportion: values that a pickle shares are met again and
// again.

#include <nlohmann/json.hpp>

#include "engine/base/json.h"
#include "engine/checkpoint/torch/pickle_reader.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/torch/pickle_support.h"

namespace voca::engine {
namespace {

using test::get;
using test::global;
using test::little;
using test::message_of;
using test::number;
using test::op;
using test::pattern;
using test::pickle_of;
using test::put;
using test::repeat;
using test::text;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr std::size_t kMiB = std::size_t{1} << 20;

const std::string kList = op(Opcode::kEmptyList);
const std::string kDict = op(Opcode::kEmptyDict);
const std::string kMark = op(Opcode::kMark);
const std::string kSetItem = op(Opcode::kSetItem);
const std::string kAppends = op(Opcode::kAppends);

Value read(const std::string& body) {
  const std::string bytes = pickle_of(body);
  return read_pickle(std::as_bytes(std::span(bytes)), "file", [](const StorageReference&) {
    static const std::vector<float> elements = pattern(0, 16);
    return borrow_storage(std::as_bytes(std::span(elements)));
  });
}

/// Lists of `width` items, each the same list, `depth` levels of them: width^depth values in some 20 × depth
/// bytes.
std::string shared_lists(int depth, std::size_t width) {
  std::string item = op(Opcode::kNone);
  std::string body;
  for (int i = 0; i < depth; ++i) {
    const auto key = static_cast<std::uint8_t>(i);
    if (i > 0) body += op(Opcode::kPop);
    body += kList + kMark + repeat(item, width) + kAppends + put(key);
    item = get(key);
  }
  return body;
}

/// {key: [item, item, …]}
std::string under_key(const std::string& key, const std::string& item, std::size_t count) {
  return kDict + text(key) + kList + kMark + repeat(item, count) + kAppends + kSetItem;
}

TEST(Proportion, SharedListsAreCutInSum) {
  const Value value = read(kDict + text("x") + shared_lists(5, 20) + kSetItem);  // 3.2 million values
  const std::string described = describe(value);
  EXPECT_EQ(std::count(described.begin(), described.end(), '\n'), 2001);
  EXPECT_THAT(described, HasSubstr("… cut after 2000 lines\n"));
  EXPECT_LT(json_text(json_from_value(value)).size(), kMiB);
  EXPECT_THAT(json_text(json_from_value(value)), HasSubstr("\"list of 20\""));
}

TEST(Proportion, WhatFitsIsDescribedWhole) {
  const Value value = read(kDict + text("x") + shared_lists(2, 20) + kSetItem);
  EXPECT_THAT(describe(value), testing::Not(HasSubstr("cut")));
  EXPECT_THAT(describe(value, 64, 421), testing::Not(HasSubstr("cut")));  // a line for x, 20 lists, 400 items
  EXPECT_THAT(describe(value, 64, 420), HasSubstr("… cut after 420 lines\n"));
}

TEST(Proportion, ALongKeyIsNotCopiedForWhatLiesBelowIt) {
  // An object that is not loaded, once for each of 100 000 children.
  const Value value = read(under_key(std::string(kMiB, 'k'), global("a", "B"), 100'000));
  const std::vector<std::string> places = list_inert(value);
  EXPECT_THAT(places, SizeIs(100));
  EXPECT_THAT(places[0], HasSubstr("kkk…: a.B"));
  EXPECT_EQ(count_inert(value), 100'000U);
  std::size_t bytes = 0;
  for (const std::string& place : places) bytes += place.size();
  EXPECT_LT(bytes, 100 * 250U);
  EXPECT_LT(describe(value).size(), 100 * 250U);
}

TEST(Proportion, DictsOfTensorsAreFoundWithoutCopyingTheirPath) {
  std::string body =
      kDict + text("weight") + test::tensor(0, test::numbers({2}), test::numbers({1})) + kSetItem;
  body = kDict + kMark + text("model") + body + put(1);
  for (int i = 0; i < 1000; ++i) body += text(fmt::format("copy{}", i)) + get(1);
  body += op(Opcode::kSetItems);
  const LoadedCheckpoint plain = interpret_checkpoint("file", read(body));
  EXPECT_THAT(plain.state_dicts, SizeIs(1001));
  EXPECT_EQ(plain.state_dicts[0].key, "model");
  // Nobody names a place by a mebibyte.
  const LoadedCheckpoint loaded =
      interpret_checkpoint("file", read(kDict + text(std::string(kMiB, 'k')) + body + kSetItem));
  EXPECT_THAT(loaded.state_dicts, SizeIs(0));
}

TEST(Proportion, TensorsOfDictsThatOccurAgainAreBoundedInSum) {
  std::string dict = kDict + kMark;
  const std::string tensor = test::tensor(0, test::numbers({2}), test::numbers({1})) + put(2);
  for (int i = 0; i < 500; ++i) dict += text(fmt::format("w{}", i)) + (i == 0 ? tensor : get(2));
  dict += op(Opcode::kSetItems) + put(1);
  std::string body = kDict + kMark + text("model") + dict;
  for (int i = 0; i < 300; ++i) body += text(fmt::format("copy{}", i)) + get(1);
  body += op(Opcode::kSetItems);
  const Value root = read(body);
  EXPECT_THAT(message_of<DataError>([&] { (void)interpret_checkpoint("file", root); }),
              HasSubstr("file: holds more than 100000 tensors"));
}

TEST(Proportion, TextsAreCountedAsWell) {
  // A text of 64 KiB, two hundred times, and what comes after it.
  std::string body =
      kDict + text("config") + kDict + kMark + text("a") + text(std::string(kMiB / 16, 'x')) + put(1);
  for (int i = 0; i < 200; ++i) body += text(fmt::format("t{}", i)) + get(1);
  body += text("hidden") + number(48) + op(Opcode::kSetItems) + kSetItem;
  const LoadedCheckpoint loaded = interpret_checkpoint("file", read(body));
  EXPECT_EQ(loaded.config["hidden"], 48);
  EXPECT_EQ(loaded.config["t199"], "str of 65536 bytes");
  EXPECT_LT(json_text(loaded.config).size(), 4 * kMiB);
}

TEST(Proportion, AShapeOfASafetensorsFileIsBounded) {
  const test::TemporaryFolder folder;
  const auto refusal = [&](const std::string& header) {
    test::write_bytes(folder / "a.safetensors", little(std::uint64_t{header.size()}) + header);
    return message_of<DataError>([&] { (void)read_safetensors(folder / "a.safetensors"); });
  };
  EXPECT_THAT(
      refusal(R"({"w":{"dtype":"F32","shape":[)" + repeat("1,", 7'000'000) + R"(1],"data_offsets":[0,4]}})"),
      HasSubstr("an array of more than 64 items"));
  EXPECT_THAT(refusal(repeat("{\"a\":", 200'000)), HasSubstr("nested deeper"));
}

}  // namespace
}  // namespace voca::engine
