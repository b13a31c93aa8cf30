# kernels_test runs every set this machine can run, and AVX-512 in emulation wherever SIMDe (Debian: libsimde-dev) is
# installed: the same source, compiled for AVX2.
find_path(SIMDE_INCLUDE_DIR simde/x86/avx512.h)
if(TARGET kernels_test AND SIMDE_INCLUDE_DIR AND "avx512" IN_LIST AWQ_ISAS)
  add_library(awq_avx512_emulated OBJECT ${PROJECT_SOURCE_DIR}/src/kernels/avx512.cc)
  target_include_directories(awq_avx512_emulated BEFORE PRIVATE ${CMAKE_CURRENT_LIST_DIR}/emulated)
  target_include_directories(awq_avx512_emulated PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_include_directories(awq_avx512_emulated SYSTEM PRIVATE ${SIMDE_INCLUDE_DIR})
  # Emulated vectors are arrays: optimizing them would take as long as all other tests.
  target_compile_options(awq_avx512_emulated PRIVATE -mavx2 -mfma -mf16c -mbmi2 ${AWQ_QUICK} -ffp-contract=off -Wno-psabi)
  target_compile_definitions(awq_avx512_emulated PRIVATE avx512=avx512_emulated AWQ_EMULATED)
  target_sources(kernels_test PRIVATE $<TARGET_OBJECTS:awq_avx512_emulated>)
  target_compile_definitions(kernels_test PRIVATE AWQ_EMULATED_AVX512)
endif()
