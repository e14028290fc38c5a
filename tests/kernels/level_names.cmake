# Ends with an error if an object of the CPU kernels compiled for LEVEL defines a name for the linker without LEVEL in it: the
# linker might keep that function for the whole program, and another processor meet it (kernels/cpu/levels.h).
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} --defined-only --extern-only --format=posix ${object} OUTPUT_VARIABLE names COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" names "${names}")
  list(FILTER names EXCLUDE REGEX "${LEVEL}")
  # Of the compiler, and the same whatever the instruction set.
  list(FILTER names EXCLUDE REGEX "^DW\\.ref\\.__gxx_personality_v0 ")
  if(names)
    message(SEND_ERROR "${object}: ${names}")
  endif()
endforeach()
if(NOT OBJECTS)
  message(FATAL_ERROR "no objects")
endif()
