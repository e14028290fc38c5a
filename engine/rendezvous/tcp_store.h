#pragma once

#include <mutex>
#include <string>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/socket.h"

namespace voca::engine {

/// Client of the store that rank 0 serves. Every method throws CommunicationError when the job has ended,
/// with the reason, or when rank 0 does not respond in time.
class TcpStore : public KeyValueStore {
 public:
  /// `channel` is a connection whose rank has joined; `answer_seconds` is the timeout for a response of rank
  /// 0.
  TcpStore(Channel channel, int rank, double answer_seconds);
  /// Sends a goodbye, unless an exception unwinds: in that case the other ranks must learn that this rank was
  /// lost.
  ~TcpStore() override;
  TcpStore(const TcpStore&) = delete;
  TcpStore& operator=(const TcpStore&) = delete;

  void set(const std::string& key, const std::string& value) override;
  /// Releases the lock a few times per second while waiting, so that other threads can use the store.
  std::string get(const std::string& key, Deadline deadline) override;
  std::int64_t add(const std::string& key, std::int64_t amount) override;
  bool has(const std::string& key) override;

  /// Ends the job with this reason. Returns the reason that it has actually ended with, since another rank
  /// may have been first.
  std::string fail(const std::string& why);

 private:
  std::string ask(const std::string& frame, const std::string& what, double seconds);

  Channel channel_;
  int rank_;
  double answer_seconds_;
  int exceptions_;
  /// Set when a response is missing: the next one would be attributed to another request.
  bool is_broken_ = false;
  std::mutex mutex_;
};

/// Throws the error that a kEnd message carries: UsageError for a contradiction between ranks, else
/// CommunicationError.
[[noreturn]] void throw_end(MessageReader& end);

}  // namespace voca::engine
