// Options of the sanitizers that a test program is built with.

#if defined(__SANITIZE_ADDRESS__)
// An allocation beyond all memory fails, as it does without the sanitizer: tests ask for one.
extern "C" const char* __asan_default_options() {  // NOLINT(bugprone-reserved-identifier)
  return "allocator_may_return_null=1";
}

// HDF5 1.10 leaves a few hundred bytes behind for each damaged file it refuses; that none of our handles is
// among them is what Dataset.AFlippedBitAnywhereIsNoticedOrHarmless expects.
extern "C" const char* __lsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "leak:libhdf5";
}
#endif

#if defined(__SANITIZE_THREAD__)
// Tests fork ranks, which start threads.
extern "C" const char* __tsan_default_options() {  // NOLINT(bugprone-reserved-identifier)
  return "allocator_may_return_null=1:die_after_fork=0";
}

// libzip asks for the local time; glibc guards it with a lock of its own that ThreadSanitizer cannot see. Nor
// does it see the atomics by which Gloo, which is not built with it, keeps a buffer until its thread is done.
extern "C" const char* __tsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "race:tzset_internal\nrace:gloo::transport";
}
#endif
