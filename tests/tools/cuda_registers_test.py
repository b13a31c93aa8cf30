"""tools/cuda_registers.py against made-up reports: no compiler, no GPU."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
import cuda_registers  # noqa: E402

GROUPED = "_ZN3awq4cuda12group_tokensINS0_3F16ELi4EEEvNS0_10LinearArgsE"
OTHER = "_ZN3awq4cuda10float_rowsENS0_10LinearArgsE"
PRODUCT = "  /*9020*/  HGMMA.64x128x16.F32 R24, R88, gdesc[UR8], R24 ;  /* 0x01e0000858187df0 */\n"
PTXAS = """ptxas info    : Compiling entry function '{}' for 'sm_90a'
ptxas info    : Function properties for it
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 112 registers, used 0 barriers, 496 bytes cmem[0]
"""


def dump(**bodies):
    return "".join(f"\t\tFunction : {name}\n{body}" for name, body in bodies.items())


class MachineCode(unittest.TestCase):
    def test_counts_products_of_the_kernels_that_must_have_some(self):
        counts = cuda_registers.hgmma_counts(dump(**{OTHER: "  FFMA R1, R2, R3, R4 ;\n", GROUPED: PRODUCT * 4}))
        self.assertEqual(counts, {"group_tokens<F16, 4>": 4})
        cuda_registers.require_hgmma(counts)

    def test_a_kernel_without_them_ends_it(self):
        with self.assertRaises(SystemExit) as e:
            cuda_registers.require_hgmma(cuda_registers.hgmma_counts(dump(**{GROUPED: "  HMMA.16816.F32 R1 ;\n"})))
        self.assertIn("no HGMMA in group_tokens<F16, 4>", str(e.exception))

    def test_code_without_the_kernels_ends_it(self):
        with self.assertRaises(SystemExit) as e:
            cuda_registers.require_hgmma(cuda_registers.hgmma_counts(dump(**{OTHER: PRODUCT})))
        self.assertIn("none is named group_tokens", str(e.exception))


class Report(unittest.TestCase):
    def test_registers_stack_and_spills(self):
        self.assertEqual(cuda_registers.parse(PTXAS.format(OTHER)), {"float_rows": (112, 16, 12)})
        self.assertEqual(cuda_registers.cell(112, 16, 12), "112, 12 bytes spilled")
        self.assertEqual(cuda_registers.cell(40, 0, 0), "40")


if __name__ == "__main__":
    unittest.main()
