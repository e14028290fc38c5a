#include "engine/base/activity.h"

#include <mutex>
#include <utility>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

std::mutex& mutex() {
  static std::mutex one;
  return one;
}

std::function<void(const char*)>& listener() {
  static std::function<void(const char*)> one;
  return one;
}

}  // namespace

void report_activity(const char* what) {
  const std::lock_guard lock(mutex());
  if (listener()) listener()(what);
}

ActivityListener::ActivityListener(std::function<void(const char* what)> told) {
  const std::lock_guard lock(mutex());
  VOCA_CHECK(!listener());
  listener() = std::move(told);
}

ActivityListener::~ActivityListener() {
  const std::lock_guard lock(mutex());
  listener() = nullptr;
}

}  // namespace voca::engine
