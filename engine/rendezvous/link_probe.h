#pragma once

#include <string>
#include <vector>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/rendezvous.h"

namespace voca::engine {

struct LinkProbeOptions {
  double timeout_seconds = 60;  ///< for connecting and measuring all links; the token gets 5 s more
  /// A link whose fastest of several round trips takes longer is an error.
  double slow_milliseconds = 1000;
};

/// Link from a rank to the next one, measured by rank `from`.
struct ProbedLink {
  int from = 0;
  int to = 0;
  std::string address;            ///< address of `to`, as `from` reached it
  double round_trip_ms = 0;       ///< fastest of several empty messages
  double bulk_round_trip_ms = 0;  ///< round trip of 256 KiB each way
};

/// Tests the paths that collectives will take: every rank connects to the next one (the last to rank 0) and
/// measures the link with small and with large messages (a path may pass the first and drop the second). Then
/// a token with every rank's host, process and digest of the facts that must agree goes around, once in each
/// direction. Every rank must call it. Returns all links, ordered by `from`; none in a world of one.
///
/// Throws CommunicationError naming the link (ranks, hosts, address, milliseconds) that is blocked, slow or
/// carries another rank's messages, on every rank within about a second of the first detection; this ends the
/// job.
[[nodiscard]] std::vector<ProbedLink> probe_links(Rendezvous& rendezvous,
                                                  const LinkProbeOptions& options = {});

/// Overload with a separate store for the ranks' exchange; tests use it to insert a broken network.
[[nodiscard]] std::vector<ProbedLink> probe_links(Rendezvous& rendezvous, KeyValueStore& store,
                                                  const LinkProbeOptions& options);

}  // namespace voca::engine
