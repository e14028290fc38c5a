// Flips, truncations and mutations of checkpoint files: detected and named where the file carries digests,
// and never more than a refusal anywhere.

#include <cstring>
#include <random>

#include "engine/archive/zip_archive.h"
#include "engine/checkpoint/safetensors/safetensors.h"
#include "engine/checkpoint/torch/pt_file.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "tests/engine/checkpoint/checkpoint_support.h"
#include "tests/engine/support/file_faults.h"
#include "tests/engine/support/mutate.h"

namespace voca::engine {
namespace {

using test::FlippedByte;
using test::golden;
using test::message_of;
using test::mutate;
using test::pattern;
using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;
using testing::AllOf;
using testing::HasSubstr;
using testing::SizeIs;

const std::vector<const char*> kGoldens{
    "big_endian.pt", "data_descriptor.pt", "data_parallel.pt", "deflated.pt",
    "dtypes.pt",     "hostile.pt",         "objects.pt",       "parameters.pt",
    "protocol_4.pt", "training.pt",        "views.pt",         "zip64.pt",
    "expanded.pt",   "legacy.pt",          "protocol_5.pt",    "written_checkpoint.pt"};

/// Two small tensors and a text.
Value small_tree() {
  static const std::vector<float> elements = pattern(1, 6);
  Dict root;
  root.add("weight", borrow_tensor(elements, {2, 3}));
  root.add("bias", borrow_tensor(std::span(elements).first(2), {2}));
  root.add("name", "small");
  return root;
}

void write_small_safetensors(const std::filesystem::path& path) {
  static const std::vector<float> elements = pattern(1, 6);
  const std::vector<NamedTensor> tensors{{"weight", borrow_tensor(elements, {2, 3})},
                                         {"bias", borrow_tensor(std::span(elements).first(2), {2})}};
  write_safetensors(path, tensors, {{"config", R"({"hidden": 48})"}});
}

void copy_out(const Value& value) {
  if (const TensorValue* tensor = value.if_tensor()) {
    std::vector<double> elements(static_cast<std::size_t>(tensor->elements()));
    tensor->copy_to(elements);
  }
  for (const Value& item : value.items()) copy_out(item);
  if (const Dict* dict = value.if_dict())
    for (const auto& [key, item] : dict->items) copy_out(item);
}

/// Reads it by every way there is, to the last element.
void use_pt(const std::filesystem::path& path, Verify verify) {
  const PtFile file = read_pt(path, verify);
  (void)describe(file.value);
  (void)list_inert(file.value);
  copy_out(file.value);
}

void use_safetensors(const std::filesystem::path& path, Verify verify) {
  const SafetensorsFile file = read_safetensors(path, verify);
  for (const NamedTensor& named : file.tensors) copy_out(named.tensor);
}

using Reader = void (*)(const std::filesystem::path&, Verify);

/// Every bit of the file, or every `stride`-th.
void expect_flips_detected(const std::filesystem::path& path, Reader read, std::int64_t stride) {
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(path));
  for (std::int64_t bit = 0; bit < 8 * size; bit += stride) {
    const FlippedByte flipped(path, bit / 8, 1 << (bit % 8));
    const std::string message = message_of<DataError>([&] { read(path, Verify::kEverything); });
    ASSERT_THAT(message, HasSubstr(path.string()))
        << "bit " << bit % 8 << " of byte " << bit / 8 << " of " << size;
  }
  EXPECT_NO_THROW(read(path, Verify::kEverything));
}

void expect_truncations_detected(const std::filesystem::path& path, Reader read, std::size_t stride) {
  const std::size_t size = std::filesystem::file_size(path);
  for (std::size_t left = size; left-- > 0;) {
    if (left % stride != 0 && left + 100 < size) continue;
    std::filesystem::resize_file(path, left);
    ASSERT_THAT(message_of<DataError>([&] { read(path, Verify::kEverything); }), HasSubstr(path.string()))
        << left << " of " << size << " bytes";
  }
}

TEST(DamagedPt, EveryFlippedBitOfAFileOfOursIsDetected) {
  const TemporaryFolder folder;
  write_pt(folder / "a.pt", small_tree());
  expect_flips_detected(folder / "a.pt", use_pt, 1);
}

TEST(DamagedPt, FlipsAllOverACheckpointOfOursAreDetected) {
  const TemporaryFolder folder;
  std::filesystem::copy_file(golden("written_checkpoint.pt"), folder / "a.pt");
  expect_flips_detected(folder / "a.pt", use_pt, 13);
}

TEST(DamagedPt, NamesTheRecordThatIsDamaged) {
  const TemporaryFolder folder;
  for (const char* name : {"written_checkpoint.pt", "training.pt", "deflated.pt"}) {
    std::filesystem::copy_file(golden(name), folder / name);
    const auto entries = ZipReader(folder / name).entries();
    for (const ZipEntry& entry : entries) {
      if (entry.stored_size == 0 || entry.name.ends_with("voca_digests.json")) continue;
      const FlippedByte flipped(folder / name,
                                static_cast<std::int64_t>(entry.data_offset + entry.stored_size / 2), 1);
      EXPECT_THAT(message_of<DataError>([&] { (void)read_pt(folder / name); }),
                  AllOf(HasSubstr((folder / name).string()), HasSubstr(entry.name)));
    }
  }
}

TEST(DamagedPt, EveryTruncationIsDetected) {
  const TemporaryFolder folder;
  write_pt(folder / "a.pt", small_tree());
  expect_truncations_detected(folder / "a.pt", use_pt, 1);
  for (const char* name :
       {"written_checkpoint.pt", "training.pt", "deflated.pt", "zip64.pt", "data_descriptor.pt"}) {
    std::filesystem::copy_file(golden(name), folder / name);
    expect_truncations_detected(folder / name, use_pt, 17);
  }
}

TEST(DamagedPt, BytesBehindItsEndAreDetected) {
  const TemporaryFolder folder;
  for (const char* name : {"written_checkpoint.pt", "training.pt"}) {
    write_bytes(folder / name, read_bytes(golden(name)) + '\0');
    EXPECT_THAT(message_of<DataError>([&] { (void)read_pt(folder / name); }), HasSubstr("end record"));
  }
}

TEST(DamagedSafetensors, EveryFlippedBitOfAFileOfOursIsDetected) {
  const TemporaryFolder folder;
  write_small_safetensors(folder / "a.safetensors");
  expect_flips_detected(folder / "a.safetensors", use_safetensors, 1);
}

TEST(DamagedSafetensors, EveryTruncationIsDetected) {
  const TemporaryFolder folder;
  write_small_safetensors(folder / "a.safetensors");
  expect_truncations_detected(folder / "a.safetensors", use_safetensors, 1);
}

/// `count` mutations of one file: each is read or refused by name, with little memory and soon.
int count_refused(const std::filesystem::path& path, const std::string& bytes, Reader read, int count,
                  std::mt19937_64& random) {
  int refused = 0;
  for (int i = 0; i < count; ++i) {
    write_bytes(path, mutate(bytes, random));
    for (const Verify verify : {Verify::kStructure, Verify::kEverything}) {
      try {
        read(path, verify);
      } catch (const DataError& error) {
        ++refused;
        EXPECT_THAT(error.what(), HasSubstr(path.string()));
      }
    }
  }
  return refused;
}

TEST(DamagedPt, AnyMutationIsReadOrRefused) {
  const TemporaryFolder folder;
  std::mt19937_64 random(7);
  int refused = 0;
  for (const char* name : kGoldens)
    refused += count_refused(folder / name, read_bytes(golden(name)), use_pt, 300, random);
  EXPECT_GT(refused, 4000);
}

/// A header mutated behind the length that it has, so that it is reached.
TEST(DamagedSafetensors, AnyMutationOfTheHeaderIsReadOrRefused) {
  const TemporaryFolder folder;
  const std::string header =
      R"({"__metadata__":{"format":"pt","config":"{\"hidden\": 48}"},"weight":{"dtype":"F32","shape":[2,3],)"
      R"("data_offsets":[0,24]},"bias":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}  )";
  std::mt19937_64 random(9);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::string text = mutate(header, random);
    const std::uint64_t length = text.size();
    std::string bytes(sizeof length, '\0');
    std::memcpy(bytes.data(), &length, sizeof length);
    write_bytes(folder / "a.safetensors", bytes + text + std::string(32, '\1'));
    try {
      use_safetensors(folder / "a.safetensors", Verify::kEverything);
      (void)read_training_checkpoint(folder / "a.safetensors");
    } catch (const DataError& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr((folder / "a.safetensors").string()));
    }
  }
  EXPECT_GT(refused, 1000);
}

/// The pickle of a golden file mutated inside an archive whose own numbers are right, so that it is reached.
TEST(DamagedPt, AnyMutationOfThePickleIsReadOrRefused) {
  const TemporaryFolder folder;
  std::mt19937_64 random(8);
  int refused = 0;
  for (const char* name : {"training.pt", "objects.pt", "views.pt", "protocol_5.pt"}) {
    const ZipReader zip(golden(name));
    for (int i = 0; i < 500; ++i) {
      std::string bytes;
      ZipWriter writer([&](std::span<const std::byte> piece) {
        bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      });
      for (const ZipEntry& entry : zip.entries()) {
        const auto content = zip.read(entry, 1 << 20);
        std::string text(reinterpret_cast<const char*>(content.data()), content.size());
        if (entry.name.ends_with("data.pkl")) text = mutate(text, random);
        writer.add(entry.name, std::as_bytes(std::span(text)));
      }
      writer.finish();
      write_bytes(folder / name, bytes);
      try {
        use_pt(folder / name, Verify::kEverything);
        (void)read_training_checkpoint(folder / name);
      } catch (const DataError& error) {
        ++refused;
        EXPECT_THAT(error.what(), HasSubstr((folder / name).string()));
      }
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(DamagedSafetensors, AnyMutationIsReadOrRefused) {
  const TemporaryFolder folder;
  write_small_safetensors(folder / "a.safetensors");
  const std::string bytes = read_bytes(folder / "a.safetensors");
  std::mt19937_64 random(9);
  EXPECT_GT(count_refused(folder / "b.safetensors", bytes, use_safetensors, 3000, random), 3000);
}

}  // namespace
}  // namespace voca::engine
