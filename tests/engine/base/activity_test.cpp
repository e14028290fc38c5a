#include "engine/base/activity.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/file_reader.h"
#include "tests/engine/support/files.h"

namespace voca::engine {
namespace {

TEST(Activity, IsToldWhileSomebodyListens) {
  report_activity("before");
  std::vector<std::string> told;
  {
    const ActivityListener listener([&](const char* what) { told.emplace_back(what); });
    report_activity("one");
    report_activity("two");
  }
  report_activity("after");
  EXPECT_EQ(told, (std::vector<std::string>{"one", "two"}));
}

TEST(Activity, OfALargeFileIsToldPieceByPiece) {
  const test::TemporaryFolder folder;
  const std::vector<std::byte> bytes(std::size_t{40} << 20);
  int writes = 0;
  int reads = 0;
  const ActivityListener listener(
      [&](const char* what) { (std::string(what) == "writing a file" ? writes : reads) += 1; });
  AtomicFile file(folder.path() / "large");
  file.write(bytes);
  file.commit();
  EXPECT_GE(writes, 3);
  static_cast<void>(FileReader(folder.path() / "large").read(0, bytes.size()));
  EXPECT_GE(reads, 3);
}

}  // namespace
}  // namespace voca::engine
