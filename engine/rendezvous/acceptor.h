#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/unique_fd.h"
#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/handshake.h"

namespace voca::engine {

/// A listening socket and the clients that have not authenticated yet. Pending clients cannot exhaust the
/// server: there are at most `most_pending` of them (a new client evicts the oldest), and each holds a few
/// hundred bytes for at most kHandshakeSeconds.
class Acceptor {
 public:
  struct Admitted {
    UniqueFd socket;
    Identity identity;
    std::string received;  ///< bytes received after the handshake
  };
  struct Refusals {
    std::int64_t count = 0;
    std::string last;  ///< address of the last refused client, and the reason
  };

  Acceptor(UniqueFd listener, std::string secret, ServerHandshake::Judge judge, std::size_t most_pending);

  /// Appends the entries for poll().
  void add_to(std::vector<pollfd>& waited) const;
  /// Processes the results of poll() in the entries that add_to() appended, starting at `polled`. Returns at
  /// most one client to admit: admitting it can change the judge's verdict on the next one.
  [[nodiscard]] std::optional<Admitted> process(const pollfd* polled);
  [[nodiscard]] int listener() const { return listener_.get(); }
  [[nodiscard]] const Refusals& refusals() const { return refusals_; }

 private:
  struct Pending {
    UniqueFd socket;
    ServerHandshake handshake;
    Deadline deadline;
  };

  void accept_all();
  void drop_oldest();
  void refuse(const Pending& pending, const std::string& why);
  /// Returns whether the client stays pending; if not, it was refused or admitted.
  bool advance(Pending& pending, std::optional<Admitted>& admitted);

  UniqueFd listener_;
  std::string secret_;
  ServerHandshake::Judge judge_;
  std::size_t most_pending_;
  std::list<Pending> pending_;  // oldest first
  Deadline paused_until_{};
  Refusals refusals_;
};

}  // namespace voca::engine
