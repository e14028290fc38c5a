#include "engine/base/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

using namespace std::string_literals;
using test::TemporaryFolder;
using ::testing::HasSubstr;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(VOCA_GOLDEN_DIR) / name;
}

TEST(FileKind, IsToldByContentWhateverTheName) {
  const TemporaryFolder folder;
  const auto kind_of = [&](const std::string& content) {
    test::write_bytes(folder / "x.pt", content);
    return file_kind(folder / "x.pt");
  };
  EXPECT_EQ(kind_of(""), FileKind::kEmpty);
  EXPECT_EQ(kind_of("\x93NUMPY\x01\x00"s), FileKind::kNpy);
  EXPECT_EQ(kind_of("<!DOCTYPE HTML>\n<html>"), FileKind::kHtml);
  EXPECT_EQ(kind_of("\xef\xbb\xbf\n <Html lang=en>"), FileKind::kHtml);
  EXPECT_EQ(kind_of("<?xml version='1.0'?><Error><Code>AccessDenied</Code>"), FileKind::kHtml);
  EXPECT_EQ(kind_of(" {\"message\": \"Not Found\"}"), FileKind::kJson);
  EXPECT_EQ(kind_of("[[1, 2], {}]"), FileKind::kJson);
  EXPECT_EQ(kind_of("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
            FileKind::kLfsPointer);
  EXPECT_EQ(kind_of("\x80\x04\x95 and so on"), FileKind::kPickle);
  EXPECT_EQ(kind_of("\x1f\x8b\x08 and so on"), FileKind::kGzip);
  EXPECT_EQ(kind_of(std::string(257, 'a') + "ustar"), FileKind::kTar);
  EXPECT_EQ(kind_of("\0\0\0\x20"
                    "ftypisom"s),
            FileKind::kMedia);
  EXPECT_EQ(kind_of("RIFF\1\2\3\4WAVEfmt "), FileKind::kMedia);
  EXPECT_EQ(kind_of("\x10\0\0\0\0\0\0\0{\"a\": {}}"s), FileKind::kSafetensors);
  EXPECT_EQ(kind_of("epoch,loss\n1,0.5\n"), FileKind::kText);
  EXPECT_EQ(kind_of("\1\2\3\4"), FileKind::kUnknown);
  EXPECT_EQ(file_kind(folder.path()), FileKind::kUnknown);
  EXPECT_EQ(file_kind(folder / "absent"), FileKind::kUnknown);
}

TEST(FileKind, KnowsWhatPyTorchNumpyAndHdf5Write) {
  EXPECT_EQ(file_kind(golden("checkpoint/training.pt")), FileKind::kTorch);
  EXPECT_EQ(file_kind(golden("checkpoint/zip64.pt")), FileKind::kTorch);
  EXPECT_EQ(file_kind(golden("checkpoint/legacy.pt")), FileKind::kLegacyTorch);
  EXPECT_EQ(file_kind(golden("data/stored_f32.npz")), FileKind::kNpz);
  EXPECT_EQ(file_kind(golden("data/deflated_f32.npz")), FileKind::kNpz);
  EXPECT_EQ(file_kind(golden("data/chunked.h5")), FileKind::kHdf5);
}

TEST(FileKind, AMistakenFileIsNamedWithWhatToDoAndADamagedOneIsLeftToItsReader) {
  const TemporaryFolder folder;
  test::write_bytes(folder / "a.h5", "<html>login</html>");
  EXPECT_EQ(
      mistaken_kind(folder / "a.h5", FileKind::kHdf5),
      "is an HTML page, where a packed dataset (.h5) was expected; a login or error page was saved under "
      "this name: download the file again");
  EXPECT_EQ(mistaken_kind(golden("data/chunked.h5"), FileKind::kHdf5), "");
  EXPECT_THAT(mistaken_kind(golden("data/stored_f32.npz"), FileKind::kTorch),
              HasSubstr("is a NumPy archive (.npz), where a PyTorch .pt"));
  test::write_bytes(folder / "cut.h5", "\x89HDF\r\n\x1a\n");
  EXPECT_EQ(mistaken_kind(folder / "cut.h5", FileKind::kHdf5), "");
}

}  // namespace
}  // namespace voca::engine
