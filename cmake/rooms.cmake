# A room is a folder of the tree and a static library target that sees its own headers and those of the rooms
# it links, and no others: an include against the dependency direction (docs/architecture.md) does not
# compile.

# voca_view(<target> <folder> PUBLIC|INTERFACE): puts <folder> on the include path of the target and of its
# dependents.
function(voca_view target folder scope)
  set(view ${PROJECT_BINARY_DIR}/rooms/${target})
  get_filename_component(parent ${view}/${folder} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${folder} ${view}/${folder} SYMBOLIC)
  target_include_directories(${target} ${scope} ${view})
endfunction()

# voca_room(<target> <folder> SOURCES <patterns in the folder> [EXCEPT <file>] [BELOW <rooms to link
# publicly>] [USES <libraries that its headers do not expose>])
function(voca_room target folder)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" EXCEPT "SOURCES;BELOW;USES")
  list(TRANSFORM arg_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/${folder}/)
  file(GLOB sources CONFIGURE_DEPENDS ${arg_SOURCES})
  list(REMOVE_ITEM sources ${PROJECT_SOURCE_DIR}/${folder}/${arg_EXCEPT})
  add_library(${target} STATIC ${sources})
  voca_view(${target} ${folder} PUBLIC)
  target_link_libraries(${target} PUBLIC voca_options ${arg_BELOW} PRIVATE ${arg_USES})
  set_property(GLOBAL APPEND PROPERTY VOCA_ROOMS ${target})
endfunction()
