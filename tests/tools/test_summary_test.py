"""tools/test_summary.py on the result of a real CTest run with one test of every outcome."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SUMMARY = pathlib.Path(__file__).parents[2] / "tools" / "test_summary.py"
PROJECT = r"""
cmake_minimum_required(VERSION 3.25)
project(outcomes NONE)
enable_testing()
add_test(NAME passes COMMAND ${CMAKE_COMMAND} -E true)
if(FAILURES)
  add_test(NAME fails COMMAND ${CMAKE_COMMAND} -E false)
  add_test(NAME crashes COMMAND sh -c "kill -SEGV $$")
  add_test(NAME missing COMMAND ${CMAKE_BINARY_DIR}/never-built)
  add_test(NAME hangs COMMAND sleep 60)
  set_tests_properties(hangs PROPERTIES TIMEOUT 1)
endif()
add_test(NAME gtest_skips COMMAND ${CMAKE_COMMAND} -E echo
  "[ RUN      ] A.B\nfile.cc:12: Skipped\nno file\n x here\n\n[  SKIPPED ] A.B (0 ms)")
add_test(NAME gtest_skips_silently COMMAND ${CMAKE_COMMAND} -E echo
  "[ RUN      ] A.C\nfile.cc:13: Skipped\n\n[  SKIPPED ] A.C (0 ms)\n\n[  SKIPPED ] 1 test")
add_test(NAME script_skips COMMAND sh -c "echo 'skipped: no tool'; exit 77")
set_tests_properties(gtest_skips gtest_skips_silently PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED")
set_tests_properties(script_skips PROPERTIES SKIP_RETURN_CODE 77)
add_test(NAME off COMMAND ${CMAKE_COMMAND} -E true)
set_tests_properties(off PROPERTIES DISABLED TRUE)
"""


class TestSummary(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        (self.folder / "CMakeLists.txt").write_text(PROJECT)

    def ctest(self, failures: bool) -> pathlib.Path:
        build = self.folder / f"build{failures:d}"
        junit = build / "junit.xml"
        subprocess.run(["cmake", f"-DFAILURES={failures:d}", "-S", self.folder, "-B", build], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["ctest", "--output-junit", junit], cwd=build, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return junit

    def summary(self, *arguments: str) -> tuple[int, list[str]]:
        done = subprocess.run([sys.executable, SUMMARY, *arguments], capture_output=True, text=True)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout.splitlines()

    def test_counts_every_outcome_over_all_runs(self):
        code, lines = self.summary(f"a={self.ctest(failures=True)}", f"b={self.ctest(failures=False)}")
        self.assertEqual(lines[-1], "2 passed, 4 failed, 8 skipped")
        self.assertEqual(code, 1)
        for line in ("skipped  a: gtest_skips: no file x here", "skipped  a: gtest_skips_silently: no reason given", "skipped  b: script_skips: no tool", "skipped  b: off: disabled",
                     "FAILED   a: fails", "FAILED   a: crashes", "FAILED   a: missing", "FAILED   a: hangs"):
            self.assertIn(line, lines)

    def test_success(self):
        self.assertEqual(self.summary(f"b={self.ctest(failures=False)}")[0], 0)

    def test_a_run_that_left_no_result_has_failed(self):
        code, lines = self.summary(f"b={self.ctest(failures=False)}", "a=/nonexistent/junit.xml")
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 4 skipped"))


if __name__ == "__main__":
    unittest.main()
