#include "tools/commands.h"

int main(int argc, char** argv) {
  const char* const* words = argv;
  return voca::tools::run_program({words + 1, words + (argc > 0 ? argc : 1)});
}
