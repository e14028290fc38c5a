#include "engine/archive/zip_archive.h"

#include <zlib.h>

#include "engine/base/digest.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/checkpoint/torch/pickle_support.h"

namespace voca::engine {
namespace {

using test::little;
using test::message_of;
using test::read_bytes;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;
using testing::SizeIs;

/// A record as a zip is told it is; what it says may be untrue.
struct Record {
  std::string name;
  std::string data;
  std::uint16_t flags = 0;
  std::uint16_t method = 0;
  std::uint32_t crc = 0;
  std::uint32_t size = 0;
  std::uint32_t stored = 0;
  std::uint32_t offset = 0;  ///< added to where it lies
  std::uint16_t disk = 0;
  std::string local_name{};  ///< where another one
};

Record stored(const std::string& name, const std::string& data) {
  const auto size = static_cast<std::uint32_t>(data.size());
  return {.name = name,
          .data = data,
          .crc = zip_crc32(std::as_bytes(std::span(data))),
          .size = size,
          .stored = size,
          .local_name = name};
}

Record deflated(const std::string& name, const std::string& data) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(compressBound(data.size()), '\0');
  std::string in = data;
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  Record record = stored(name, data);
  record.data = out;
  record.stored = static_cast<std::uint32_t>(out.size());
  record.method = Z_DEFLATED;
  return record;
}

/// The end record; each number may be changed from what is true.
struct End {
  std::int64_t entries = 0;
  std::int64_t size = 0;
  std::int64_t offset = 0;
  std::uint16_t disk = 0;
  std::string comment{};
  std::string before{};  ///< between directory and end record
};

std::string zip_of(const std::vector<Record>& records, const End& end = {}) {
  std::string bytes;
  std::string directory;
  for (const Record& record : records) {
    const auto numbers = little(record.crc) + little(record.stored) + little(record.size);
    const std::string made = little(std::uint16_t{20}) + little(record.flags) + little(record.method) +
                             little(std::uint32_t{0x00210000}) + numbers;
    directory += little(std::uint32_t{0x02014B50}) + little(std::uint16_t{20}) + made +
                 little(static_cast<std::uint16_t>(record.name.size())) + little(std::uint32_t{0}) +
                 little(record.disk) + little(std::uint16_t{0}) + little(std::uint32_t{0}) +
                 little(static_cast<std::uint32_t>(bytes.size() + record.offset)) + record.name;
    bytes += little(std::uint32_t{0x04034B50}) + made +
             little(static_cast<std::uint16_t>(record.local_name.size())) + little(std::uint16_t{0}) +
             record.local_name + record.data;
  }
  const auto at = static_cast<std::int64_t>(bytes.size());
  const auto count = static_cast<std::uint16_t>(static_cast<std::int64_t>(records.size()) + end.entries);
  return bytes + directory + end.before + little(std::uint32_t{0x06054B50}) + little(end.disk) +
         little(end.disk) + little(count) + little(count) +
         little(static_cast<std::uint32_t>(static_cast<std::int64_t>(directory.size()) + end.size)) +
         little(static_cast<std::uint32_t>(at + end.offset)) +
         little(static_cast<std::uint16_t>(end.comment.size())) + end.comment;
}

class ZipTest : public testing::Test {
 protected:
  std::string content(const std::string& zip, const std::string& name) {
    test::write_bytes(path_, zip);
    const ZipReader reader(path_);
    const auto bytes = reader.read(*reader.find(name), 1 << 24);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::string refusal(const std::string& zip) {
    test::write_bytes(path_, zip);
    std::string message = message_of<DataError>([&] {
      const ZipReader reader(path_);
      for (const ZipEntry& entry : reader.entries()) (void)reader.read(entry, 1 << 24);
    });
    EXPECT_THAT(message, HasSubstr(path_.string()));
    return message;
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "a.zip";
};

TEST_F(ZipTest, ReadsStoredAndDeflatedRecords) {
  const std::string text(100000, 'x');
  EXPECT_EQ(content(zip_of({stored("a", "one"), deflated("b", text)}), "a"), "one");
  EXPECT_EQ(content(zip_of({stored("a", "one"), deflated("b", text)}), "b"), text);
  EXPECT_EQ(content(zip_of({stored("a", ""), deflated("b", "")}), "b"), "");
  EXPECT_EQ(content(zip_of({stored("a", "one")}, {.comment = std::string(65535, 'c')}), "a"), "one");
  EXPECT_EQ(
      content(zip_of({stored("a", "one")}, {.comment = "PK\x05\x06 in a comment, and a good deal more"}),
              "a"),
      "one");
  test::write_bytes(path_, zip_of({}));
  EXPECT_THAT(ZipReader(path_).entries(), SizeIs(0));
}

TEST_F(ZipTest, WritesWhatItReadsWithAndWithoutZip64) {
  for (const std::uint64_t threshold : {ZipWriter::kZip64Threshold, std::uint64_t{64}, std::uint64_t{0}}) {
    std::string bytes;
    ZipWriter writer(
        [&](std::span<const std::byte> piece) {
          bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        },
        threshold);
    const std::string large(1000, 'y');
    writer.add("archive/small", std::as_bytes(std::span("abc", 3)));
    writer.add("archive/large", std::as_bytes(std::span(large)));
    writer.add("archive/empty", {});
    writer.finish();
    EXPECT_EQ(writer.position(), bytes.size());
    EXPECT_EQ(content(bytes, "archive/small"), "abc");
    EXPECT_EQ(content(bytes, "archive/large"), large);
    EXPECT_EQ(content(bytes, "archive/empty"), "");
    const ZipReader reader(path_);
    for (const ZipEntry& entry : reader.entries()) EXPECT_EQ(entry.data_offset % 64, 0U) << entry.name;
  }
}

TEST_F(ZipTest, HoldsMoreRecordsThanAPlainEndRecordCounts) {
  std::string bytes;
  ZipWriter writer([&](std::span<const std::byte> piece) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  });
  for (int i = 0; i < 66000; ++i) writer.add(std::to_string(i), {});
  writer.finish();
  test::write_bytes(path_, bytes);
  const ZipReader reader(path_);
  EXPECT_THAT(reader.entries(), SizeIs(66000));
  EXPECT_NE(reader.find("65999"), nullptr);
  EXPECT_EQ(reader.find("66000"), nullptr);
}

TEST_F(ZipTest, ReadsNoMoreThanItMay) {
  test::write_bytes(path_, zip_of({stored("a", "four")}));
  const ZipReader reader(path_);
  EXPECT_THAT(message_of<DataError>([&] { (void)reader.read(*reader.find("a"), 3); }),
              AllOf(HasSubstr("record a"), HasSubstr("at most 3")));
  EXPECT_THAT(reader.read(*reader.find("a"), 4), SizeIs(4));
}

TEST_F(ZipTest, RefusesTwoRecordsOfOneName) {
  EXPECT_THAT(refusal(zip_of({stored("a", "one"), stored("b", "two"), stored("a", "one")})),
              HasSubstr("two records named a"));
}

TEST_F(ZipTest, RefusesWhatItCannotRead) {
  for (const std::uint16_t flag : std::vector<std::uint16_t>{0x0001, 0x0040, 0x2000}) {
    Record encrypted = stored("a", "one");
    encrypted.flags = flag;
    EXPECT_THAT(refusal(zip_of({encrypted})), HasSubstr("record a is encrypted"));
  }
  Record compressed = stored("a", "one");
  compressed.method = 12;
  EXPECT_THAT(refusal(zip_of({compressed})), HasSubstr("method 12"));
  Record elsewhere = stored("a", "one");
  elsewhere.disk = 1;
  EXPECT_THAT(refusal(zip_of({elsewhere})), HasSubstr("several disks"));
  EXPECT_THAT(refusal(zip_of({stored("a", "one")}, {.disk = 1})), HasSubstr("several disks"));
}

TEST_F(ZipTest, RefusesSizesThatLie) {
  Record record = stored("a", "one");
  record.size = 4;
  EXPECT_THAT(refusal(zip_of({record})), HasSubstr("two sizes of stored record a"));
  record.stored = 4;
  EXPECT_THAT(refusal(zip_of({record})), HasSubstr("reaches beyond"));
  record.size = record.stored = 0xFFFFFFF0;
  EXPECT_THAT(refusal(zip_of({record})), HasSubstr("reaches beyond"));
  record.size = record.stored = 0xFFFFFFFF;  // "see the ZIP64 field", which is not there
  EXPECT_THAT(refusal(zip_of({record})), HasSubstr("reaches beyond"));
  record.size = record.stored = 2;
  EXPECT_THAT(refusal(zip_of({record})), AllOf(HasSubstr("record a is damaged"), HasSubstr("CRC")));
}

TEST_F(ZipTest, RefusesDeflateStreamsThatLie) {
  const std::string text(1 << 20, '\0');
  Record bomb = deflated("a", text);
  ASSERT_LT(bomb.stored, 2000U);
  bomb.size = 100;
  EXPECT_THAT(refusal(zip_of({bomb})), HasSubstr("not a deflate stream of 100 bytes"));
  bomb.size = (1 << 20) + 1;
  EXPECT_THAT(refusal(zip_of({bomb})), HasSubstr("record a is damaged"));
  bomb.size = 0xFFFFFFF0;
  EXPECT_THAT(refusal(zip_of({bomb})), HasSubstr("further than deflate can"));
  Record cut = deflated("a", "some text, some text");
  cut.data.pop_back();
  --cut.stored;
  EXPECT_THAT(refusal(zip_of({cut})), HasSubstr("not a deflate stream"));
  Record noise = stored("a", "this is no deflate stream");
  noise.method = Z_DEFLATED;
  EXPECT_THAT(refusal(zip_of({noise})), HasSubstr("not a deflate stream"));
}

TEST_F(ZipTest, RefusesHeadersThatDisagreeWithTheDirectory) {
  Record renamed = stored("a", "one");
  renamed.local_name = "b";
  EXPECT_THAT(refusal(zip_of({renamed})), HasSubstr("disagrees"));
  renamed.local_name = std::string(1000, 'a');
  EXPECT_THAT(refusal(zip_of({renamed})), HasSubstr("disagrees"));
  Record moved = stored("a", "one");
  moved.offset = 1;
  EXPECT_THAT(refusal(zip_of({moved})), HasSubstr("record a"));
  moved.offset = 0x7FFFFFFF;
  EXPECT_THAT(refusal(zip_of({moved})), HasSubstr("begins outside"));
}

TEST_F(ZipTest, RefusesRecordsThatOverlap) {
  // The second record lies within the first's content.
  const std::string inner = zip_of({stored("b", "two")});
  const std::string local = inner.substr(0, 30 + 1 + 3);
  Record outer = stored("a", local + "more");
  Record within = stored("b", "two");
  std::string zip = zip_of({outer, within});
  // The directory's entry of "b" is made to point into "a".
  const std::size_t entry = zip.rfind("PK\x01\x02");
  zip.replace(entry + 42, 4, little(std::uint32_t{31}));
  EXPECT_THAT(refusal(zip), HasSubstr("records a and b overlap"));
}

TEST_F(ZipTest, RefusesEndRecordsThatLie) {
  const std::vector<Record> records{stored("a", "one"), stored("b", "two")};
  for (const std::int64_t change : {1, -1, 1000, 60000})
    EXPECT_THAT(refusal(zip_of(records, {.entries = change})), HasSubstr("directory is damaged"));
  for (const std::int64_t change : {1, -1, 46, -46, 1 << 30}) {
    EXPECT_THAT(refusal(zip_of(records, {.size = change})), HasSubstr("directory is damaged"));
    EXPECT_THAT(refusal(zip_of(records, {.offset = change})), HasSubstr("directory is damaged"));
    EXPECT_THAT(refusal(zip_of(records, {.size = -change, .offset = change})),
                HasSubstr("directory is damaged"));
  }
  EXPECT_THAT(refusal(zip_of(records, {.before = "gap"})), HasSubstr("directory is damaged"));
  EXPECT_THAT(refusal(zip_of(records) + "behind"), HasSubstr("no zip end record"));
  EXPECT_THAT(refusal(""), HasSubstr("no zip end record"));
  EXPECT_THAT(refusal(std::string(100000, 'x')), HasSubstr("no zip end record"));
}

TEST_F(ZipTest, RefusesZip64RecordsThatLie) {
  const auto locator = [](std::uint64_t offset) {
    return little(std::uint32_t{0x07064B50}) + little(std::uint32_t{0}) + little(offset) +
           little(std::uint32_t{1});
  };
  for (const std::uint64_t offset :
       {std::uint64_t{0}, std::uint64_t{40}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    EXPECT_THAT(refusal(zip_of({stored("a", std::string(100, 'x'))}, {.before = locator(offset)})),
                HasSubstr("ZIP64"));
  }
  EXPECT_THAT(message_of<DataError>([&] {
                test::write_bytes(path_, zip_of({}, {.before = locator(0)}));
                const ZipReader reader(path_);
              }),
              HasSubstr(path_.string()));
}

TEST_F(ZipTest, NamesAreOnlyNames) {
  const std::vector<std::string> names{"../../up", "/etc/passwd", std::string("a\0b", 3),
                                       "",         "a\x1b[2Jb",   "C:\\x"};
  std::vector<Record> records;
  records.reserve(names.size());
  for (const std::string& name : names) records.push_back(stored(name, "content of " + name));
  for (const std::string& name : names) EXPECT_EQ(content(zip_of(records), name), "content of " + name);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
  Record damaged = stored("a\x1b[2Jb", "one");
  damaged.crc ^= 1;
  EXPECT_THAT(refusal(zip_of({damaged})), testing::Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace voca::engine
