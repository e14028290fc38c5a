#pragma once

#include <optional>

namespace voca::engine {

/// A library opened at run time (dlopen), for what a machine may lack: the program neither links nor needs
/// it.
class SharedLibrary {
 public:
  /// By its soname, as the dynamic linker finds it; nothing where there is none. Not every library survives
  /// being unloaded: once opened it stays until the process ends.
  [[nodiscard]] static std::optional<SharedLibrary> open(const char* soname);

  /// A function by its name, null where the library has none.
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
