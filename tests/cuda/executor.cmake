# The CUDA kernels' sources compiled for the host, on an executor of threads, warps and blocks: no GPU, no CUDA. Fibers
# under ThreadSanitizer would need its own switches.
if(NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize=thread")
  awq_add_test(cuda)
  target_sources(cuda_test PRIVATE cuda/executor.cc cuda/executor_set.cc cuda/executor_device.cc)
  set_source_files_properties(cuda/executor.cc cuda/executor_set.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON
    COMPILE_OPTIONS $<$<CONFIG:Release>:-O2>)
endif()
