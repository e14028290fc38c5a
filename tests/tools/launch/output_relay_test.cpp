#include "tools/launch/output_relay.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::tools {
namespace {

using Stream = OutputRelay::Stream;

std::string cut(std::initializer_list<std::string> pieces) {
  LineCutter cutter;
  std::string lines;
  const auto visit = [&](std::string_view line) { lines.append("[rank 3] ").append(line) += '\n'; };
  for (const std::string& piece : pieces) cutter.add(piece, visit);
  cutter.finish(visit);
  return lines;
}

TEST(LineCutter, VisitsEachLineAlone) {
  EXPECT_EQ(cut({"a\nb\n\n"}), "[rank 3] a\n[rank 3] b\n[rank 3] \n");
  EXPECT_EQ(cut({}), "");
}

TEST(LineCutter, JoinsALineThatComesInPieces) {
  EXPECT_EQ(cut({"on", "e li", "ne\ntw", "o\n"}), "[rank 3] one line\n[rank 3] two\n");
}

TEST(LineCutter, HoldsBackALineUntilItEnds) {
  LineCutter cutter;
  std::vector<std::string> lines;
  const auto visit = [&](std::string_view line) { lines.emplace_back(line); };
  cutter.add("half", visit);
  EXPECT_TRUE(lines.empty());
  cutter.add(" whole\nnext", visit);
  EXPECT_EQ(lines, std::vector<std::string>{"half whole"});
}

TEST(LineCutter, EndsALastLineThatWasNot) {
  EXPECT_EQ(cut({"a\nlast words"}), "[rank 3] a\n[rank 3] last words\n");
}

TEST(LineCutter, KeepsTheLastStateOfALineThatRedrawsItself) {
  EXPECT_EQ(cut({"\r 10%", "\r 20%", "\r100%\n"}), "[rank 3] 100%\n");
  EXPECT_EQ(cut({"windows\r\n"}), "[rank 3] windows\n");
  EXPECT_EQ(cut({"\r 50%"}), "[rank 3]  50%\n");
}

TEST(LineCutter, BoundsALineAndLosesNothingOfIt) {
  const std::string text(2 * LineCutter::kMaxLine + 5, 'x');
  const std::string part = "[rank 3] " + std::string(LineCutter::kMaxLine, 'x') + "\n";
  EXPECT_EQ(cut({text, "\n"}), part + part + "[rank 3] xxxxx\n");
  EXPECT_EQ(cut({std::string(LineCutter::kMaxLine, 'x') + "\n"}), part);
  // A bar that redraws itself forever takes no more.
  std::string bar;
  for (int i = 0; i < 30000; ++i) bar += "\rstep " + std::to_string(i);
  EXPECT_EQ(cut({bar, "\n"}), "[rank 3] step 29999\n");
}

class Relay : public ::testing::Test {
 protected:
  Relay() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    read_end_.emplace(ends[0]);
    write_end_.emplace(ends[1]);
    ::fcntl(read_end_->get(), F_SETFL, O_NONBLOCK);
    before_ = std::signal(SIGPIPE, SIG_IGN);
  }
  ~Relay() override { std::signal(SIGPIPE, before_); }
  [[nodiscard]] std::string read_all() const {
    std::string text;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(read_end_->get(), buffer, sizeof(buffer))) > 0;)
      text.append(buffer, static_cast<std::size_t>(got));
    return text;
  }
  std::optional<engine::UniqueFd> read_end_;
  std::optional<engine::UniqueFd> write_end_;

 private:
  void (*before_)(int);
};

TEST_F(Relay, KeepsTheOrderOfLinesAcrossStreamsThatAreOneFile) {
  OutputRelay relay(write_end_->get(), write_end_->get());
  const std::string longer(10000, 'y');  // takes several writes
  relay.add(Stream::kOut, longer + "\n");
  relay.add(Stream::kErr, "b\n");
  relay.add(Stream::kOut, "c\n");
  relay.write_some();
  EXPECT_EQ(relay.waiting_for(), -1);
  EXPECT_EQ(read_all(), longer + "\nb\nc\n");
}

TEST_F(Relay, NeitherBlocksNorLosesWhenItsReaderIsSlow) {
  OutputRelay relay(write_end_->get(), write_end_->get());
  std::string sent;
  while (!relay.is_full()) {
    const std::string line = std::to_string(sent.size()) + std::string(1000, 'z') + "\n";
    sent += line;
    relay.add(Stream::kOut, line);
  }
  relay.write_some();  // a pipe holds less than that
  EXPECT_EQ(relay.waiting_for(), write_end_->get());
  std::string received;
  while (relay.waiting_for() >= 0) {
    received += read_all();
    relay.write_some();
  }
  received += read_all();
  EXPECT_EQ(received, sent);
  EXPECT_FALSE(relay.lost_results());
}

TEST_F(Relay, DropsWhatNobodyReadsAndSaysSoOfResults) {
  read_end_.reset();
  OutputRelay relay(write_end_->get(), write_end_->get());
  relay.add(Stream::kErr, "progress\n");
  relay.write_some();
  EXPECT_FALSE(relay.lost_results());
  relay.add(Stream::kOut, std::string(10000, 'r') + "\n");
  relay.add(Stream::kOut, "more\n");
  relay.write_some();
  EXPECT_EQ(relay.waiting_for(), -1);
  EXPECT_TRUE(relay.lost_results());
}

}  // namespace
}  // namespace voca::tools
