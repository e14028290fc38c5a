#pragma once

#include <string>
#include <vector>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/rendezvous.h"

namespace voca::engine {

struct LinkProbeOptions {
  double timeout_seconds = 60;  ///< for all links to stand and be measured; the token has 5 s more
  /// A link on which the fastest of several round trips takes longer is an error.
  double slow_milliseconds = 1000;
};

/// The link from a rank to the next one, measured by the rank it leaves from.
struct ProbedLink {
  int from = 0;
  int to = 0;
  std::string address;            ///< of `to`, as `from` reached it
  double round_trip_ms = 0;       ///< fastest of several empty messages
  double bulk_round_trip_ms = 0;  ///< of 256 KiB there and back
};

/// Tries the paths that collectives will take: every rank connects to the next one (the last to rank 0),
/// measures the link with small and with large messages (a path may pass the first and swallow the second),
/// and a token with every rank's host, process and digest of what must agree goes around, once each way.
/// Every rank calls it; returns all links, by `from`; none in a world of one.
///
/// Throws CommunicationError naming the link (ranks, hosts, address, milliseconds) that is blocked, slow or
/// carries another rank's words, on every rank within a second or so of the first that finds out: it ends the
/// job.
[[nodiscard]] std::vector<ProbedLink> probe_links(Rendezvous& rendezvous,
                                                  const LinkProbeOptions& options = {});

/// The same with another store for what ranks tell each other: tests put a broken network in between.
[[nodiscard]] std::vector<ProbedLink> probe_links(Rendezvous& rendezvous, KeyValueStore& store,
                                                  const LinkProbeOptions& options);

}  // namespace voca::engine
