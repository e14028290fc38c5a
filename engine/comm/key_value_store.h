#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace voca::engine {

using Deadline = std::chrono::steady_clock::time_point;

/// Key-value store shared by all ranks of a job, for exchanges before the collectives are available. Values
/// are arbitrary bytes. Thread-safe.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  KeyValueStore() = default;
  KeyValueStore(const KeyValueStore&) = delete;
  KeyValueStore& operator=(const KeyValueStore&) = delete;

  /// Sets the key, overwriting an earlier value.
  virtual void set(const std::string& key, const std::string& value) = 0;
  /// Waits until the key has a value and returns it. Throws CommunicationError with the key at the deadline,
  /// or when the job has ended.
  virtual std::string get(const std::string& key, Deadline deadline) = 0;
  /// Adds to the key's decimal number (0 if unset) and returns the sum. Throws InternalError if the value is
  /// not a number or the sum overflows.
  virtual std::int64_t add(const std::string& key, std::int64_t amount) = 0;
  /// Whether the key has a value.
  virtual bool has(const std::string& key) = 0;
};

}  // namespace voca::engine
