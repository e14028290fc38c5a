#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace voca::engine {

using Deadline = std::chrono::steady_clock::time_point;

/// A job's shared dictionary: small binary values by key, the same on every rank. Any member throws
/// CommunicationError when the store is lost.
class KeyValueStore {
 public:
  KeyValueStore() = default;
  KeyValueStore(const KeyValueStore&) = delete;
  KeyValueStore& operator=(const KeyValueStore&) = delete;
  virtual ~KeyValueStore() = default;

  virtual void set(const std::string& key, const std::string& value) = 0;
  /// Waits until someone has set it. Throws CommunicationError naming the key at the deadline.
  [[nodiscard]] virtual std::string get(const std::string& key, Deadline deadline) = 0;
  /// Adds to a counter that starts at 0; returns the new value.
  virtual std::int64_t add(const std::string& key, std::int64_t amount) = 0;
  [[nodiscard]] virtual bool has(const std::string& key) = 0;
};

}  // namespace voca::engine
