#include "engine/base/activity.h"

#include <mutex>
#include <utility>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

struct Listener {
  std::mutex mutex;
  std::function<void(const char*)> told;
};

Listener& listener() {
  static Listener one;
  return one;
}

}  // namespace

void report_activity(const char* what) {
  const std::lock_guard lock(listener().mutex);
  if (listener().told) listener().told(what);
}

ActivityListener::ActivityListener(std::function<void(const char* what)> told) {
  const std::lock_guard lock(listener().mutex);
  VOCA_CHECK(!listener().told);
  listener().told = std::move(told);
}

ActivityListener::~ActivityListener() {
  const std::lock_guard lock(listener().mutex);
  listener().told = nullptr;
}

}  // namespace voca::engine
