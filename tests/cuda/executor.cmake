# The CUDA kernels' sources compiled for the host, on an executor of threads, warps and blocks: no GPU, no CUDA. Fibers
# under ThreadSanitizer would need its own switches.
if(NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize=thread")
  awq_add_test(cuda)
  target_sources(cuda_test PRIVATE cuda/executor.cc cuda/executor_set.cc cuda/executor_device.cc)
  # The same tests on a GPU, where there is one: run by hand, or by tools/cuda_visit.sh.
  if(AWQ_CUDA_FOUND)
    add_executable(cuda_device_test cuda/backend_test.cc cuda/fixtures_test.cc cuda/split_test.cc cuda/steps_test.cc
      cuda/gpu_device.cc)
    target_include_directories(cuda_device_test PRIVATE ${PROJECT_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(cuda_device_test PRIVATE awq awq_warnings nlohmann_json::nlohmann_json fmt::fmt GTest::gtest_main)
    target_compile_options(cuda_device_test PRIVATE -ffp-contract=off ${AWQ_QUICK})
    target_compile_definitions(cuda_device_test PRIVATE AWQ_TEST_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  set_source_files_properties(cuda/executor.cc cuda/executor_set.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON
    COMPILE_OPTIONS $<$<CONFIG:Release>:-O2>)
endif()
