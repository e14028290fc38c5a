#pragma once

#include <mutex>
#include <string>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/socket.h"

namespace voca::engine {

/// The store that rank 0 serves. Every method throws CommunicationError when the job has ended, with the
/// reason, or when rank 0 does not answer in time.
class TcpStore : public KeyValueStore {
 public:
  /// On a connection whose rank has joined. `answer_seconds`: how long rank 0 may take for an answer.
  TcpStore(Channel channel, int rank, double answer_seconds);
  /// Says goodbye; not while an exception unwinds: the others are to hear that this rank was lost.
  ~TcpStore() override;
  TcpStore(const TcpStore&) = delete;
  TcpStore& operator=(const TcpStore&) = delete;

  void set(const std::string& key, const std::string& value) override;
  /// Other threads get their turn a few times a second while this one waits.
  std::string get(const std::string& key, Deadline deadline) override;
  std::int64_t add(const std::string& key, std::int64_t amount) override;
  bool has(const std::string& key) override;

  /// Ends the job with this reason and returns the one it has ended with: another rank may have been first.
  std::string fail(const std::string& why);

 private:
  std::string ask(const std::string& frame, const std::string& what, double seconds);

  Channel channel_;
  int rank_;
  double answer_seconds_;
  int exceptions_;
  /// An answer did not come: the next to come would be taken for another request's.
  bool is_broken_ = false;
  std::mutex mutex_;
};

/// Throws what a kEnd says: UsageError for a contradiction between ranks, else CommunicationError.
[[noreturn]] void throw_end(MessageReader& end);

}  // namespace voca::engine
