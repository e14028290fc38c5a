#include "engine/comm/communicator.h"

namespace voca::engine {

void Communicator::all_gather(const char* name, const Tensor& part, Tensor all, Stream stream) {
  const Tensor part_elements = part.view({part.elements()});
  const std::vector<std::int64_t> sizes(static_cast<std::size_t>(world_size()), part.elements());
  all_gather_rows(name, part_elements, sizes, all.view({all.elements()}), stream);
}

}  // namespace voca::engine
