#include "engine/trainer/records.h"

#include <cmath>

namespace voca::engine {
namespace {

using nlohmann::ordered_json;

ordered_json number(std::optional<double> value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return *value;
}

void put_losses(ordered_json& line, const LossValues& loss) {
  line["loss"] = number(loss.total);
  line["cls"] = number(loss.classification);
  line["con"] = number(loss.contrastive);
}

void put_metrics(ordered_json& line, const BinaryMetrics& metrics) {
  line["val_loss"] = number(metrics.loss);
  line["val_acc"] = number(metrics.at_half.acc);
  line["val_auc"] = number(metrics.auc);
  line["val_balanced_acc"] = number(metrics.at_half.balanced_acc);
  line["val_ap_real"] = number(metrics.ap_real);
  line["val_ap_fake"] = number(metrics.ap_fake);
  line["val_eer"] = metrics.eer ? number(metrics.eer->nearest) : nullptr;
}

void put_metrics(ordered_json& line, const ClassMetrics& metrics) {
  line["val_loss"] = number(metrics.loss);
  line["val_acc"] = number(metrics.acc);
  line["val_auc"] = number(metrics.auc);
  line["val_balanced_acc"] = number(metrics.balanced_acc);
}

}  // namespace

ordered_json to_json(const StepRecord& record) {
  ordered_json line;
  line["kind"] = "step";
  line["epoch"] = record.epoch;
  line["step"] = record.step;
  put_losses(line, record.loss);
  line["lr"] = record.lr;
  line["grad_norm"] = number(record.grad_norm);
  line["skipped"] = record.skipped;
  line["loss_scale"] = record.loss_scale;
  line["bad_steps"] = record.bad_steps;
  line["overflow_steps"] = record.overflow_steps;
  line["bad_samples"] = record.bad_samples;
  line["samples_per_s"] = number(record.samples_per_s);
  return line;
}

ordered_json to_json(const EpochRecord& record) {
  ordered_json line;
  line["kind"] = "epoch";
  line["epoch"] = record.epoch;
  line["step"] = record.step;
  put_losses(line, record.loss);
  line["lr"] = record.lr;
  line["grad_norm"] = number(record.grad_norm);
  line["samples"] = record.samples;
  line["bad_steps"] = record.bad_steps;
  line["overflow_steps"] = record.overflow_steps;
  line["bad_samples"] = record.bad_samples;
  line["samples_per_s"] = number(record.samples_per_s);
  if (record.val) {
    std::visit([&](const auto& metrics) { put_metrics(line, metrics); }, *record.val);
    line["val_threshold"] = record.summary ? number(record.summary->threshold) : nullptr;
    line["best"] = record.best;
  }
  line["seconds"] = number(record.seconds);
  return line;
}

}  // namespace voca::engine
