# Run at every build: writes ${OUTPUT} with what was built, and touches it only when that changed.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD OUTPUT_VARIABLE revision ERROR_QUIET
                OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
if(failed)
  set(revision unknown)
else()
  execute_process(COMMAND git -C ${SOURCE} diff --quiet HEAD -- RESULT_VARIABLE dirty ERROR_QUIET)
  if(dirty)
    string(APPEND revision -dirty)
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once
#define VOCA_VERSION \"${VERSION}\"
#define VOCA_REVISION \"${revision}\"
#define VOCA_COMPILER \"${COMPILER}\"
#define VOCA_BUILD_TYPE \"${BUILD_TYPE}\"
#define VOCA_CUDA_TOOLKIT \"${CUDA_TOOLKIT}\"
" @ONLY)
