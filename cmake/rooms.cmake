# One static library from all rooms but cli; a second one, core_f64, in which `real` is double (gradient checks).

execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} describe --always --dirty OUTPUT_VARIABLE GIT_VERSION
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(ROOMS base observe tensor net kernels formats tokenizer chat speech grammar data model load engine eval replay train hosting gateway sdk)
foreach(room ${ROOMS})
  file(GLOB_RECURSE src_${room} CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${room}/*.c)
  list(APPEND CORE_SRC ${src_${room}})
endforeach()

# One file knows the version: were it on every command line, each commit would compile everything again.
set_property(SOURCE ${CMAKE_SOURCE_DIR}/src/cli/cmd_version.c APPEND PROPERTY COMPILE_DEFINITIONS
  INGOT_VERSION="0.1.0" INGOT_COMMIT="${GIT_VERSION}")

# Rooms that read bytes from outside: every narrowing is written out.
foreach(room base formats tokenizer chat speech grammar net load replay gateway)
  set_property(SOURCE ${src_${room}} APPEND PROPERTY COMPILE_OPTIONS -Wconversion -Wno-sign-conversion)
endforeach()

# Every room may become part of libingot.so, and is no part of what it exports. Kernels stay as they are in a program:
# they read no variables of other libraries and have none of a thread, so that -fPIE is enough there.
foreach(room ${ROOMS})
  if(NOT room STREQUAL "kernels")
    set_property(SOURCE ${src_${room}} APPEND PROPERTY COMPILE_OPTIONS -fPIC -fvisibility=hidden)
  endif()
endforeach()

# Instruction sets: the file name's ending says which flags a kernel file needs. Nothing else is compiled beyond
# the x86-64 baseline, except the scalar reference, which may use the FMA instruction (every supported CPU has it).
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(X86_AVX2 -mavx2 -mfma -mf16c -mbmi2)
  set(X86_AVX512 ${X86_AVX2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
  set(KERNEL_O) # sanitized builds keep their -O1: unrolled and instrumented, a kernel file takes minutes to compile
  if(INGOT_BUILD STREQUAL "release")
    set(KERNEL_O -O3)
  elseif(INGOT_BUILD MATCHES "asan|tsan")
    set(KERNEL_O -g1) # lines in a report, no variables: following those through unrolled tiles takes 40 % more time
  endif()
  foreach(f ${src_kernels})
    if(f MATCHES "_avx2\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX2} ${KERNEL_O})
    elseif(f MATCHES "_avx512\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX512} ${KERNEL_O})
    elseif(f MATCHES "_vnni\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX512} -mavx512vnni ${KERNEL_O})
    elseif(f MATCHES "_amx\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX512} -mavx512vnni -mamx-tile -mamx-int8 ${KERNEL_O})
    elseif(f MATCHES "_bf16\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX512} -mavx512vnni -mavx512bf16 ${KERNEL_O})
    elseif(f MATCHES "/ref/")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS -mfma)
    endif()
  endforeach()
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND INGOT_BUILD STREQUAL "release")
  foreach(f ${src_kernels})
    if(f MATCHES "_(neon|dotprod)\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS -O3)
    endif()
    if(f MATCHES "_dotprod\\.c$")
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS -march=armv8.2-a+dotprod)
    endif()
  endforeach()
endif()
# Kernels are hot and take trusted shapes (validated at load): no stack canaries or auto-init of tiles there.
if(INGOT_BUILD STREQUAL "release")
  set_property(SOURCE ${src_kernels} APPEND PROPERTY COMPILE_OPTIONS -fno-stack-protector -ftrivial-auto-var-init=uninitialized)
endif()

# Lines of kernels are counted without locks: two threads may lose a count, never the first one, and a token is read in
# a tenth of the time.
if(INGOT_BUILD STREQUAL "coverage")
  set_property(SOURCE ${src_kernels} APPEND PROPERTY COMPILE_OPTIONS -fprofile-update=single)
endif()

set(LIBS PkgConfig::EVENT PkgConfig::SSL PkgConfig::YAML PkgConfig::ZLIB Threads::Threads m)
function(core_library name)
  add_library(${name} STATIC ${ARGN})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include ${CMAKE_BINARY_DIR}/generated)
  target_link_libraries(${name} PUBLIC ${LIBS})
endfunction()
set(SCALAR_SRC ${CORE_SRC})
list(FILTER SCALAR_SRC EXCLUDE REGEX "/kernels/(x86|arm)/")
if(INGOT_BUILD STREQUAL "fuzz") # readers of untrusted bytes are fuzzed, kernels are compared with the reference
  set(CORE_SRC ${SCALAR_SRC})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(FILTER CORE_SRC EXCLUDE REGEX "/kernels/arm/")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(FILTER CORE_SRC EXCLUDE REGEX "/kernels/x86/")
else()
  set(CORE_SRC ${SCALAR_SRC})
endif()
core_library(core ${CORE_SRC})

# Static web pages become C arrays.
file(GLOB WEB CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/web/*)
if(WEB)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/generated/web_pages_table.h
    COMMAND sh ${CMAKE_SOURCE_DIR}/tools/embed ${CMAKE_BINARY_DIR}/generated/web_pages_table.h ${WEB}
    DEPENDS ${WEB} ${CMAKE_SOURCE_DIR}/tools/embed)
  add_custom_target(web_pages DEPENDS ${CMAKE_BINARY_DIR}/generated/web_pages_table.h)
  add_dependencies(core web_pages)
endif()

file(GLOB CLI_SRC CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cli/*.c)
if(CLI_SRC)
  add_executable(ingot ${CLI_SRC})
  target_link_libraries(ingot PRIVATE core PkgConfig::EDIT)
  if(INGOT_BUILD STREQUAL "release") # symbols go beside the binary, where gdb finds them
    add_custom_command(TARGET ingot POST_BUILD VERBATIM
      COMMAND ${CMAKE_OBJCOPY} --only-keep-debug $<TARGET_FILE:ingot> $<TARGET_FILE:ingot>.debug
      COMMAND ${CMAKE_OBJCOPY} --strip-all --add-gnu-debuglink=$<TARGET_FILE:ingot>.debug $<TARGET_FILE:ingot>)
  endif()
endif()

include(cmake/libingot.cmake)

file(GLOB BENCH_SRC CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/bench_*.c)
foreach(f ${BENCH_SRC})
  get_filename_component(n ${f} NAME_WE)
  add_executable(${n} EXCLUDE_FROM_ALL ${f})
  target_link_libraries(${n} PRIVATE core)
endforeach()

# ---- tests: tests/<room>/test_*.c, one program each; *_f64.c link the double build; test_*.py run with python3 ----
if(INGOT_TESTS)
  enable_testing()
  set(TEST_TIMEOUT 600)
  if(NOT INGOT_BUILD STREQUAL "release") # instrumented code is five to twenty times as slow
    set(TEST_TIMEOUT 2400)
  endif()
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
  core_library(core_f64 ${SCALAR_SRC}) # the reference only
  set_target_properties(core_f64 PROPERTIES EXCLUDE_FROM_ALL ON)
  target_compile_definitions(core_f64 PUBLIC INGOT_REAL_DOUBLE)
  if(WEB)
    add_dependencies(core_f64 web_pages)
  endif()
  file(GLOB_RECURSE TEST_SRC CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*/test_*.c)
  foreach(f ${TEST_SRC})
    get_filename_component(n ${f} NAME_WE)
    get_filename_component(d ${f} DIRECTORY)
    get_filename_component(room ${d} NAME)
    set(t ${room}_${n})
    add_executable(${t} ${f})
    set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS -Wno-missing-prototypes)
    if(n MATCHES "_vnni$" AND X86_AVX512) # kernels compiled again inside of a test
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX512} -mavx512vnni)
    endif()
    target_include_directories(${t} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_compile_definitions(${t} PRIVATE TEST_DIR="${CMAKE_SOURCE_DIR}/tests" SHARED_DIR="${CMAKE_SOURCE_DIR}/../shared")
    if(n MATCHES "_f64$")
      target_link_libraries(${t} PRIVATE core_f64 PkgConfig::CMOCKA)
    else()
      target_link_libraries(${t} PRIVATE core PkgConfig::CMOCKA)
    endif()
    if(room STREQUAL "cli") # its commands are no part of a library
      set(COMMAND_SRC ${CLI_SRC})
      list(FILTER COMMAND_SRC EXCLUDE REGEX "/main\\.c$")
      target_sources(${t} PRIVATE ${COMMAND_SRC})
      target_link_libraries(${t} PRIVATE PkgConfig::EDIT)
    endif()
    add_test(NAME ${room}.${n} COMMAND ${t} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${room}.${n} PROPERTIES TIMEOUT ${TEST_TIMEOUT} SKIP_RETURN_CODE 77)
  endforeach()
  file(GLOB_RECURSE TEST_PY CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*/test_*.py)
  foreach(f ${TEST_PY})
    get_filename_component(n ${f} NAME_WE)
    get_filename_component(d ${f} DIRECTORY)
    get_filename_component(room ${d} NAME)
    add_test(NAME ${room}.${n} COMMAND ${CMAKE_SOURCE_DIR}/tools/python ${f} $<TARGET_FILE:ingot> WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${room}.${n} PROPERTIES TIMEOUT ${TEST_TIMEOUT} SKIP_RETURN_CODE 77
      ENVIRONMENT INGOT_CACHE=${CMAKE_BINARY_DIR}/test-cache) # never the user's
  endforeach()
endif()

if(INGOT_TESTS AND TARGET ingot_shared)
  add_custom_target(sdk_test_examples DEPENDS ingot_shared ingot_static) # what tests/sdk/test_examples.py looks at
endif()

# ---- fuzzers: fuzz/fuzz_*.c, libFuzzer ----
if(INGOT_BUILD STREQUAL "fuzz")
  file(GLOB FUZZ_SRC CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/fuzz/fuzz_*.c)
  foreach(f ${FUZZ_SRC})
    get_filename_component(n ${f} NAME_WE)
    add_executable(${n} ${f})
    set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS -Wno-missing-prototypes)
    if(n MATCHES "_vnni$" AND X86_AVX512) # kernels compiled again inside of a test
      set_property(SOURCE ${f} APPEND PROPERTY COMPILE_OPTIONS ${X86_AVX512} -mavx512vnni)
    endif()
    target_link_libraries(${n} PRIVATE core)
    target_link_options(${n} PRIVATE -fsanitize=fuzzer)
  endforeach()
endif()
