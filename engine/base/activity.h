#pragma once

#include <functional>

namespace voca::engine {

/// Says that this process gets on with something that may take minutes (a large file, an upload), so that
/// whoever watches over it does not take slow for hung. To be called for every piece of the work that is
/// done: a call that does not return is then still found. `what` is copied. Cheap beside a piece; from any
/// thread.
void report_activity(const char* what);

/// While one exists it is told of all activity of the process, on the thread that reports it. One at a time;
/// where there is none nobody watches.
class ActivityListener {
 public:
  explicit ActivityListener(std::function<void(const char* what)> told);
  ~ActivityListener();
  ActivityListener(const ActivityListener&) = delete;
  ActivityListener& operator=(const ActivityListener&) = delete;
};

}  // namespace voca::engine
