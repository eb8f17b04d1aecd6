"""The compiled loops of the data layer, imported when first asked for: numba is not part of importing it."""

from pathlib import Path
from types import ModuleType


def kernels(name: str = "bin_kernels") -> ModuleType:
    """The module of loops of that name in this folder, its machine code kept in `$RHEOBASE_KERNELS` like that of the
    generated kernels."""
    from rheobase.scan.kernels import kernels_of

    return kernels_of(Path(__file__).with_name(f"{name}.py"))
