// Options of the sanitizers that a test program is built with.

#if defined(__SANITIZE_ADDRESS__)
// An allocation beyond all memory fails, as it does without the sanitizer: tests ask for one.
extern "C" const char* __asan_default_options() {  // NOLINT(bugprone-reserved-identifier)
  return "allocator_may_return_null=1";
}
#endif
