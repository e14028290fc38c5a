#pragma once

#include <condition_variable>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>

#include "engine/comm/key_value_store.h"

namespace voca::engine {

/// Bounded dictionary without waiting. Methods that change it throw InternalError beyond the bounds.
class BoundedDictionary {
 public:
  static constexpr std::size_t kMaxKey = 256;
  static constexpr std::size_t kMaxValue = std::size_t{1} << 20;
  static constexpr std::size_t kMaxKeys = 65536;
  /// Total size of all keys and values.
  static constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

  void set(const std::string& key, const std::string& value);
  std::int64_t add(const std::string& key, std::int64_t amount);
  /// Value of the key, or null; valid until the next change.
  [[nodiscard]] const std::string* find(const std::string& key) const;

 private:
  std::map<std::string, std::string> values_;
  std::size_t bytes_ = 0;
};

/// In-process store, for a world of one rank and for tests whose ranks are threads.
class MemoryStore : public KeyValueStore {
 public:
  void set(const std::string& key, const std::string& value) override;
  std::string get(const std::string& key, Deadline deadline) override;
  std::int64_t add(const std::string& key, std::int64_t amount) override;
  bool has(const std::string& key) override;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  BoundedDictionary dictionary_;
};

}  // namespace voca::engine
