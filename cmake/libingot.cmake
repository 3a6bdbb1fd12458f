# libingot: shared (only ingot_* is exported) and static (one object, in which everything else is local), header,
# pkg-config file. `cmake --install build/release --prefix /usr/local` puts them, and the program, in place.
include(GNUInstallDirs)
set(INGOT_LIB_VERSION 0.1.0) # include/ingot.h says the same: tests/sdk compares
set(INGOT_ABI 0)
# Instrumented kernels read variables of the sanitizer, which takes -fPIC, and twice the minutes to compile them: there
# tests/sdk/test_sdk.c stands for the library.
if(INGOT_BUILD MATCHES "^(fuzz|asan|tsan)$")
  return()
endif()

add_library(ingot_shared SHARED ${src_sdk})
target_link_libraries(ingot_shared PRIVATE core)
target_link_options(ingot_shared PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/libingot.map)
set_target_properties(ingot_shared PROPERTIES OUTPUT_NAME ingot VERSION ${INGOT_LIB_VERSION} SOVERSION ${INGOT_ABI})

set(STRIP_DEBUG)
if(INGOT_BUILD STREQUAL "release") # as the program: symbols for a debugger lie beside the shared library
  set(STRIP_DEBUG --strip-debug)
  add_custom_command(TARGET ingot_shared POST_BUILD VERBATIM
    COMMAND ${CMAKE_OBJCOPY} --only-keep-debug $<TARGET_FILE:ingot_shared> $<TARGET_FILE:ingot_shared>.debug
    COMMAND ${CMAKE_OBJCOPY} --strip-unneeded --add-gnu-debuglink=$<TARGET_FILE:ingot_shared>.debug $<TARGET_FILE:ingot_shared>)
endif()
# The rooms are an archive: joined with the door they become one object, in which all other symbols become local, so
# that a program may have a `fail` or a `pool_run` of its own.
add_library(ingot_door OBJECT ${src_sdk})
target_link_libraries(ingot_door PRIVATE core)
set(STATIC_LIB ${CMAKE_BINARY_DIR}/libingot.a)
add_custom_command(OUTPUT ${STATIC_LIB} VERBATIM COMMAND_EXPAND_LISTS
  COMMAND ${CMAKE_LINKER} -r -o libingot_all.o $<TARGET_OBJECTS:ingot_door> $<TARGET_FILE:core>
  COMMAND ${CMAKE_OBJCOPY} ${STRIP_DEBUG} -w --keep-global-symbol=ingot_* libingot_all.o
  COMMAND ${CMAKE_COMMAND} -E rm -f ${STATIC_LIB}
  COMMAND ${CMAKE_AR} rcs ${STATIC_LIB} libingot_all.o
  DEPENDS ingot_door core)
add_custom_target(ingot_static ALL DEPENDS ${STATIC_LIB})

configure_file(${CMAKE_SOURCE_DIR}/cmake/ingot.pc.in ${CMAKE_BINARY_DIR}/ingot.pc @ONLY)
install(TARGETS ingot_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${STATIC_LIB} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_SOURCE_DIR}/include/ingot.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${CMAKE_BINARY_DIR}/ingot.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET ingot)
  install(TARGETS ingot RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
