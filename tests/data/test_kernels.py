import subprocess
import sys

from rheobase.data.kernels import kernels


def test_kernels_are_loaded_once():
    assert kernels() is kernels()
    assert kernels().__name__.startswith("rheobase_kernel_")
    assert kernels().count_pixels.targetoptions["nogil"]


def test_importing_the_data_layer_does_not_import_numba():
    code = "import sys, torch; import rheobase.data; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
