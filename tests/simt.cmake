# The CUDA kernels, run on the CPU by tests (docs/simt.md). CUDA's headers are all this needs: neither nvcc nor a
# device, nor the rest of a toolkit.
find_path(VOCA_CUDA_INCLUDE_DIR cuda_bf16.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS /usr/local/cuda/include)
if(NOT VOCA_CUDA_INCLUDE_DIR)
  message(STATUS "CUDA's headers are not installed: the tests of the CUDA kernels on the CPU (cuda-on-host) are NOT built")
  return()
endif()
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  message(STATUS "Not an x86-64: the tests of the CUDA kernels on the CPU (cuda-on-host) are NOT built")
  return()
endif()
if(VOCA_SANITIZE)
  message(STATUS "The tests of the CUDA kernels on the CPU (cuda-on-host) are in the builds without a sanitizer, which have them under "
                 "sanitizers of their own")
  return()
endif()

file(GLOB simt_sources CONFIGURE_DEPENDS simt/*.cpp)
list(FILTER simt_sources EXCLUDE REGEX "_test\\.cpp$|race_hooks\\.cpp$|host_device\\.cpp$|(training|ranks)_support\\.cpp$|nccl_double\\.cpp$")
file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu simt/*.cu)
# A file for the host compiler that includes the .cu.
set(wrappers)
foreach(source ${cuda_sources})
  file(RELATIVE_PATH relative ${PROJECT_SOURCE_DIR} ${source})
  set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/simt/${relative}.cpp)
  file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${relative}\"\n")
  list(APPEND wrappers ${wrapper})
endforeach()

# The fixtures, compiled once for all builds of the kernels; what only the CPU has is tested in kernels/cpu/.
file(GLOB fixtures CONFIGURE_DEPENDS kernels/*_test.cpp)
add_library(cuda_on_host_fixtures OBJECT ${fixtures} simt/executor_test.cpp simt/fragment_test.cpp)
target_link_libraries(cuda_on_host_fixtures PRIVATE voca_options GTest::gtest GTest::gmock)
target_include_directories(cuda_on_host_fixtures SYSTEM PRIVATE ${VOCA_CUDA_INCLUDE_DIR})
target_compile_options(cuda_on_host_fixtures PRIVATE -O1)
voca_precompile_tests(cuda_on_host_fixtures)
target_compile_definitions(cuda_on_host_fixtures PRIVATE VOCA_TEST_CUDA_ON_HOST
                           VOCA_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/golden")

# In place of voca_backends: the engine's operations with their way to the CUDA kernels, for a whole step and a whole training of the model.
file(GLOB operations CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/engine/ops/*.cpp)
add_library(cuda_on_host_engine OBJECT ${operations} ${PROJECT_SOURCE_DIR}/engine/cuda/without_cuda.cpp simt/host_device.cpp simt/whole_step_test.cpp
            simt/training_run_test.cpp simt/engine_test.cpp simt/training_support.cpp data/support/scratch.cpp engine/support/toy.cpp)
target_link_libraries(cuda_on_host_engine PRIVATE voca_data voca_model GTest::gtest)
target_include_directories(cuda_on_host_engine SYSTEM PRIVATE ${VOCA_CUDA_INCLUDE_DIR})
target_compile_options(cuda_on_host_engine PRIVATE -O2)
target_compile_definitions(cuda_on_host_engine PRIVATE VOCA_WITH_CUDA VOCA_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/golden")
# Several ranks over functions that stand in for NCCL's, whose header says what they are.
if(VOCA_WITH_NCCL AND VOCA_NCCL_INCLUDE_DIR)
  target_sources(cuda_on_host_engine PRIVATE simt/nccl_double.cpp simt/ranks_support.cpp simt/multi_gpu_test.cpp simt/two_ranks_test.cpp)
  target_include_directories(cuda_on_host_engine SYSTEM PRIVATE ${VOCA_NCCL_INCLUDE_DIR})
endif()

# voca_cuda_on_host(<name> [ONE_SCHEDULE] KERNELS <options for kernels> ALL <options for kernels and executor> WITHOUT <tests>)
# A test program of the fixtures with kernels and executor compiled that way, run under each schedule. With ONE_SCHEDULE
# all but the random one are for the long run (label sweep): what the program looks for hardly depends on the order.
function(voca_cuda_on_host name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "ONE_SCHEDULE" "WITHOUT" "KERNELS;EXECUTOR;ALL;LINK")
  add_library(${name}_kernels OBJECT ${wrappers})
  add_library(${name}_executor OBJECT ${simt_sources} ${arg_EXECUTOR})
  foreach(part kernels executor)
    target_link_libraries(${name}_${part} PRIVATE voca_options)
    target_include_directories(${name}_${part} SYSTEM PRIVATE ${VOCA_CUDA_INCLUDE_DIR})
    target_compile_options(${name}_${part} PRIVATE -g ${arg_ALL})
  endforeach()
  target_compile_options(${name}_kernels PRIVATE ${arg_KERNELS})
  target_compile_options(${name}_executor PRIVATE -O2)
  add_executable(${name}_tests)
  target_link_libraries(${name}_tests PRIVATE cuda_on_host_fixtures cuda_on_host_engine ${name}_kernels ${name}_executor
                        voca_data voca_model voca_engine GTest::gtest GTest::gmock GTest::gtest_main ${CMAKE_DL_LIBS})
  target_link_options(${name}_tests PRIVATE ${arg_LINK})
  # All of each archive: what is defined twice does not link.
  get_property(rooms GLOBAL PROPERTY VOCA_ROOMS)
  list(REMOVE_ITEM rooms voca_tools)
  foreach(library ${rooms})
    set_property(TARGET ${name}_tests PROPERTY LINK_LIBRARY_OVERRIDE_${library} WHOLE_ARCHIVE)
  endforeach()
  foreach(schedule forward reverse random)
    # Three ranks are between two and four; where a rank fails no schedule matters.
    set(without "${arg_WITHOUT}")
    if(NOT schedule STREQUAL "forward")
      string(APPEND without ":Ranks/MultiGpu*/3:Ranks/FailingRank*")
    endif()
    # Derivatives are checked on the CPU's double alone, in kernels_tests.
    add_test(NAME ${name}.${schedule} COMMAND ${name}_tests --gtest_brief=1 --gtest_filter=-*Derivative/*:*Gradient/*:WideCast/*:${without})
    set(labels "kernels;${name}")
    if(arg_ONE_SCHEDULE AND NOT schedule STREQUAL "random")
      list(APPEND labels sweep)
    endif()
    set_tests_properties(${name}.${schedule} PROPERTIES TIMEOUT 1800 COST 100 LABELS "${labels}"
                         ENVIRONMENT "VOCA_SIMT_SCHEDULE=${schedule};OMP_WAIT_POLICY=passive")
  endforeach()
endfunction()

voca_cuda_on_host(cuda_on_host KERNELS -O2)
set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all)
# The scheduling of threads touches no memory of a kernel, and is most of the time under a sanitizer.
set_source_files_properties(simt/block.cpp PROPERTIES COMPILE_OPTIONS -fno-sanitize=all)
voca_cuda_on_host(cuda_on_host_asan ONE_SCHEDULE KERNELS -O1 ALL ${sanitize} -fno-omit-frame-pointer LINK ${sanitize} WITHOUT Ranks/*)
# The compiler's hooks at every load and store are ours; libtsan is not linked. Several ranks run the kernels of one.
voca_cuda_on_host(cuda_on_host_race ONE_SCHEDULE KERNELS -O1 -fsanitize=thread "SHELL:--param tsan-instrument-func-entry-exit=0"
                  EXECUTOR simt/race_hooks.cpp WITHOUT Ranks/*)
target_compile_definitions(cuda_on_host_race_executor PRIVATE VOCA_SIMT_RACE)

# The same fixtures on a device. Where there is none every test is skipped, and says so.
if(CMAKE_CUDA_COMPILER)
  add_library(cuda_fixture_kernels OBJECT simt/fragments.cu)
  add_executable(cuda_tests ${fixtures} simt/fragment_test.cpp)
  target_include_directories(cuda_fixture_kernels PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(cuda_fixture_kernels PRIVATE --expt-relaxed-constexpr)
  target_include_directories(cuda_tests SYSTEM PRIVATE ${VOCA_CUDA_INCLUDE_DIR})
  target_compile_definitions(cuda_tests PRIVATE VOCA_TEST_CUDA VOCA_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/golden")
  target_compile_options(cuda_tests PRIVATE -O1)
  target_link_libraries(cuda_tests PRIVATE voca_cuda_kernels cuda_fixture_kernels voca_kernels voca_options GTest::gtest
                        GTest::gmock GTest::gtest_main)
  add_test(NAME cuda COMMAND cuda_tests --gtest_filter=-*Derivative/*:*Gradient/*:WideCast/*)
  set_tests_properties(cuda PROPERTIES TIMEOUT 1800 LABELS "kernels;cuda" SKIP_REGULAR_EXPRESSION "no CUDA device")

  # The engine on a device: products, the whole network, whole trainings, NCCL.
  add_executable(cuda_engine_tests simt/engine_test.cpp simt/training_run_test.cpp simt/cuda_only_test.cpp simt/training_support.cpp
                 simt/ranks_support.cpp simt/two_ranks_test.cpp data/support/scratch.cpp engine/support/toy.cpp)
  target_include_directories(cuda_engine_tests SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(cuda_engine_tests PRIVATE VOCA_TEST_CUDA VOCA_GOLDEN_DIR="${CMAKE_CURRENT_SOURCE_DIR}/golden")
  target_compile_options(cuda_engine_tests PRIVATE -O1)
  target_link_libraries(cuda_engine_tests PRIVATE voca_data voca_model voca_engine voca_backends PkgConfig::HDF5 PkgConfig::LIBZIP
                        GTest::gtest GTest::gmock GTest::gtest_main)
  add_test(NAME cuda_engine COMMAND cuda_engine_tests)
  set_tests_properties(cuda_engine PROPERTIES TIMEOUT 1800 LABELS "cuda" SKIP_REGULAR_EXPRESSION "no CUDA device")

  add_test(NAME cuda_architectures
           COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DBINARY=${CMAKE_CURRENT_BINARY_DIR}/cuda_architectures
                   -DGENERATOR=${CMAKE_GENERATOR} -DARCHITECTURES=86-real -P ${CMAKE_CURRENT_SOURCE_DIR}/cuda_architectures.cmake)
  set_tests_properties(cuda_architectures PROPERTIES TIMEOUT 600)
endif()
