#include "model/other_networks.h"

#include <algorithm>
#include <array>

namespace voca::model {
namespace {

/// In search order: a network may also have parameter names of a later one.
constexpr std::array<OtherNetwork, 4> kOtherNetworks = {{
    {"the three-branch detector", "cross_modal_branch."},
    {"the three-branch detector", "audio_only_branch."},
    {"the frame localisation network", "inconsistency_module."},
    {"the frame localisation network", "frame_classifier."},
}};

}  // namespace

const OtherNetwork* find_other_network(std::span<const std::string> names) {
  const auto* known =
      std::find_if(kOtherNetworks.begin(), kOtherNetworks.end(), [&](const OtherNetwork& network) {
        return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
          const std::size_t at = name.find(network.marker);
          return at == 0 || (at != std::string::npos && name[at - 1] == '.');
        });
      });
  return known == kOtherNetworks.end() ? nullptr : known;
}

}  // namespace voca::model
