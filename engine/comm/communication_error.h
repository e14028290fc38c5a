#pragma once

#include "engine/base/error.h"

namespace voca::engine {

/// A rank is unreachable, or did not respond before the timeout. The message names the operation, the waiting
/// rank and the time waited.
using CommunicationError = ErrorOf<ExitCode::kIo, struct OfCommunication>;

}  // namespace voca::engine
