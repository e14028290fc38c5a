#include "tools/result.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/json.h"
#include "engine/text.h"

namespace voca::tools {

void print_text(std::string_view text) {
  std::cout << engine::printable_lines(text);
}

void print_json(const nlohmann::ordered_json& json) {
  std::cout << engine::json_text(json, 2) << '\n';
}

}  // namespace voca::tools
