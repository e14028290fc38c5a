#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/trainer/trainer.h"

namespace voca::engine {

void Trainer::start_together() {
  if (ranks_.alone()) return;
  ranks_.meet("the initial state");
  ranks_.doing("sharing the initial state");
  broadcast_parameters(ranks_, workspace_.parameters(), workspace_.context().stream);
  const RunIdentity none;
  const std::string header =
      text_of_first_rank(ranks_, "state of the run", json_text(state_header(position_to_save(), none)));
  if (!ranks_.first()) {
    continue_from(position_of(parse_json(header, "rank 0: state of the run"), model_.signature().losses));
  }
}

RunPosition Trainer::position_to_save() const {
  RunPosition state = progress_;
  state.optimizer = optimizer_.state();
  return state;
}

void Trainer::save() {
  settle();
  if (config_.checkpoint_folder.empty() || saved_) return;
  ranks_.doing("saving a state");
  check_ranks_agree(ranks_, workspace_.parameters());
  if (store_) {
    observer_.before_state();
    store_->save(state_header(position_to_save(), identity()),
                 state_tensors(HostParameters(workspace_.parameters())));
  }
  ranks_.meet("a saved state");
  if (!ranks_.alone()) ranks_.main->barrier("state saved");
  saved_ = true;
}

void Trainer::continue_from(const RunPosition& state) {
  progress_ = state;
  schedule_ = Schedule(schedule_options(progress_.extension));
  optimizer_.set_state(progress_.optimizer);
}

void Trainer::restore(const ResumeState& state) {
  RunPosition restored = restore_state(state, identity(), model_.signature().losses, workspace_.parameters());
  if (restored.best && !restored.best->measure(config_.select_by)) {
    throw DataError("{}: is not a training state of this program: its best epoch lacks {}",
                    state.path.string(), config_.select_by);
  }
  const bool extended = extend(restored, config_, state.path.string());
  const std::int64_t epochs = std::max(total_epochs(), restored.extension.to);
  if (restored.epoch > epochs || restored.batch > batches_per_epoch_) {
    throw DataError(
        "{}: is not a training state of this run: it has done {} epochs and {} batches, of {} with {} each",
        state.path.string(), restored.epoch, restored.batch, epochs, batches_per_epoch_);
  }
  continue_from(restored);
  const std::string place = finished()
                                ? "the run is finished"
                                : fmt::format("then batch {} of {}", progress_.batch, batches_per_epoch_);
  observer_.on_message(fmt::format("resumed {}: {} of {} epochs done, {}; step {}", state.path.string(),
                                   progress_.epoch, total_epochs(), place, progress_.step));
  if (state.earlier_form) {
    observer_.on_message(state.path.string() +
                         ": written by an earlier version; the next state is saved in the present form");
  }
  if (!extended) return;
  observer_.on_message(fmt::format(
      "extended: epochs {} to {} follow; the learning rate starts again at {:.3g} and falls to {:.3g} by a "
      "cosine",
      progress_.epoch + 1, total_epochs(), schedule_.at(progress_.epoch, 0),
      schedule_.at(total_epochs(), 0)));
}

bool Trainer::resume_latest() {
  if (!store_) return false;
  const FoundResumeState found = store_->load();
  for (const std::string& message : found.messages) observer_.on_message("warning: " + message);
  if (!found.state) return false;
  restore(*found.state);
  return true;
}

void Trainer::resume_from(const std::filesystem::path& path) {
  if (!is_folder(path)) return restore(read_resume_state(path));
  const FoundResumeState found = find_resume_state(path);
  for (const std::string& message : found.messages) observer_.on_message("warning: " + message);
  if (!found.state) throw DataError("--resume {}: the folder has no training state", path.string());
  restore(*found.state);
}

}  // namespace voca::engine
