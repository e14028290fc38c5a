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

/// A listening socket and the clients that have not proven themselves yet. They cost little and never stand
/// in anyone's way: at most `most_pending` of them, the oldest dropped for a new one; a few hundred bytes and
/// kHandshakeSeconds each.
class Acceptor {
 public:
  struct Admitted {
    UniqueFd socket;
    Identity identity;
    std::string received;  ///< behind the handshake
  };
  struct Refusals {
    std::int64_t count = 0;
    std::string last;  ///< address and reason of the last one
  };

  Acceptor(UniqueFd listener, std::string secret, ServerHandshake::Judge judge, std::size_t most_pending);

  /// Appends what poll() is to wait for.
  void add_to(std::vector<pollfd>& waited) const;
  /// Takes poll()'s answer to the very entries that add_to() appended, from `polled` on. Returns a client to
  /// let in, one at a time: the judge may think otherwise of the next one when this one is in.
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
  void refuse(const Pending& pending, const std::string& why);
  /// Whether it stays pending; otherwise it is refused or admitted.
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
