#include "data/packed/hdf5.h"

#include <new>

namespace voca::data::hdf5 {
namespace {

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// Must run before any other call of the library, which would register its clean-up with atexit.
const herr_t kNoCleanUpAtExit = H5dont_atexit();

herr_t keep_innermost(unsigned /*depth*/, const H5E_error2_t* error, void* text) {
  if (error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

herr_t look_for_lack_of_memory(unsigned /*depth*/, const H5E_error2_t* error, void* found) {
  if (error->maj_num == H5E_RESOURCE) *static_cast<bool*>(found) = true;
  return 0;
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  static_cast<void>(kNoCleanUpAtExit);
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() {
  H5Eset_auto2(H5E_DEFAULT, function_, data_);
}

std::string last_error() {
  std::string text = "no reason given";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_innermost, &text);
  return text;
}

void require_memory() {
  constexpr std::size_t kEnough = std::size_t{8} << 20;
  ::operator delete(::operator new(kEnough));
}

bool lacked_memory() {
  bool found = false;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, look_for_lack_of_memory, &found);
  return found;
}

Handle frame_type(engine::DType dtype) {
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  if (dtype == engine::DType::kF16) {
    // IEEE 754 binary16, as h5py writes it: sign at bit 15, five exponent bits from bit 10, ten mantissa
    // bits.
    H5Tset_fields(type.get(), 15, 10, 5, 0, 10);
    H5Tset_size(type.get(), 2);
    H5Tset_ebias(type.get(), 15);
  }
  return type;
}

}  // namespace voca::data::hdf5
