#include "engine/telemetry/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

// A reader of its own: what TensorBoard does, from the formats' descriptions.

/// CRC-32C bit by bit.
std::uint32_t crc_of(const std::string& bytes) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0);
  }
  return ~crc;
}

std::uint32_t unmasked(std::uint32_t masked) {
  const std::uint32_t rotated = masked - 0xA282EAD8U;
  return (rotated >> 17) | (rotated << 15);
}

template <typename T>
T take(std::string& bytes) {
  T value{};
  if (bytes.size() < sizeof(T)) throw std::runtime_error("short");
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.erase(0, sizeof(T));
  return value;
}

std::uint64_t take_varint(std::string& bytes) {
  std::uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    const auto byte = take<unsigned char>(bytes);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return value;
  }
}

/// Fields of a protobuf message in their order; numbers as the bytes they are.
std::vector<std::pair<std::uint64_t, std::string>> fields_of(std::string message) {
  std::vector<std::pair<std::uint64_t, std::string>> fields;
  while (!message.empty()) {
    const std::uint64_t key = take_varint(message);
    std::size_t size = 0;
    switch (key & 7) {
      case 0: {
        const std::uint64_t value = take_varint(message);
        fields.emplace_back(key >> 3, std::string(reinterpret_cast<const char*>(&value), 8));
        continue;
      }
      case 1:
        size = 8;
        break;
      case 2:
        size = take_varint(message);
        break;
      case 5:
        size = 4;
        break;
      default:
        throw std::runtime_error("wire type");
    }
    if (message.size() < size) throw std::runtime_error("short field");
    fields.emplace_back(key >> 3, message.substr(0, size));
    message.erase(0, size);
  }
  return fields;
}

template <typename T>
T number(std::string bytes) {
  EXPECT_EQ(bytes.size(), sizeof(T));
  return take<T>(bytes);
}

struct Event {
  double wall_time = 0;
  std::optional<std::int64_t> step;
  std::string file_version;
  std::map<std::string, float> scalars;
  std::uint64_t session_status = 0;
};

Event decode(const std::string& payload) {
  Event event;
  for (const auto& [field, bytes] : fields_of(payload)) {
    switch (field) {
      case 1:
        event.wall_time = number<double>(bytes);
        break;
      case 2:
        event.step = number<std::int64_t>(bytes);
        break;
      case 3:
        event.file_version = bytes;
        break;
      case 5:
        for (const auto& [value_field, value] : fields_of(bytes)) {
          EXPECT_EQ(value_field, 1U);
          const auto parts = fields_of(value);
          EXPECT_EQ(parts.size(), 2U);
          EXPECT_EQ(parts.at(0).first, 1U);
          EXPECT_EQ(parts.at(1).first, 2U);
          event.scalars[parts.at(0).second] = number<float>(parts.at(1).second);
        }
        break;
      case 7:
        event.session_status = number<std::uint64_t>(fields_of(bytes).at(0).second);
        break;
      default:
        ADD_FAILURE() << "field " << field;
    }
  }
  return event;
}

std::vector<Event> read_events(const std::filesystem::path& path) {
  std::ostringstream stream;
  stream << std::ifstream(path, std::ios::binary).rdbuf();
  std::string bytes = stream.str();
  std::vector<Event> events;
  while (!bytes.empty()) {
    const std::string header = bytes.substr(0, 8);
    const auto length = take<std::uint64_t>(bytes);
    EXPECT_EQ(unmasked(take<std::uint32_t>(bytes)), crc_of(header));
    const std::string payload = bytes.substr(0, length);
    EXPECT_EQ(payload.size(), length);
    bytes.erase(0, length);
    EXPECT_EQ(unmasked(take<std::uint32_t>(bytes)), crc_of(payload));
    events.push_back(decode(payload));
  }
  return events;
}

class TensorBoardTest : public ::testing::Test {
 public:
  TensorBoardTest(const TensorBoardTest&) = delete;
  TensorBoardTest& operator=(const TensorBoardTest&) = delete;

 protected:
  TensorBoardTest() {
    std::string name = (std::filesystem::temp_directory_path() / "voca-tb-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  ~TensorBoardTest() override { std::filesystem::remove_all(root_); }

  std::filesystem::path root_;
  double now_ = 1700000000.25;
  TensorBoardWriter::Clock clock_ = [this] { return now_; };
};

TEST_F(TensorBoardTest, TheFileBeginsWithItsVersion) {
  const TensorBoardWriter writer(root_, clock_);
  EXPECT_THAT(writer.path().filename().string(), ::testing::StartsWith("events.out.tfevents.1700000000."));
  const std::vector<Event> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[0].wall_time, 1700000000.25);
}

TEST_F(TensorBoardTest, ScalarsComeBackWithStepAndTime) {
  TensorBoardWriter writer(root_, clock_);
  now_ += 1;
  const std::vector<TensorBoardWriter::Scalar> first = {{"step/loss", 0.5}, {"step/lr", 3e-4}};
  writer.write(1, first);
  now_ += 1;
  const std::vector<TensorBoardWriter::Scalar> second = {{std::string(300, 'x'), -1e30}, {"größe", NAN}};
  writer.write(std::int64_t{5} << 40, second);
  writer.write(9, {});
  const std::vector<Event> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[1].wall_time, 1700000001.25);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"step/loss", 0.5F}, {"step/lr", 3e-4F}}));
  EXPECT_EQ(events[2].step, std::int64_t{5} << 40);
  EXPECT_EQ(events[2].wall_time, 1700000002.25);
  EXPECT_EQ(events[2].scalars.at(std::string(300, 'x')), -1e30F);
  EXPECT_TRUE(std::isnan(events[2].scalars.at("größe")));
}

TEST_F(TensorBoardTest, EveryNumberOfALineBecomesAScalar) {
  TensorBoardWriter writer(root_, clock_);
  writer.write(nlohmann::ordered_json::parse(
      R"({"kind":"epoch","epoch":3,"step":40,"loss":0.5,"samples":128,"best":true,"val_auc":null,
          "name":"x","bins":[1,2],"val":{"acc":0.75,"confusion":{"real_as_fake":2}}})"));
  const std::vector<Event> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].step, 40);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"epoch/loss", 0.5F},
                                                             {"epoch/samples", 128.0F},
                                                             {"epoch/val/acc", 0.75F},
                                                             {"epoch/val/confusion/real_as_fake", 2.0F}}));
}

TEST_F(TensorBoardTest, AResumedRunPurgesWhatItWillTellAgain) {
  TensorBoardWriter writer(root_, clock_);
  writer.forget_from(41);
  const std::vector<Event> events = read_events(writer.path());
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[1].step, 41);
  EXPECT_EQ(events[1].session_status, 1U);  // SessionLog.START
}

TEST_F(TensorBoardTest, TwoWritersNeverShareAFile) {
  const TensorBoardWriter first(root_, clock_);
  const TensorBoardWriter second(root_, clock_);
  EXPECT_NE(first.path(), second.path());
}

TEST_F(TensorBoardTest, AFolderThatIsNotThereIsNamed) {
  try {
    const TensorBoardWriter writer(root_ / "missing", clock_);
    FAIL();
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr((root_ / "missing").string()));
  }
}

}  // namespace
}  // namespace voca::engine
