#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/comm/key_value_store.h"

namespace voca::engine::testing {

/// A store of files in one folder, for ranks that are processes of one machine.
class FileStore final : public KeyValueStore {
 public:
  explicit FileStore(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void set(const std::string& key, const std::string& value) override;
  [[nodiscard]] std::string get(const std::string& key, Deadline deadline) override;
  std::int64_t add(const std::string& key, std::int64_t amount) override;
  [[nodiscard]] bool has(const std::string& key) override;

 private:
  [[nodiscard]] std::filesystem::path path(const std::string& key) const;
  std::filesystem::path folder_;
};

/// How a forked rank ended.
struct Ending {
  int signal = 0;    ///< that killed it, or 0
  int code = 0;      ///< its exit code
  std::string text;  ///< what it returned, or the message of what it threw
  double seconds = 0;
};

/// Runs `body(rank, store)` in `world_size` forked processes that share a store and a scratch folder. A
/// body's text comes back with code 0; what it throws with code 1. Kills what is left after a minute.
[[nodiscard]] std::vector<Ending> run_ranks(int world_size,
                                            const std::function<std::string(int, KeyValueStore&)>& body);

}  // namespace voca::engine::testing
