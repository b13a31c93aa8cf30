#!/usr/bin/env python3
"""The table of docs/kernels.md: registers and spills of every CUDA kernel, as ptxas reports them. Needs nvcc, no GPU.

cuda_registers.py [--update] [ARCHITECTURE...]; without architectures 80, 86, 89, 90a and 100. Ends with 1 where the compiler warns, or
the table is not that of the page and the compiler is the page's; --update writes it there. Says that it skipped where there is no nvcc.
For sm_90a it also ends with 1 where the products of four warps wait for each other (ptxas says so), or where the machine code of one has no
HGMMA. cuobjdump is CUOBJDUMP, or what the path, the toolkit, or a virtual environment of its own has; the check says that it skipped this
where the last cannot be made.
"""
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = f"{ROOT}/docs/kernels.md"
ARCHITECTURES = ["80", "86", "89", "90a", "100"]
HOPPER, GROUPED = "90a", "group_tokens"
NVCC = os.environ.get("NVCC") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"


def report(architecture):
    """ptxas's report: {kernel: (registers, bytes of stack, bytes spilled)}."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [NVCC, "-std=c++20", "-O3", f"-gencode=arch=compute_{architecture},code=sm_{architecture}", "-Xptxas", "-v",
             "-Werror", "all-warnings", "-I", f"{ROOT}/src", "-c", f"{ROOT}/src/kernels/cuda/set.cu", "-o", f"{folder}/o"],
            capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        if architecture == HOPPER:
            check_hopper(run.stderr, f"{folder}/o")
    return parse(run.stderr)


def check_hopper(said, compiled):
    """That the products of four warps are what the tensor cores run, one after the other without a wait."""
    if "wgmma.mma_async instructions are serialized" in said:
        sys.exit("sm_90a: ptxas serializes products of four warps:\n" + said)
    dump = cuobjdump()
    if not dump:
        print("skipped: the machine code for sm_90a is not looked into: no cuobjdump is here or could be installed (CUOBJDUMP names one)")
        return
    code = subprocess.run([dump, "-sass", compiled], capture_output=True, text=True, check=True).stdout
    require_hgmma(hgmma_counts(code))


def require_hgmma(counts):
    missing = [k for k, n in counts.items() if not n]
    if missing or not counts:
        sys.exit(f"sm_90a: no HGMMA in {', '.join(missing) or 'any kernel: none is named ' + GROUPED}")
    print(f"sm_90a: HGMMA in {len(counts)} kernels, {sum(counts.values())} in all")


def cuobjdump():
    """Its path, or None."""
    beside = os.path.join(os.path.dirname(NVCC), "cuobjdump")
    known = os.environ.get("CUOBJDUMP") or shutil.which("cuobjdump") or (beside if os.access(beside, os.X_OK) else None)
    return known or installed_cuobjdump()


def installed_cuobjdump():
    tools = f"{ROOT}/tools"
    run = subprocess.run(["sh", "-euc", '. "$0/environment.sh"; environment "$0/requirements-cuobjdump.txt"', tools],
                         stdout=subprocess.PIPE, text=True)
    if run.returncode:
        return None
    venv = os.path.dirname(os.path.dirname(run.stdout.strip()))
    return next(iter(glob.glob(f"{venv}/lib/python3*/site-packages/nvidia/cu*/bin/cuobjdump")), None)


def hgmma_counts(code):
    """{kernel: instructions} of the kernels that must have some."""
    parts = re.split(r"Function : (\w+)", code)[1:]
    return {name_of(n): body.count("HGMMA.") for n, body in zip(parts[::2], parts[1::2]) if GROUPED in n}


def parse(text):
    pattern = re.compile(r"Compiling entry function '(\w+)' for '\w+'\n.*?(\d+) bytes stack frame, (\d+) bytes spill "
                         r"stores, (\d+) bytes spill loads\n.*?Used (\d+) registers", re.S)
    return {name_of(m[1]): (int(m[5]), int(m[2]), int(m[3]) + int(m[4])) for m in pattern.finditer(text)}


def name_of(symbol):
    text = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout.strip()
    text = re.sub(r"\(awq::cuda::\w+\)$", "", re.sub(r"^void ", "", text))
    return re.sub(r"\(int\)", "", text.replace("awq::cuda::", ""))


def table(architectures):
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        reports = dict(zip(architectures, pool.map(report, architectures)))
    rows = ["| kernel | " + " | ".join("sm_" + a for a in architectures) + " |", "|---" * (len(architectures) + 1) + "|"]
    for kernel in sorted(reports[architectures[0]]):
        rows.append(f"| `{kernel}` | " + " | ".join(cell(*reports[a][kernel]) for a in architectures) + " |")
    return "\n".join(rows) + "\n"


def cell(registers, stack, spill):
    return f"{registers}" + (f", {spill} bytes spilled" if spill else f", {stack} bytes of stack" if stack else "")


def release():
    return re.search(r"release ([0-9.]+)", subprocess.run([NVCC, "--version"], capture_output=True, text=True).stdout)[1]


def main():
    if not os.access(NVCC, os.X_OK):
        print(f"skipped: the CUDA kernels are not compiled: {NVCC} is not there")
        return 0
    update = "--update" in sys.argv
    architectures = [a for a in sys.argv[1:] if a != "--update"]
    text = table(architectures or ARCHITECTURES)
    print(text, end="")
    if architectures:
        return 0
    with open(PAGE) as f:
        page = f.read()
    begin = page.index("| kernel | sm_")
    shown = re.match(r"(\|.*\n)+", page[begin:])[0]
    if update:
        with open(PAGE, "w") as f:
            f.write(page.replace(shown, text))
    elif f"(nvcc {release()})" in page and shown != text:
        print(f"{PAGE} shows another table; --update writes this one", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
