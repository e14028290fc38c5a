#include "engine/checkpoint/torch/pickle_reader.h"

#include <array>
#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/torch/pickle_support.h"

namespace voca::engine {
namespace {

using test::call;
using test::floats;
using test::get;
using test::global;
using test::little;
using test::message_of;
using test::number;
using test::numbers;
using test::op;
using test::pattern;
using test::pickle_of;
using test::put;
using test::repeat;
using test::storage;
using test::tensor;
using test::text;
using test::tuple;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

/// Sixteen floats by the key "0"; nothing else.
std::shared_ptr<const Storage> resolve(const StorageReference& reference) {
  static const std::vector<float> elements = pattern(0, 16);
  if (reference.key != "0" || reference.elements * reference.element_size != 64)
    throw DataError("file: no such storage");
  return borrow_storage(std::as_bytes(std::span(elements)));
}

Value read_whole(const std::string& bytes, const PickleLimits& limits = {}) {
  return read_pickle(std::as_bytes(std::span(bytes)), "file", resolve, limits);
}

/// The value of one body, and what makes it be refused.
Value read(const std::string& body) {
  return read_whole(pickle_of(body));
}
std::string refusal_of_whole(const std::string& bytes) {
  std::string message = message_of<DataError>([&] { (void)read_whole(bytes); });
  EXPECT_THAT(message, StartsWith("file: "));
  return message;
}
std::string refusal(const std::string& body) {
  return refusal_of_whole(pickle_of(body));
}

const std::string kList = op(Opcode::kEmptyList);
const std::string kDict = op(Opcode::kEmptyDict);
const std::string kMark = op(Opcode::kMark);
const std::string kNone = op(Opcode::kNone);
const std::string kAppend = op(Opcode::kAppend);
const std::string kAppends = op(Opcode::kAppends);
const std::string kSetItem = op(Opcode::kSetItem);
const std::string kBuild = op(Opcode::kBuild);

TEST(PickleReader, UnderstandsNumbersOfEverySize) {
  const std::vector<std::pair<std::string, std::int64_t>> whole{
      {op(Opcode::kBinInt1) + '\xFF', 255},
      {op(Opcode::kBinInt2) + little(std::uint16_t{65535}), 65535},
      {op(Opcode::kBinInt) + little(std::int32_t{-7}), -7},
      {op(Opcode::kLong1) + std::string(1, '\0'), 0},
      {op(Opcode::kLong1) + std::string("\x01\xFF", 2), -1},
      {op(Opcode::kLong1) + std::string("\x02\xFF\x00", 3), 255},
      {op(Opcode::kLong4) + little(std::uint32_t{3}) + std::string("\x00\x00\x80", 3), -8388608},
      {number(std::numeric_limits<std::int64_t>::min()), std::numeric_limits<std::int64_t>::min()}};
  for (const auto& [body, expected] : whole) {
    const Value value = read(body);
    ASSERT_NE(value.if_int(), nullptr);
    EXPECT_EQ(*value.if_int(), expected);
  }
  const Value real = read(op(Opcode::kBinFloat) + std::string("\xBF\xF8\0\0\0\0\0\0", 8));
  EXPECT_EQ(*real.if_double(), -1.5);
  EXPECT_EQ(*read(op(Opcode::kLong1) + '\x09' + std::string(8, '\xFF') + '\0').if_unsigned(),
            std::numeric_limits<std::uint64_t>::max());
  EXPECT_THAT(list_inert(read(op(Opcode::kLong1) + '\x09' + std::string(9, '\x01'))),
              ElementsAre("the whole file: int of 9 bytes"));
}

TEST(PickleReader, UnderstandsTextsAndBytesOfEveryForm) {
  const std::string euro = "\xE2\x82\xAC";
  for (const std::string& body : {text(euro), op(Opcode::kShortBinUnicode) + '\x03' + euro,
                                  op(Opcode::kBinUnicode8) + little(std::uint64_t{3}) + euro,
                                  op(Opcode::kShortBinString) + '\x03' + euro,
                                  op(Opcode::kBinString) + little(std::uint32_t{3}) + euro})
    EXPECT_EQ(*read(body).if_string(), euro);
  const std::string latin1 = call(global("_codecs", "encode"), tuple({text("\xC3\xBF"), text("latin1")}));
  for (const std::string& body : {latin1, op(Opcode::kShortBinBytes) + "\x01\xFF",
                                  op(Opcode::kBinBytes) + little(std::uint32_t{1}) + '\xFF',
                                  op(Opcode::kBinBytes8) + little(std::uint64_t{1}) + '\xFF',
                                  op(Opcode::kByteArray8) + little(std::uint64_t{1}) + '\xFF',
                                  op(Opcode::kShortBinString) + "\x01\xFF"})
    EXPECT_EQ(read(body).if_bytes()->data, "\xFF");
}

TEST(PickleReader, UnderstandsATensorAndItsViews) {
  const Value block = read(tensor(5, numbers({2, 3}), numbers({4, 1})));
  ASSERT_NE(block.if_tensor(), nullptr);
  const auto elements = pattern(0, 16);
  EXPECT_THAT(floats(*block.if_tensor()), testing::ElementsAre(elements[5], elements[6], elements[7],
                                                               elements[9], elements[10], elements[11]));
  EXPECT_THAT(floats(*read(tensor(15, numbers({}), numbers({}))).if_tensor()),
              testing::ElementsAre(elements[15]));
  EXPECT_THAT(floats(*read(tensor(16, numbers({0, 3}), numbers({3, 1}))).if_tensor()), SizeIs(0));
}

TEST(PickleReader, UnderstandsTensorsThatAttributesWereSetOn) {
  const std::string block = tuple({storage("FloatStorage", "0", 16), number(0), numbers({2}), numbers({1}),
                                   op(Opcode::kNewFalse), kDict});
  const std::string rebuild = global("torch._utils", "_rebuild_tensor_v2");
  const auto typed = [&](const std::string& function, const std::string& type, const std::string& arguments) {
    return read(
        call(global("torch._tensor", "_rebuild_from_type_v2"), tuple({function, type, arguments, kDict})));
  };
  const std::string tensor_type = global("torch", "Tensor");
  EXPECT_NE(typed(rebuild, tensor_type, block).if_tensor(), nullptr);
  EXPECT_NE(typed(rebuild, global("torch.nn.parameter", "Buffer"), block).if_tensor(), nullptr);
  EXPECT_NE(
      read(call(global("torch._tensor", "_rebuild_from_type"), tuple({rebuild, tensor_type, block, kDict})))
          .if_tensor(),
      nullptr);
  // Another type, or a call of something else, stays what it is.
  EXPECT_NE(typed(rebuild, global("my", "Tensor"), block).if_inert(), nullptr);
  EXPECT_NE(typed(global("os", "system"), tensor_type, tuple({text("x")})).if_inert(), nullptr);
  EXPECT_NE(typed(global("torch._tensor", "_rebuild_from_type_v2"), tensor_type, block).if_inert(), nullptr);
  EXPECT_NE(typed(text("torch._utils._rebuild_tensor_v2"), tensor_type, block).if_inert(), nullptr);
  const std::string whole = test::tensor(0, numbers({2}), numbers({1}));
  const auto of_device = [&](const char* dtype) {
    return read(call(global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
                     tuple({whole, global("torch", dtype), text("hpu:0"), op(Opcode::kNewFalse)})));
  };
  EXPECT_NE(of_device("float32").if_tensor(), nullptr);
  EXPECT_NE(of_device("float16").if_inert(), nullptr);
}

TEST(PickleReader, NoGlobalIsResolvedHoweverItIsCalled) {
  const std::string arguments = tuple({text("touch voca_was_here")});
  const std::string by_stack = text("os") + text("system") + op(Opcode::kStackGlobal);
  const std::vector<std::pair<std::string, std::string>> bodies{
      {call(global("os", "system"), arguments), "os.system"},
      {call(by_stack, arguments), "os.system"},
      {call(global("builtins", "eval"), arguments), "builtins.eval"},
      {call(global("torch", "load"), arguments), "torch.load"},
      {call(global("torch.storage", "_load_from_bytes"), arguments), "torch.storage._load_from_bytes"},
      {global("subprocess", "Popen") + arguments + op(Opcode::kNewObj), "subprocess.Popen"},
      {global("subprocess", "Popen") + arguments + kDict + op(Opcode::kNewObjEx), "a call with keywords"},
      {kMark + text("x") + op(Opcode::kInst) + "os\nsystem\n", "an object of protocol 0"},
      {kMark + global("os", "system") + text("x") + op(Opcode::kObj), "an object of protocol 0"},
      {global("os", "system"), "os.system"},
      {call(call(global("builtins", "getattr"), tuple({global("os", "x"), text("system")})), arguments),
       "a call of something that is not a global"},
      {call(global("os", "system"), arguments) + kDict + kBuild, "os.system"},
      {kList + kDict + kBuild, "state set on a value"},
      {op(Opcode::kEmptySet) + kMark + text("x") + op(Opcode::kAddItems), "builtins.set"},
      {storage("FloatStorage", "0", 16), "a storage without a tensor"},
      {storage("EvilStorage", "0", 16), "torch.EvilStorage"},
      // Allowed names with arguments that ask for more than data.
      {call(global("torch._utils", "_rebuild_tensor_v2"),
            tuple({storage("FloatStorage", "0", 16), number(0), numbers({1}), numbers({1}), kNone,
                   call(global("os", "system"), arguments)})),
       "torch._utils._rebuild_tensor_v2"},
      {call(global("collections", "OrderedDict"), tuple({text("x")})), "collections.OrderedDict"},
      {call(global("_codecs", "encode"), tuple({text("x"), text("rot13")})), "_codecs.encode"}};
  for (const auto& [body, name] : bodies) EXPECT_THAT(list_inert(read(body)), ElementsAre(HasSubstr(name)));
  EXPECT_FALSE(std::filesystem::exists("voca_was_here"));
}

TEST(PickleReader, SaysWhereAnInertValueLies) {
  const std::string inner = kList + text("a") + kAppend + global("os", "remove") + kAppend;
  EXPECT_THAT(list_inert(read(kDict + text("args") + inner + kSetItem)), ElementsAre("args.1: os.remove"));
}

TEST(PickleReader, RefusesLengthsBeyondThePickle) {
  const std::uint64_t huge = std::uint64_t{1} << 62;
  for (const Opcode opcode : {Opcode::kBinUnicode8, Opcode::kBinBytes8, Opcode::kByteArray8}) {
    for (const std::uint64_t length : {std::uint64_t{2}, huge, ~std::uint64_t{0}})
      EXPECT_THAT(refusal(op(opcode) + little(length)), HasSubstr("ends within"));
  }
  for (const Opcode opcode : {Opcode::kBinUnicode, Opcode::kBinBytes, Opcode::kBinString, Opcode::kLong4}) {
    for (const std::uint32_t length : {2U, 0x7FFFFFFFU, 0xFFFFFFFFU})
      EXPECT_THAT(refusal(op(opcode) + little(length)), HasSubstr("ends within"));
  }
  for (const Opcode opcode :
       {Opcode::kShortBinUnicode, Opcode::kShortBinBytes, Opcode::kShortBinString, Opcode::kLong1})
    EXPECT_THAT(refusal(op(opcode) + '\xFF'), HasSubstr("ends within"));
  EXPECT_THAT(refusal(op(Opcode::kFrame) + little(huge) + kNone), HasSubstr("reaches beyond"));
}

TEST(PickleReader, RefusesWhatIsNoWholePickle) {
  EXPECT_THAT(refusal_of_whole(""), HasSubstr("ends within"));
  EXPECT_THAT(refusal_of_whole("N."), HasSubstr("protocol 2 to 5"));
  EXPECT_THAT(refusal_of_whole("\x80\x01N."), HasSubstr("protocol 1"));
  EXPECT_THAT(refusal_of_whole("\x80\x06N."), HasSubstr("protocol 6"));
  EXPECT_THAT(refusal_of_whole("\x80\x02N"), HasSubstr("ends within"));
  EXPECT_THAT(refusal_of_whole("\x80\x02N.N"), HasSubstr("follow the end"));
  EXPECT_THAT(refusal(""), HasSubstr("left over"));
  EXPECT_THAT(refusal(kNone + kNone), HasSubstr("left over"));
  EXPECT_THAT(refusal(kMark + kNone), HasSubstr("left over"));
  PickleLimits limits;
  limits.max_bytes = 10;
  EXPECT_THAT(message_of<DataError>([&] { (void)read_whole(pickle_of(text("long enough")), limits); }),
              HasSubstr("at most 10"));
}

TEST(PickleReader, RefusesOperationsWithNothingToWorkOn) {
  EXPECT_THAT(refusal(op(Opcode::kTuple)), HasSubstr("no mark"));
  EXPECT_THAT(refusal(kList + kAppends), HasSubstr("no mark"));
  EXPECT_THAT(refusal(op(Opcode::kReduce)), HasSubstr("nothing to work on"));
  EXPECT_THAT(refusal(kNone + kMark + kAppend), HasSubstr("nothing to work on"));
  EXPECT_THAT(refusal(kDict + kMark + kNone + op(Opcode::kSetItems)), HasSubstr("not a dict"));
  EXPECT_THAT(refusal(kMark + kNone + op(Opcode::kDict)), HasSubstr("no value"));
  EXPECT_THAT(refusal(kNone + kNone + kAppend), HasSubstr("not a list"));
  EXPECT_THAT(refusal(kNone + kNone + kNone + kSetItem), HasSubstr("not a dict"));
  EXPECT_THAT(refusal(global("os", "system") + kNone + op(Opcode::kReduce)), HasSubstr("not a tuple"));
  EXPECT_THAT(refusal(kNone + kNone + op(Opcode::kStackGlobal)), HasSubstr("not a string"));
  EXPECT_THAT(refusal(text("x") + op(Opcode::kBinPersId)), HasSubstr("no storage"));
  EXPECT_THAT(refusal(get(7)), HasSubstr("never set"));
  EXPECT_THAT(refusal(kNone + op(Opcode::kLongBinPut) + little(0xFFFFFFFFU)), HasSubstr("beyond"));
}

TEST(PickleReader, RefusesNamesThatAreNone) {
  EXPECT_THAT(refusal(op(Opcode::kGlobal) + std::string(1000, 'x') + "\ny\n"), HasSubstr("without an end"));
  EXPECT_THAT(refusal(global(std::string(200, 'x'), std::string(200, 'y'))), HasSubstr("is not a name"));
}

TEST(PickleReader, TextsThatAreNotUtf8AreInert) {
  for (const char* bad : {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "a\x80"})
    EXPECT_THAT(list_inert(read(text(bad))), ElementsAre(HasSubstr("UTF-8")));
}

// argparse.Namespace and its like: what is set on an object that is not built can be read.
TEST(PickleReader, AnInertValueKeepsWhatIsSetOnIt) {
  const std::string object = global("argparse", "Namespace") + op(Opcode::kEmptyTuple) + op(Opcode::kNewObj);
  const std::string attributes = kDict + text("lr") + number(3) + kSetItem;
  const Value built = read(object + attributes + kBuild);
  ASSERT_NE(built.find("lr"), nullptr);
  EXPECT_EQ(*built.find("lr")->if_int(), 3);
  // A dict that has attributes too: of a name that occurs twice the item stays.
  const Value both = read(object + text("lr") + number(1) + kSetItem + attributes + kBuild);
  EXPECT_EQ(both.entries().size(), 1U);
  EXPECT_EQ(*both.find("lr")->if_int(), 1);
  EXPECT_EQ(json_from_value(both).dump(), R"({"lr":1})");
  // omegaconf
  const std::string node = global("omegaconf", "AnyNode") + op(Opcode::kEmptyTuple) + op(Opcode::kNewObj) +
                           kDict + text("_val") + number(8) + kSetItem + kBuild;
  EXPECT_EQ(json_from_value(read(kDict + text("num_heads") + node + kSetItem)).dump(), R"({"num_heads":8})");
}

TEST(PickleReader, RefusesAKeyTwice) {
  const std::string body =
      kDict + kMark + text("a") + number(1) + text("a") + number(2) + op(Opcode::kSetItems);
  EXPECT_THAT(refusal(body), HasSubstr("key a twice"));
}

// Every byte as an opcode, with nothing, with values and with a mark to work on, and bytes to take.
TEST(PickleReader, EveryOpcodeIsReadOrRefused) {
  int refused = 0;
  for (int code = 0; code < 256; ++code) {
    for (const std::string& before : {std::string(), kNone + kNone + kNone, kList + kMark + kNone + kNone,
                                      text("a") + text("b") + kDict}) {
      for (const std::string& after : {std::string(), std::string(40, '\0'), std::string(40, '\xFF'),
                                       std::string("1\n2\n"), kNone + op(Opcode::kStop)}) {
        const std::string bytes = "\x80\x02" + before + static_cast<char>(code) + after;
        try {
          (void)read_whole(bytes);
        } catch (const DataError& error) {
          ++refused;
          EXPECT_THAT(error.what(), StartsWith("file: "));
        }
      }
    }
  }
  EXPECT_GT(refused, 4000);
  for (const Opcode opcode : {Opcode::kExt1, Opcode::kExt2, Opcode::kExt4, Opcode::kNextBuffer,
                              Opcode::kReadonlyBuffer, static_cast<Opcode>('P'), static_cast<Opcode>('I')})
    EXPECT_THAT(refusal(op(opcode)), HasSubstr(fmt::format("0x{:02x}", static_cast<unsigned>(opcode))));
}

// NOLINTBEGIN(performance-inefficient-string-concatenation): opcodes in the order in which they are read

TEST(PickleReader, RefusesDeepNesting) {
  for (const std::size_t depth : {std::size_t{65}, std::size_t{300000}}) {
    EXPECT_THAT(refusal(repeat(kList, depth) + repeat(kAppend, depth - 1)), HasSubstr("deeper"));
    EXPECT_THAT(refusal(kNone + repeat(op(Opcode::kTuple1), depth)), HasSubstr("deeper"));
    EXPECT_THAT(refusal(repeat(kDict + text("a"), depth) + kNone + repeat(kSetItem, depth)),
                HasSubstr("deeper"));
    EXPECT_THAT(refusal(repeat(kDict, depth) + repeat(kBuild, depth - 1)), HasSubstr("deeper"));
  }
  // Deep by sharing: each is shallow where it is made.
  std::string shared = kList + put(0);
  for (int i = 0; i < 100; ++i) shared += op(Opcode::kPop) + kList + get(0) + kAppend + put(0);
  EXPECT_THAT(refusal(shared), HasSubstr("deeper"));
  EXPECT_NO_THROW((void)read(repeat(kList, 64) + repeat(kAppend, 63)));
}

TEST(PickleReader, WhatContainsItselfIsCutThere) {
  const auto cut = [](const std::string& body) { return list_inert(read(body)); };
  const auto itself = HasSubstr("a value that contains itself");
  EXPECT_THAT(cut(kList + put(0) + get(0) + kAppend), ElementsAre(itself));
  EXPECT_THAT(cut(kDict + put(0) + text("a") + get(0) + kSetItem), ElementsAre(itself));
  EXPECT_THAT(cut(kDict + put(0) + get(0) + kBuild), IsEmpty());
  EXPECT_THAT(cut(kList + put(0) + get(0) + op(Opcode::kTuple1) + kAppend), ElementsAre(itself));
  EXPECT_THAT(cut(call(global("os", "x"), op(Opcode::kEmptyTuple)) + put(0) + get(0) + kBuild),
              ElementsAre(HasSubstr("os.x")));
}

TEST(PickleReader, RefusesWhatExpandsBeyondReason) {
  // Each level holds ten of the one before: a few hundred bytes stand for ten to the twentieth.
  std::string laughs = kList + text("ha") + kAppend + put(0);
  for (int level = 0; level < 20; ++level)
    laughs += op(Opcode::kPop) + kList + kMark + repeat(get(0), 10) + kAppends + put(0);
  EXPECT_THAT(refusal(laughs), HasSubstr("expands to more"));
  // One long text again and again.
  const std::string long_text = text(std::string(1 << 20, 'x')) + put(0);
  EXPECT_THAT(refusal(kList + kMark + long_text + repeat(get(0), 1000) + kAppends),
              HasSubstr("expands to more"));
  const std::string encode = call(global("_codecs", "encode"), tuple({get(0), text("latin1")}));
  EXPECT_THAT(refusal(long_text + kList + kMark + repeat(encode, 200) + kAppends),
              HasSubstr("bytes of text"));
  // One long list copied again and again.
  const std::string long_list =
      kList + kMark + repeat(kNone + kNone + op(Opcode::kTuple2), 10000) + kAppends + put(0);
  const std::string copy = call(global("collections", "OrderedDict"), get(0) + op(Opcode::kTuple1));
  EXPECT_THAT(refusal(long_list + kMark + repeat(copy, 200) + op(Opcode::kTuple)), HasSubstr("more than"));
}

TEST(PickleReader, RefusesMoreValuesThanAnyStateDict) {
  EXPECT_THAT(refusal(kMark + repeat(kNone, 1'000'001) + op(Opcode::kTuple)), HasSubstr("more than 1000000"));
  EXPECT_THAT(refusal(repeat(kMark, 1'000'001)), HasSubstr("marks"));
  EXPECT_THAT(refusal(kNone + repeat(op(Opcode::kDup), 4'000'001)), HasSubstr("more than 4000000"));
}

// NOLINTEND(performance-inefficient-string-concatenation)

TEST(PickleReader, RefusesTensorsThatDoNotLieInTheirStorage) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  EXPECT_THAT(refusal(tensor(0, numbers({17}), numbers({1}))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(tensor(1, numbers({16}), numbers({1}))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(tensor(16, numbers({}), numbers({}))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(tensor(17, numbers({0}), numbers({1}))), HasSubstr("begins beyond"));
  EXPECT_THAT(refusal(tensor(kMax, numbers({2}), numbers({1}))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(tensor(0, numbers({4, 4}), numbers({5, 1}))), HasSubstr("reaches beyond"));
  EXPECT_THAT(refusal(tensor(0, numbers({3}), numbers({kMax}))), HasSubstr("reaches beyond"));
  // More elements than the storage, all of them within: an expanded tensor.
  EXPECT_THAT(list_inert(read(tensor(0, numbers({17}), numbers({0})))), ElementsAre(HasSubstr("contiguous")));
  const auto more_than_any = HasSubstr("more elements than any");
  EXPECT_THAT(refusal(tensor(0, numbers({kMax}), numbers({1}))), more_than_any);
  EXPECT_THAT(refusal(tensor(0, numbers({1LL << 32, 1LL << 32}), numbers({1, 1}))), more_than_any);
  EXPECT_THAT(refusal(tensor(0, numbers({1LL << 62, 4}), numbers({1, 1}))), more_than_any);
  EXPECT_THAT(refusal(tensor(0, numbers({1LL << 40, 1LL << 40, 0}), numbers({1, 1, 1}))), more_than_any);
  EXPECT_THAT(refusal(tensor(0, numbers({3, kMax, kMax}), numbers({1, 1, 1}))), more_than_any);
}

TEST(PickleReader, RefusesTensorsOfStrangeArguments) {
  EXPECT_THAT(refusal(tensor(-1, numbers({1}), numbers({1}))), HasSubstr("offset"));
  EXPECT_THAT(refusal(tensor(0, numbers({-1}), numbers({1}))), HasSubstr("size"));
  EXPECT_THAT(refusal(tensor(0, numbers({1}), numbers({-1}))), HasSubstr("stride"));
  EXPECT_THAT(refusal(tensor(0, numbers({1, 1}), numbers({1}))), HasSubstr("2 extents and 1 strides"));
  EXPECT_THAT(refusal(tensor(0, number(1), numbers({1}))), HasSubstr("not a tuple"));
  EXPECT_THAT(refusal(tensor(0, tuple({text("a")}), numbers({1}))), HasSubstr("numbers from 0 on"));
  const std::string many = kMark + repeat(number(1), 17) + op(Opcode::kTuple);
  EXPECT_THAT(refusal(tensor(0, many, many)), HasSubstr("17 dimensions"));
  EXPECT_THAT(refusal(tensor(0, numbers({1}), numbers({1}), storage("UntypedStorage", "0", 64))),
              HasSubstr("no element type"));
  EXPECT_THAT(refusal(call(global("torch._utils", "_rebuild_tensor_v2"), tuple({number(1)}))),
              HasSubstr("1 arguments"));
  EXPECT_THAT(refusal(storage("FloatStorage", "0", -1)), HasSubstr("no storage"));
  EXPECT_THAT(refusal(storage("FloatStorage", "0", 17)), HasSubstr("no such storage"));
  EXPECT_THAT(refusal(storage("FloatStorage", "../0", 16)), HasSubstr("no such storage"));
}

}  // namespace
}  // namespace voca::engine
