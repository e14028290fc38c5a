# Configures with an architecture of the user's and looks for it, and it alone, in the commands.
# cmake -DSOURCE=<root> -DBINARY=<folder> -DGENERATOR=<name> -DARCHITECTURES=86-real -P cuda_architectures.cmake
file(REMOVE_RECURSE ${BINARY})
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=Release -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
          -DCMAKE_CUDA_ARCHITECTURES=${ARCHITECTURES} -DVOCA_BUILD_TESTS=OFF -DVOCA_BUILD_BENCHMARKS=OFF
  OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
if(result)
  message(FATAL_ERROR "configuring failed:\n${output}")
endif()
file(STRINGS ${BINARY}/compile_commands.json commands REGEX "nvcc")
list(LENGTH commands all)
list(FILTER commands INCLUDE REGEX "sm_86")
list(LENGTH commands wanted)
list(FILTER commands INCLUDE REGEX "sm_80")
list(LENGTH commands others)
if(NOT all OR NOT wanted EQUAL all OR others)
  message(FATAL_ERROR "of ${all} commands of nvcc ${wanted} are for sm_86, and ${others} of these for sm_80 besides")
endif()
