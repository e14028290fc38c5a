# The CPU kernels are compiled once for each instruction set of VOCA_CPU_ARCH, and the program chooses one at start
# (kernels/cpu/levels.h).
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(VOCA_EVERY_CPU x86-64-v2 x86-64-v3 x86-64-v4)
else()
  set(VOCA_EVERY_CPU armv8-a)
endif()
set(VOCA_CPU_ARCH ${VOCA_EVERY_CPU} CACHE STRING "Instruction sets (-march=...) of the CPU kernels, the preferred last; native is this machine")

# VOCA_CPU_LEVELS(X, ...) of C++ is X(identifier, name, ...) for each.
set(levels)
foreach(arch ${VOCA_CPU_ARCH})
  string(MAKE_C_IDENTIFIER ${arch} level)
  string(APPEND levels " X(${level}, \"${arch}\" __VA_OPT__(, ) __VA_ARGS__)")
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/kernels/compiled_levels.h
     CONTENT "#pragma once\n\n#define VOCA_CPU_LEVELS(X, ...)${levels}\n")

# voca_compile_for_every_cpu(<target> <sources>): adds the sources to the target, compiled for each instruction set, whose
# identifier is VOCA_CPU_LEVEL. The objects are those of <target>_<identifier>.
function(voca_compile_for_every_cpu target)
  foreach(arch ${VOCA_CPU_ARCH})
    string(MAKE_C_IDENTIFIER ${arch} level)
    add_library(${target}_${level} OBJECT ${ARGN})
    target_include_directories(${target}_${level} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
    target_link_libraries(${target}_${level} PRIVATE voca_options)
    target_compile_definitions(${target}_${level} PRIVATE VOCA_CPU_LEVEL=${level})
    # Loops vectorise only if errno and floating-point traps are not observable; no kernel observes them.
    # Sums round as they are written: a compiler that contracts them does so otherwise in the remainder of a loop, which
    # depends on the width of the vectors. What pays for a multiply-add names it (multiply_add() in math.h, vector.h).
    target_compile_options(${target}_${level} PRIVATE -O3 -fopenmp-simd -fno-math-errno -fno-trapping-math -ffp-contract=off
                           -march=${arch})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${level}>)
  endforeach()
endfunction()
