#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/trainer/trainer_impl.h"

namespace voca::engine {

void Trainer::Impl::start_together() {
  if (ranks.alone()) return;
  ranks.meet("the initial state");
  ranks.doing("sharing the initial state");
  broadcast_parameters(ranks, workspace.parameters(), workspace.context().stream);
  const RunIdentity none;
  const std::string header =
      text_of_first_rank(ranks, "state of the run", json_text(state_header(position_to_save(), none)));
  if (!ranks.first()) {
    continue_from(position_of(parse_json(header, "rank 0: state of the run"), model.signature().losses));
  }
}

RunPosition Trainer::Impl::position_to_save() const {
  RunPosition state = progress;
  const kernels::OptimizerState optimizer_state = optimizer.state();
  state.optimizer_steps = optimizer_state.steps;
  state.loss_scale = static_cast<double>(optimizer_state.loss_scale);
  state.loss_scale_steps = optimizer_state.good_steps;
  return state;
}

void Trainer::Impl::save() {
  settle();
  if (config.checkpoint_folder.empty() || saved) return;
  ranks.doing("saving a state");
  check_ranks_agree(ranks, workspace.parameters());
  if (store) {
    observer.before_state();
    store->save(state_header(position_to_save(), identity()),
                state_tensors(HostParameters(workspace.parameters())));
  }
  ranks.meet("a saved state");
  if (!ranks.alone()) ranks.main->barrier("state saved");
  saved = true;
}

void Trainer::Impl::continue_from(const RunPosition& state) {
  progress = state;
  schedule = Schedule(schedule_options(progress.extension));
  optimizer.set_state({.steps = progress.optimizer_steps,
                       .loss_scale = static_cast<float>(progress.loss_scale),
                       .good_steps = static_cast<std::int32_t>(progress.loss_scale_steps)});
}

void Trainer::Impl::restore(const ResumeState& state) {
  RunPosition restored = restore_state(state, identity(), model.signature().losses, workspace.parameters());
  if (restored.best && !restored.best->measure(config.select_by)) {
    throw DataError("{}: is not a training state of this program: its best epoch lacks {}",
                    state.path.string(), config.select_by);
  }
  const bool extended = extend(restored, config, state.path.string());
  continue_from(restored);
  const std::string place =
      done() ? "the run is finished" : fmt::format("then batch {} of {}", progress.batch, batches_per_epoch);
  observer.on_message(fmt::format("resumed {}: {} of {} epochs done, {}; step {}", state.path.string(),
                                  progress.epoch, total_epochs(), place, progress.step));
  if (state.earlier_form)
    observer.on_message(state.path.string() +
                        ": written by an earlier version; the next state is saved in the present form");
  if (!extended) return;
  observer.on_message(fmt::format(
      "extended: epochs {} to {} follow; the learning rate starts again at {:.3g} and falls to {:.3g} by a "
      "cosine",
      progress.epoch + 1, total_epochs(), schedule.at(progress.epoch, 0), schedule.at(total_epochs(), 0)));
}

bool Trainer::resume_latest() {
  if (!impl_->store) return false;
  const FoundResumeState found = impl_->store->load();
  for (const std::string& message : found.messages) impl_->observer.on_message(message);
  if (!found.state) return false;
  impl_->restore(*found.state);
  return true;
}

void Trainer::resume_from(const std::filesystem::path& path) {
  if (!is_folder(path)) return impl_->restore(read_resume_state(path));
  const FoundResumeState found = find_resume_state(path);
  for (const std::string& message : found.messages) impl_->observer.on_message(message);
  if (!found.state) throw DataError("--resume {}: the folder has no training state", path.string());
  impl_->restore(*found.state);
}

}  // namespace voca::engine
