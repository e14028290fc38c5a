#include "engine/base/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace voca::engine {
namespace {

class Columns : public ::testing::Test {
 protected:
  void SetUp() override { ::unsetenv("COLUMNS"); }
  void TearDown() override { ::unsetenv("COLUMNS"); }
};

TEST_F(Columns, AreEightyWhereThereIsNoTerminal) {
  const int file = ::open("/dev/null", O_WRONLY);
  ASSERT_GE(file, 0);
  EXPECT_EQ(terminal_columns(file), 80);
  EXPECT_EQ(window_columns(file), 0);
  ::setenv("COLUMNS", "132", 1);
  EXPECT_EQ(terminal_columns(file), 132);
  for (const char* text : {"", "0", "-3", "wide", "80x"}) {
    ::setenv("COLUMNS", text, 1);
    EXPECT_EQ(terminal_columns(file), 80) << text;
  }
  ::setenv("COLUMNS", "3", 1);
  EXPECT_EQ(terminal_columns(file), 20);
  ::close(file);
}

TEST_F(Columns, AreThoseOfTheTerminalThatTheStreamIs) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0) GTEST_SKIP() << "no pseudo terminals";
  winsize size{};
  size.ws_col = 57;
  ASSERT_EQ(::ioctl(terminal, TIOCSWINSZ, &size), 0);
  EXPECT_EQ(terminal_columns(terminal), 57);
  ::setenv("COLUMNS", "44", 1);
  EXPECT_EQ(terminal_columns(terminal), 44);
  EXPECT_EQ(window_columns(terminal), 57);
  ::close(terminal);
}

TEST(Wrapped, BreaksLongLinesAtSpacesAlone) {
  EXPECT_EQ(wrapped("one two three", 80, 2), "one two three");
  EXPECT_EQ(wrapped("one two three\n", 8, 2), "one two\n  three\n");
  EXPECT_EQ(wrapped("a_long_word_that_stays", 8, 2), "a_long_word_that_stays");
  EXPECT_EQ(wrapped("  name   text of it\nnext", 14, 9), "  name   text\n       of it\nnext");
  EXPECT_EQ(wrapped("", 8, 2), "");
  EXPECT_EQ(wrapped("\n\n", 8, 2), "\n\n");
  EXPECT_EQ(wrapped("größer größer", 13, 0), "größer größer");
}

}  // namespace
}  // namespace voca::engine
