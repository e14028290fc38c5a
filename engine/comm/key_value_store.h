#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace voca::engine {

using Deadline = std::chrono::steady_clock::time_point;

/// A dictionary that all ranks of a job share, for what they tell each other before their collectives stand.
/// Values are any bytes. From any thread.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  KeyValueStore() = default;
  KeyValueStore(const KeyValueStore&) = delete;
  KeyValueStore& operator=(const KeyValueStore&) = delete;

  /// Overwrites what the key had.
  virtual void set(const std::string& key, const std::string& value) = 0;
  /// Waits until the key has a value. Throws CommunicationError naming the key at the deadline, or when the
  /// job has ended.
  virtual std::string get(const std::string& key, Deadline deadline) = 0;
  /// Adds to the decimal number that the key holds (0 where it has none) and returns the new one. Throws
  /// InternalError when it holds something else or the sum does not fit.
  virtual std::int64_t add(const std::string& key, std::int64_t amount) = 0;
  /// Whether the key has a value.
  virtual bool has(const std::string& key) = 0;
};

}  // namespace voca::engine
