#pragma once

#include <optional>

namespace voca::engine {

/// A library opened at run time (dlopen) because a machine may lack it: the program does not link it.
class SharedLibrary {
 public:
  /// Opens a library by soname through the dynamic linker's search; nullopt if it is not found. It stays open
  /// until the process ends, because not every library survives being unloaded.
  [[nodiscard]] static std::optional<SharedLibrary> open(const char* soname);

  /// Function by name, null if the library lacks it.
  template <typename Function>
  [[nodiscard]] Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }

 private:
  explicit SharedLibrary(void* handle) : handle_(handle) {}
  [[nodiscard]] void* symbol(const char* name) const;

  void* handle_;
};

}  // namespace voca::engine
