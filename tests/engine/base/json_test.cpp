#include "engine/base/json.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "engine/base/text.h"
#include "tests/engine/support/files.h"
#include "tests/engine/support/mutate.h"
#include "tests/support/allocations.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;
using test::message_of;
using testing::HasSubstr;
using testing::StartsWith;

std::string refusal(const std::string& text, const JsonLimits& limits = {}) {
  return message_of<DataError>([&] { (void)parse_json(text, "a.json", limits); });
}

std::string repeated(const std::string& text, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) result += text;
  return result;
}

/// {"k0":0,"k1":0,…}
std::string object_of(std::size_t keys) {
  std::string text = "{";
  for (std::size_t i = 0; i < keys; ++i) text += fmt::format("{}\"k{}\":0", i > 0 ? "," : "", i);
  return text + "}";
}

TEST(Json, ReadsWhatTheLibraryReads) {
  for (const char* text : {"null", "true", "-1", "18446744073709551615", "1.5e3", R"("a\u00fc\n")", "[]",
                           "{}", "[1,[2,{}],\"x\"]", R"({"b":1,"a":{"c":[null,false,-2.25]},"":0})",
                           " \t\r\n[ 1 , 2 ] \n", "\xEF\xBB\xBF{\"a\":1}"}) {
    EXPECT_EQ(parse_json(text, "a.json"), ordered_json::parse(text)) << text;
    EXPECT_EQ(json_text(parse_json(text, "a.json")), ordered_json::parse(text).dump()) << text;
  }
}

TEST(Json, SaysWhereATextIsNone) {
  EXPECT_EQ(refusal("[1,]"), "a.json: is not JSON, at column 4");
  EXPECT_EQ(refusal("{\n \"a\": x}"), "a.json: is not JSON, at line 2, column 7");
  EXPECT_EQ(refusal(""), "a.json: is empty, JSON was expected");
  for (const char* text :
       {"nul", "[1", "{\"a\"}", "[1] 2", "\"\xFF\"", "01", "1e999", "'a'", "[1}", "{1:2}"}) {
    EXPECT_THAT(refusal(text), StartsWith("a.json: is not JSON")) << text;
    EXPECT_FALSE(parse_if_json(text, "a.json")) << text;
  }
}

TEST(Json, ANulIsNoEnd) {
  for (const std::string& text :
       {std::string("{}\0", 3), std::string("{}\0{}", 5), std::string("[\"a\0b\"]", 7)})
    EXPECT_THAT(refusal(text), StartsWith("a.json: is not JSON"));
}

// A name cut there would be another one.
TEST(Json, ANulWithinATextIsRefused) {
  for (const char* text : {R"({"a":"f.h5\u0000x"})", R"({"f\u0000x":1})", R"(["\u0000"])"})
    EXPECT_EQ(refusal(text), "a.json: a text with a NUL in it");
}

TEST(Json, DepthIsBounded) {
  EXPECT_EQ(json_text(parse_json(repeated("[", 64) + repeated("]", 64), "a.json")),
            repeated("[", 64) + repeated("]", 64));
  EXPECT_THAT(refusal(repeated("[", 65) + repeated("]", 65)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(refusal(repeated("[", 200'000)), HasSubstr("deeper"));
  EXPECT_THAT(refusal(repeated("{\"a\":", 200'000)), HasSubstr("deeper"));
  EXPECT_THAT(message_of<DataError>([] { (void)parse_if_json(repeated("[", 65), "a.json: line 3"); }),
              StartsWith("a.json: line 3: nested deeper"));
}

TEST(Json, KeysItemsAndValuesAreBounded) {
  EXPECT_EQ(parse_json(object_of(10'000), "a.json").size(), 10'000U);
  EXPECT_THAT(refusal(object_of(10'001)), HasSubstr("an object of more than 10000 keys"));
  EXPECT_THAT(refusal("[1,2,3]", {.items = 2}), HasSubstr("an array of more than 2 items"));
  EXPECT_EQ(parse_json(R"({"a":1,"b":2,"c":3})", "a.json", {.items = 2}).size(), 3U);
  EXPECT_THAT(refusal("[1,[2,3]]", {.values = 4}), HasSubstr("more than 4 values"));
  EXPECT_EQ(parse_json("[1,[2,3]]", "a.json", {.values = 5}).size(), 2U);
}

TEST(Json, AKeyTwiceIsRefusedByName) {
  EXPECT_EQ(refusal(R"({"a":1,"b":{"x":1,"y":2,"x":3}})"), "a.json: has the key \"x\" twice");
  EXPECT_THAT(refusal("{\"\\u001b[2J\":1,\"\\u001b[2J\":1}"), HasSubstr(R"("\x1b[2J" twice)"));
}

/// The library alone looks through all keys for each: a hundred thousand take it a quarter of a minute.
TEST(Json, WorkGrowsWithTheText) {
  const auto work = [](std::size_t keys) {
    const std::string text = object_of(keys);
    const std::int64_t before = voca::test::allocations();
    EXPECT_EQ(parse_json(text, "a.json", {.keys = keys}).size(), keys);
    return voca::test::allocations() - before;
  };
  EXPECT_LE(work(100'000), 11 * work(10'000));
  EXPECT_LE(work(10'000), 4 * 10'000);
}

TEST(Json, TextIsAlwaysUtf8) {
  EXPECT_EQ(json_text({{"path",
                        "a\xFF"
                        "b"},
                       {"name", "ü"}}),
            "{\"path\":\"a\xEF\xBF\xBD"
            "b\",\"name\":\"ü\"}");
  EXPECT_EQ(json_text({{"a", 1}}, 2), "{\n  \"a\": 1\n}");
}

TEST(Json, AMemberIsAddedToAnObjectOrToNothing) {
  ordered_json object;
  add_member(object, "b", 1);
  add_member(object, "a", {{"c", 2}});
  EXPECT_EQ(json_text(object), R"({"b":1,"a":{"c":2}})");
}

/// Every text that comes near one of ours is read or refused, and what is read is written and read again.
TEST(Json, AnyMutationIsReadOrRefused) {
  const std::string text =
      R"({"kind":"epoch","epoch":3,"loss":0.125,"list":[1,-2,1e-3,null,true],"o":{"ü\n":"x\u00e9","d":[[[{}]]]}})";
  std::mt19937_64 random(1);
  int read = 0;
  for (int i = 0; i < 5000; ++i) {
    const std::string mutated = test::mutate(text, random);
    try {
      const ordered_json json = parse_json(mutated, "a.json");
      EXPECT_EQ(parse_json(json_text(json), "again"), json) << mutated;
      EXPECT_TRUE(is_utf8(json_text(json)));
      ++read;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), StartsWith("a.json: "));
    }
  }
  EXPECT_GT(read, 100);
}

/// No other place parses: a file there would be without these limits.
TEST(Json, IsParsedInOnePlace) {
  const std::filesystem::path root = std::filesystem::path(VOCA_GOLDEN_DIR).parent_path().parent_path();
  int files = 0;
  for (const char* room : {"engine", "data", "model", "tools"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / room)) {
      const std::string extension = entry.path().extension().string();
      if ((extension != ".cpp" && extension != ".h") || entry.path().filename() == "json.cpp") continue;
      ++files;
      const std::string source = test::read_bytes(entry.path());
      for (const char* call : {"json::parse(", "Json::parse(", "sax_parse(", "json::accept("})
        EXPECT_EQ(source.find(call), std::string::npos) << entry.path() << ": engine/base/json.h does that";
    }
  }
  EXPECT_GT(files, 200);
}

TEST(Text, WhatATerminalObeysIsSpelledOut) {
  EXPECT_EQ(printable("plain ü € 😀 \\"), "plain ü € 😀 \\");
  EXPECT_EQ(printable(std::string("a\n\t\x1b[2J\x7f\0b", 10)), R"(a\x0a\x09\x1b[2J\u007f\x00b)");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m \xC2\x80 \xC2\xA0"),
            "\\u009b31m \\u0080 \xC2\xA0");  // C1; a space stays
  EXPECT_EQ(printable("\u202Eevil\u202C \u2066x\u2069 \u200F\u061C\u2028"),
            R"(\u202eevil\u202c \u2066x\u2069 \u200f\u061c\u2028)");
  EXPECT_EQ(printable("\x9B\xFF \xC3 \xE2\x82 \xED\xA0\x80 \xC0\x80 \xF4\x90\x80\x80"),
            R"(\x9b\xff \xc3 \xe2\x82 \xed\xa0\x80 \xc0\x80 \xf4\x90\x80\x80)");
}

TEST(Text, IsCutBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 3), "abc…");
  EXPECT_EQ(printable("abc", 3), "abc");
  EXPECT_EQ(printable("aü€", 2), "aü…");
  EXPECT_LE(printable(std::string(1 << 20, '\x1b')).size(), 4 * 200 + 3U);
}

TEST(Text, LinesStayLines) {
  EXPECT_EQ(printable_lines("a\nb\x1b[K\r\n\u009b"), "a\nb\\x1b[K\\x0d\n\\u009b");
  EXPECT_EQ(printable_lines(std::string(1000, 'x')), std::string(1000, 'x'));
}

}  // namespace
}  // namespace voca::engine
