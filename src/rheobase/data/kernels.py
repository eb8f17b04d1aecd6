"""The compiled loops over events, imported when first asked for: numba is not part of importing the data layer."""

from functools import lru_cache
from pathlib import Path
from types import ModuleType


@lru_cache(maxsize=1)
def kernels() -> ModuleType:
    """`bin_kernels`, its machine code kept in `$RHEOBASE_KERNELS` like that of the generated kernels."""
    from rheobase.scan.run_cpu import compiling, kernel_module, toolchain

    text = Path(__file__).with_name("bin_kernels.py").read_text()
    with compiling:
        return kernel_module(text, toolchain())
