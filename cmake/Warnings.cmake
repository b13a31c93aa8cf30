# Warnings are errors on both compilers.
add_library(awq_warnings INTERFACE)
target_compile_options(awq_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports overreads and uninitialised members inside std::string, std::variant and std::function that are
  # not there (GCC bugs 105329, 105562, 105593).
  target_compile_options(awq_warnings INTERFACE -Wno-restrict -Wno-maybe-uninitialized -Wno-stringop-overread
    -Wno-stringop-overflow -Wno-array-bounds -Wno-free-nonheap-object)
endif()
