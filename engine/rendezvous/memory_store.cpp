#include "engine/rendezvous/memory_store.h"

#include "engine/base/error.h"
#include "engine/base/text.h"
#include "engine/comm/communication_error.h"

namespace voca::engine {

void BoundedDictionary::set(const std::string& key, const std::string& value) {
  if (key.empty() || key.size() > kMaxKey) {
    throw InternalError("the ranks' store: a key of {} bytes, expected 1 to {}", key.size(), kMaxKey);
  }
  if (value.size() > kMaxValue) {
    throw InternalError("the ranks' store: {} has {} bytes, expected at most {}", key, value.size(),
                        kMaxValue);
  }
  const auto found = values_.find(key);
  const std::size_t before = found == values_.end() ? 0 : key.size() + found->second.size();
  if (bytes_ - before + key.size() + value.size() > kMaxBytes ||
      (before == 0 && values_.size() >= kMaxKeys)) {
    throw InternalError("the ranks' store: {} does not fit, it holds {} keys and {} bytes", key,
                        values_.size(), bytes_);
  }
  values_.insert_or_assign(found, key, value);
  bytes_ += key.size() + value.size() - before;
}

std::int64_t BoundedDictionary::add(const std::string& key, std::int64_t amount) {
  std::int64_t number = 0;
  if (const std::string* value = find(key)) {
    const auto held = number_in<std::int64_t>(*value);
    if (!held) throw InternalError("the ranks' store: {} holds no number to add to", key);
    number = *held;
  }
  if (__builtin_add_overflow(number, amount, &number))
    throw InternalError("the ranks' store: {} would not fit 64 bits", key);
  set(key, std::to_string(number));
  return number;
}

const std::string* BoundedDictionary::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void MemoryStore::set(const std::string& key, const std::string& value) {
  const std::lock_guard lock(mutex_);
  dictionary_.set(key, value);
  changed_.notify_all();
}

std::string MemoryStore::get(const std::string& key, Deadline deadline) {
  std::unique_lock lock(mutex_);
  const bool came = changed_.wait_until(lock, deadline, [&] { return dictionary_.find(key) != nullptr; });
  if (!came) throw CommunicationError("waiting for {}: no rank has set it in time", key);
  return *dictionary_.find(key);
}

std::int64_t MemoryStore::add(const std::string& key, std::int64_t amount) {
  const std::lock_guard lock(mutex_);
  const std::int64_t sum = dictionary_.add(key, amount);
  changed_.notify_all();
  return sum;
}

bool MemoryStore::has(const std::string& key) {
  const std::lock_guard lock(mutex_);
  return dictionary_.find(key) != nullptr;
}

}  // namespace voca::engine
