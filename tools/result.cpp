#include "tools/result.h"

#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/base/json.h"
#include "engine/base/text.h"

namespace voca::tools {

void print_text(std::string_view text) {
  std::cout << engine::printable_lines(text);
}

void print_json(const nlohmann::ordered_json& json) {
  // Apart from line ends, JSON has characters to escape only inside strings, and print_text() escapes these
  // as JSON does.
  print_text(engine::json_text(json, 2) + '\n');
}

void print_data(std::string_view text) {
  if (::isatty(STDOUT_FILENO) == 1) {
    print_text(text);
  } else {
    std::cout << text;
  }
}

}  // namespace voca::tools
