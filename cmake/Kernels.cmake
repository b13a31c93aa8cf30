# One object library per instruction set. The flags apply to that file only, and a test (kernel_objects.*) fails if
# such an object exports anything the rest of the program could link to.
set(AWQ_ISAS)
set(AWQ_KERNEL_LEVEL -O3)
# AddressSanitizer sees what these checks of every access would see. At -O1, with its own checks as calls and not as code
# in line, Clang takes 52 s for amx.cc, and 97 s at -O3 with code in line.
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=.*undefined")
  set(AWQ_KERNEL_LEVEL -O1)
  set(AWQ_KERNEL_CHECKS -fno-sanitize=null,object-size,pointer-overflow)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    list(APPEND AWQ_KERNEL_CHECKS "SHELL:-mllvm -asan-instrumentation-with-call-threshold=0")
  endif()
endif()
function(awq_add_isa name)
  add_library(awq_isa_${name} OBJECT src/kernels/${name}.cc)
  target_compile_options(awq_isa_${name} PRIVATE ${ARGN} ${AWQ_KERNEL_LEVEL} ${AWQ_KERNEL_CHECKS}
    -ffp-contract=off -fno-math-errno -fno-trapping-math)
  target_include_directories(awq_isa_${name} PRIVATE src)
  target_link_libraries(awq_isa_${name} PRIVATE awq_warnings)
  list(APPEND AWQ_ISAS ${name})
  set(AWQ_ISAS ${AWQ_ISAS} PARENT_SCOPE)
endfunction()

awq_add_isa(portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  awq_add_isa(avx2 -mavx2 -mfma -mf16c -mbmi2)
  awq_add_isa(avxvnni -mavx2 -mfma -mf16c -mbmi2 -mavxvnni)
  set(AVX512 -mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512cd -mavx512vnni
    -mprefer-vector-width=512)
  awq_add_isa(avx512 ${AVX512})
  awq_add_isa(amx ${AVX512} -mavx512vbmi -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  # Scheduled before registers are assigned, as GCC does it here and not on x86, loads move up until tiles spill.
  set(NEON $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
  awq_add_isa(neon -march=armv8.2-a+dotprod ${NEON})
  awq_add_isa(neon_i8mm -march=armv8.2-a+dotprod+i8mm ${NEON})
endif()

function(awq_link_isas target)
  foreach(isa IN LISTS AWQ_ISAS)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:awq_isa_${isa}>)
    string(TOUPPER ${isa} ISA)
    target_compile_definitions(${target} PRIVATE AWQ_HAVE_${ISA})
  endforeach()
endfunction()
