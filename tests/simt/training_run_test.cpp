#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "data/batches/device_batches.h"
#include "data/batches/resident_batch_source.h"
#include "engine/core/element.h"
#include "kernels/cpu/half.h"
#include "tests/data/support/scratch.h"
#include "tests/engine/trainer/trainer_support.h"
#include "tests/simt/tested_device.h"
#include "tests/simt/training_support.h"

// Training runs of engine::Trainer as on a GPU, compared with the CPU backend: kernels run on the CPU, with
// separate device memory, late copies, and batches that are staged or gathered from resident frames.

namespace voca::simt::host {
namespace {

using engine::DType;
using engine::HostTensor;
using engine::Tensor;
using engine::test::Recorder;

/// Batch source of one split, with the default batch size.
std::unique_ptr<engine::BatchSource> source_of(const std::shared_ptr<const data::Dataset>& dataset,
                                               data::Split split, engine::Device& device, Frames frames,
                                               DType compute_type) {
  return make_source(dataset, split, device, {.frames = frames, .compute_type = compute_type});
}

/// One process of a training run.
struct Process {
  Process(const std::shared_ptr<const data::Dataset>& dataset, std::unique_ptr<engine::Device> on,
          Frames frames, const engine::TrainerConfig& config, std::set<std::uint32_t> spoiled = {})
      : device(std::move(on)),
        model(make_model({.spoiled = std::move(spoiled)})),
        train(source_of(dataset, data::Split::kTrain, *device, frames, config.compute_type)),
        val(source_of(dataset, data::Split::kVal, *device, frames, config.compute_type)),
        trainer(config, *model, task, *train, val.get(), *device, recorder) {
    trainer.parameters().initialise(config.seed);
  }
  [[nodiscard]] std::string bits() {
    const engine::ParameterStore& parameters = trainer.parameters();
    std::string bytes;
    for (const Tensor& tensor :
         {parameters.weights(), parameters.masters(), parameters.exp_avgs(), parameters.exp_avg_sqs()}) {
      bytes += engine::test::bytes_of(HostTensor(*device, tensor).tensor());
    }
    return bytes;
  }

  Recorder recorder;
  std::unique_ptr<engine::Device> device;
  std::unique_ptr<engine::Model> model;
  model::DetectionTask task{1};
  std::unique_ptr<engine::BatchSource> train;
  std::unique_ptr<engine::BatchSource> val;
  engine::Trainer trainer;
};

std::unique_ptr<engine::Device> gpu() {
  return make_tested_device();
}

double difference(const HostTensor& got, const HostTensor& want) {
  double error = 0;
  double size = 0;
  for (std::int64_t i = 0; i < want.tensor().elements(); ++i) {
    const double g = engine::read_back(got.tensor(), i);
    const double w = engine::read_back(want.tensor(), i);
    error += (g - w) * (g - w);
    size += w * w;
  }
  return std::isfinite(error) ? std::sqrt(error / size) : HUGE_VAL;
}

TEST(TrainingRun, InFloatFollowsTheCpu) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  Process cpu(dataset, engine::make_cpu_device(1), Frames::kStaged, two_epochs(DType::kF32));
  (void)cpu.trainer.run();
  for (const Frames frames : {Frames::kStaged, Frames::kResident}) {
    Process cuda(dataset, gpu(), frames, two_epochs(DType::kF32));
    (void)cuda.trainer.run();
    ASSERT_EQ(cuda.recorder.calls, cpu.recorder.calls);
    ASSERT_EQ(cuda.recorder.epochs.size(), cpu.recorder.epochs.size());
    for (std::size_t i = 0; i < cpu.recorder.epochs.size(); ++i) {
      const engine::EpochRecord& got = cuda.recorder.epochs[i];
      const engine::EpochRecord& want = cpu.recorder.epochs[i];
      EXPECT_NEAR(got.loss.total(), want.loss.total(), 1e-3 * want.loss.total());
      EXPECT_NEAR(got.grad_norm, want.grad_norm, 1e-2 * want.grad_norm);
      EXPECT_NEAR(*got.summary->measure("loss"), *want.summary->measure("loss"),
                  1e-3 * *want.summary->measure("loss"));
    }
    const HostTensor got(*cuda.device, cuda.trainer.parameters().masters());
    const HostTensor want(*cpu.device, cpu.trainer.parameters().masters());
    EXPECT_LT(difference(got, want), 1e-3);
  }
}

TEST(TrainingRun, ResumeContinuesBitForBitOnADeviceToo) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const data::testing::Scratch scratch;
    const auto dataset = make_dataset(scratch, DType::kF16);
    engine::TrainerConfig config = two_epochs(type);
    Process whole(dataset, gpu(), Frames::kResident, config);
    (void)whole.trainer.run();

    config.checkpoint_folder = scratch / "states";
    {
      Process first(dataset, gpu(), Frames::kPinned, config);
      first.trainer.set_stop_reason([] { return "the test"; });
      EXPECT_THROW((void)first.trainer.run(), engine::Interrupted);
    }
    Process second(dataset, gpu(), Frames::kStaged, config);
    second.trainer.parameters().initialise(77);  // resume must overwrite all of it
    ASSERT_TRUE(second.trainer.resume_latest());
    (void)second.trainer.run();
    EXPECT_TRUE(second.bits() == whole.bits()) << engine::name_of(type);
  }
}

TEST(TrainingRun, SixteenBitWeightsAreTheMastersRoundedFromTheStart) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF16);
  for (const DType type : {DType::kBF16, DType::kF16}) {
    Process run(dataset, gpu(), Frames::kResident, two_epochs(type));
    for (const bool trained : {false, true}) {
      if (trained) (void)run.trainer.run();
      const HostTensor weights(*run.device, run.trainer.parameters().weights());
      const HostTensor masters(*run.device, run.trainer.parameters().masters());
      const auto* const bits = static_cast<const std::uint16_t*>(weights.tensor().data);
      for (std::int64_t i = 0; i < weights.tensor().elements(); ++i) {
        const float master = masters.tensor().as<float>()[i];
        ASSERT_EQ(bits[i], type == DType::kBF16 ? kernels::cpu::float_to_bfloat16(master)
                                                : kernels::cpu::float_to_half(master));
      }
    }
  }
}

/// Two batches per step: the third and fourth batch belong to the second step.
TEST(TrainingRun, ABadStepMovesNothingAndIsToldAsItsOwnOneStepLater) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  engine::TrainerConfig config = two_epochs(DType::kBF16);
  config.max_steps = 2;
  Process all(dataset, gpu(), Frames::kStaged, config, {2});
  const engine::TrainingResult result = all.trainer.run();
  EXPECT_EQ(result.step, 2);
  EXPECT_EQ(result.bad_steps, 1);
  EXPECT_EQ(result.overflow_steps, 0);
  ASSERT_EQ(all.recorder.messages.size(), 1U);
  EXPECT_NE(all.recorder.messages[0].find("step 2: a gradient is not finite"), std::string::npos);
  config.max_steps = 1;
  Process one(dataset, gpu(), Frames::kStaged, config);
  (void)one.trainer.run();
  EXPECT_TRUE(all.bits() == one.bits());
}

TEST(TrainingRun, BadStepsInARowEndItNamingTheParameterThoughOneMoreWasQueued) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  engine::TrainerConfig config = two_epochs(DType::kBF16);
  config.max_bad_steps = 2;
  Process run(dataset, gpu(), Frames::kStaged, config, {0, 2});
  const std::string name = run.model->parameters()[Spoiled::kSpoiled].name;
  try {
    (void)run.trainer.run();
    FAIL() << "nothing was thrown";
  } catch (const engine::DataError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("2 steps in a row, the last of them step 2"), std::string::npos) << message;
    EXPECT_NE(message.find("first parameter without a finite gradient: " + name), std::string::npos)
        << message;
  }
}

TEST(TrainingRun, Fp16FollowsFloatAndAnOverflowHalvesTheLossScaleAlone) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  Process exact(dataset, gpu(), Frames::kStaged, two_epochs(DType::kF32));
  (void)exact.trainer.run();
  for (const bool overflow : {false, true}) {
    Process run(dataset, gpu(), Frames::kStaged, two_epochs(DType::kF16),
                overflow ? std::set<std::uint32_t>{2} : std::set<std::uint32_t>{});
    std::vector<engine::StepRecord> steps;
    run.recorder.progress = [&](const engine::StepRecord& record) { steps.push_back(record); };
    const engine::TrainingResult result = run.trainer.run();
    EXPECT_EQ(result.bad_steps, 0);
    EXPECT_GE(result.overflow_steps, overflow ? 1 : 0);
    EXPECT_EQ(steps.back().loss_scale, std::ldexp(65536.0, -static_cast<int>(result.overflow_steps)));
    ASSERT_GE(steps.size(), 2U);
    EXPECT_EQ(steps[1].skipped, overflow);
    // Same first batches: compares the loss and the unscaled norm of fp16 with float.
    const nlohmann::ordered_json want = nlohmann::ordered_json::parse(exact.recorder.lines[0].text);
    EXPECT_NEAR(steps[0].loss.total(), want["loss"].get<double>(), 1e-2 * want["loss"].get<double>());
    if (!steps[0].skipped) {
      EXPECT_NEAR(steps[0].grad_norm, want["grad_norm"].get<double>(),
                  2e-2 * want["grad_norm"].get<double>());
    }
  }
}

/// All bytes of two epochs of a source, with the second epoch started at its second batch; inputs as float32.
std::string all_batches(engine::BatchSource& source, engine::Device& device) {
  std::string bytes;
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    source.start_epoch(epoch, epoch);
    while (const engine::Batch* batch = source.next()) {
      for (const std::int64_t sample : batch->samples) bytes += std::to_string(sample) + ' ';
      bytes += std::to_string(batch->first_position) + ' ' + std::to_string(batch->size);
      bytes += engine::test::bytes_of(HostTensor(device, batch->targets.at(model::kLabel)).tensor());
      for (const Tensor& input : batch->inputs)
        bytes += engine::test::bytes_of(HostTensor(device, input).tensor());
    }
  }
  return bytes;
}

TEST(DeviceBatches, AreThoseOfTheHostToTheBit) {
  for (const DType stored : {DType::kF16, DType::kF32}) {
    const data::testing::Scratch scratch;
    const auto dataset = make_dataset(scratch, stored);
    const auto cpu = engine::make_cpu_device(1);
    for (const data::Split split : {data::Split::kTrain, data::Split::kVal}) {
      const auto host = source_of(dataset, split, *cpu, Frames::kStaged, DType::kF32);
      const std::string want = all_batches(*host, *cpu);
      for (const Frames frames : {Frames::kStaged, Frames::kPinned, Frames::kResident}) {
        const auto device = gpu();
        const auto source = source_of(dataset, split, *device, frames, DType::kF32);
        EXPECT_TRUE(all_batches(*source, *device) == want);
      }
    }
  }
}

TEST(DeviceBatches, InSixteenBitsAreTheHostsRoundedOnce) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  const auto gpu_device = gpu();
  engine::Device& device = *gpu_device;
  for (const DType type : {DType::kBF16, DType::kF16}) {
    const auto staged = source_of(dataset, data::Split::kTrain, device, Frames::kStaged, type);
    const auto resident = source_of(dataset, data::Split::kTrain, device, Frames::kResident, type);
    EXPECT_TRUE(all_batches(*staged, device) == all_batches(*resident, device));
    const auto exact = source_of(dataset, data::Split::kTrain, device, Frames::kStaged, DType::kF32);
    exact->start_epoch(0, 0);
    staged->start_epoch(0, 0);
    const Tensor want = exact->next()->inputs[0];
    const Tensor got = staged->next()->inputs[0];
    const HostTensor on_host(device, want);
    const HostTensor rounded(device, got);
    for (std::int64_t i = 0; i < want.elements(); ++i) {
      const float value = on_host.tensor().as<float>()[i];
      ASSERT_EQ(
          static_cast<const std::uint16_t*>(rounded.tensor().data)[i],
          type == DType::kBF16 ? kernels::cpu::float_to_bfloat16(value) : kernels::cpu::float_to_half(value));
    }
  }
}

TEST(DeviceBatches, TakeTheMemoryThatIsPlannedForThem) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF16);
  const std::vector<std::int64_t> samples = dataset->samples_of(data::Split::kTrain);
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const auto gpu_device = gpu();
    engine::Device& device = *gpu_device;
    const data::BatchSourceOptions options =
        batch_options(true, {.frames = Frames::kStaged, .compute_type = type});
    {
      const auto staged = source_of(dataset, data::Split::kTrain, device, Frames::kStaged, type);
      EXPECT_EQ(device.allocated_bytes(), data::staged_batch_bytes(options, kVisualDim, kAudioDim));
    }
    EXPECT_EQ(device.allocated_bytes(), 0U);
    const auto resident = source_of(dataset, data::Split::kTrain, device, Frames::kResident, type);
    EXPECT_EQ(device.allocated_bytes(),
              static_cast<std::size_t>(data::frame_bytes(*dataset, samples)) +
                  data::ResidentBatchSource::batch_bytes(options, dataset->dim(data::Stream::kVisual),
                                                         dataset->dim(data::Stream::kAudio)));
  }
}

#if defined(VOCA_TEST_CUDA)

/// Few frames and a small network, but enough steps that a wrong gradient would show.
TEST(TrainingRun, TwoHundredStepsInBf16FollowFloat) {
  const data::testing::Scratch scratch;
  const auto dataset = make_dataset(scratch, DType::kF32);
  const auto curve = [&](DType type) {
    engine::TrainerConfig config = two_epochs(type);
    config.grad_accum = 1;
    config.epochs = 67;  // three batches each
    config.warmup_epochs = 3;
    config.max_steps = 200;
    Process run(dataset, gpu(), Frames::kResident, config);
    (void)run.trainer.run();
    return run.recorder.epochs;
  };
  const auto exact = curve(DType::kF32);
  const auto rounded = curve(DType::kBF16);
  ASSERT_EQ(rounded.size(), exact.size());
  // The minimum of InfoNCE is −ln 2 (kernels/infonce.h) and the total crosses zero, so the 2 % tolerance is
  // relative to the distance from the minimum.
  const double lowest = -0.5 * std::log(2.0);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double above = exact[i].loss.total() - lowest;
    ASSERT_GT(above, 0);
    EXPECT_NEAR(rounded[i].loss.total(), exact[i].loss.total(), 2e-2 * above) << "epoch " << i;
  }
}

#else

TEST(DeviceMemory, OutOfItIsTheTableAndTheLargestBatch) {
  HostDevice device;
  const auto model = make_model();
  const engine::Backend backend{.device = device.kind(), .gemm_library = device.gemm_library()};
  const engine::MemoryRequest wanted{.compute_type = DType::kBF16, .train_batch = 64};
  engine::MemoryRequest half = wanted;
  half.train_batch = 32;
  device.set_free_bytes(engine::plan_memory(*model, half, backend).bytes());
  try {
    const engine::Workspace workspace(*model, wanted, device);
    FAIL() << "nothing was thrown";
  } catch (const engine::Error& error) {
    EXPECT_EQ(error.code(), engine::ExitCode::kIo);
    const std::string message = error.what();
    EXPECT_NE(message.find("cuda: out of memory"), std::string::npos) << message;
    EXPECT_NE(message.find("the largest --batch_size that fits is 32"), std::string::npos) << message;
    EXPECT_NE(message.find("GEMM workspace"), std::string::npos) << message;
  }
  const engine::Workspace workspace(*model, half, device);
  const std::size_t narrow = engine::plan_memory(*model, half, backend).bytes();
  EXPECT_EQ(device.allocated_bytes(), narrow);
  half.wide_sums = true;
  HostDevice another;
  const engine::Workspace with_sums(*model, half, another);
  EXPECT_EQ(another.allocated_bytes(),
            narrow + static_cast<std::size_t>(workspace.parameters().gradients().elements()) * sizeof(float));
  EXPECT_EQ(another.allocated_bytes(), engine::plan_memory(*model, half, backend).bytes());
}

#endif

}  // namespace
}  // namespace voca::simt::host
