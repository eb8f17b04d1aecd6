"""Kernels of Python loops: compiled once per machine, kept on the disk, shared by processes."""

import hashlib
import importlib.util
import linecache
import os
import sys
import threading
import types
import warnings
from functools import lru_cache
from pathlib import Path

from rheobase.scan import emit_cpu

compiling = threading.Lock()


def kernel_folder() -> Path:
    """Where generated kernels are kept: `$RHEOBASE_KERNELS`, default `~/.cache/rheobase/kernels`."""
    return Path(os.environ.get("RHEOBASE_KERNELS") or Path.home() / ".cache" / "rheobase" / "kernels")


@lru_cache(maxsize=1)
def toolchain() -> str:
    """Versions of emitter and compiler, and the kind of processor."""
    import llvmlite
    import numba
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    return (
        f"{emit_cpu.EMITTER} {numba.__version__} {llvmlite.__version__} "
        f"{get_host_cpu_name()} {get_host_cpu_features().flatten()}"
    )


def kernel_module(source: str, toolchain: str) -> types.ModuleType:
    """Import generated source, from the kernel folder if it can be written there, else from memory.

    `toolchain` says what else the kernel depends on: versions of emitter and compiler, kind of processor.
    """
    digest = hashlib.sha256((source + toolchain).encode()).hexdigest()[:24]
    name = f"rheobase_kernel_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    path = kernel_folder() / f"{name}.py"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
            temporary.write_text(source)
            try:
                os.link(temporary, path)  # never replaces: numba's index goes by the file's time
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        module = _execute(name, path)
    except OSError as error:
        warnings.warn(
            f"kernels cannot be kept in {path.parent} ({error}); they are compiled again in every process; "
            f"set RHEOBASE_KERNELS to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        module = types.ModuleType(name)
        module.__dict__["CACHE"] = False
        linecache.cache[f"<{name}>"] = len(source), None, source.splitlines(keepends=True), f"<{name}>"
        exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    sys.modules[name] = module
    return module


@lru_cache
def kernels_of(path: Path) -> types.ModuleType:
    """The module of loops written in a file, imported when first asked for and kept like a generated one."""
    text = path.read_text()
    with compiling:
        return kernel_module(text, toolchain())


def _execute(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["CACHE"] = True
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
