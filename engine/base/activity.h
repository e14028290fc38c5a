#pragma once

#include <functional>

namespace voca::engine {

/// Reports progress in work that may take minutes (a large file, an upload), so that a watchdog does not take
/// slow for hung. Call it once per piece of work: a call that does not return is then still detected. `what`
/// is copied. Cheap compared with a piece of work. Thread-safe.
void report_activity(const char* what);

/// Receives every report_activity() of the process while it exists, on the reporting thread. At most one
/// exists at a time; without one, reports are discarded.
class ActivityListener {
 public:
  explicit ActivityListener(std::function<void(const char* what)> told);
  ~ActivityListener();
  ActivityListener(const ActivityListener&) = delete;
  ActivityListener& operator=(const ActivityListener&) = delete;
};

}  // namespace voca::engine
