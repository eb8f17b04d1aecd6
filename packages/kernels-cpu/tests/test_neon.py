"""The generic kernels compiled for ARM, where they are NEON, and run in an emulator."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


@pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"{COMPILER} and {EMULATOR} are missing (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)",
)
def test_kernels_on_arm(tmp_path):
    sources = sorted(map(str, (HERE.parent / "csrc").glob("*.c")))
    program = str(tmp_path / "check")
    flags = [
        "-O3",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-static",
        "-DRK_ISA=generic",
        "-DRK_ONCE",
        f"-I{HERE.parent / 'csrc'}",
    ]
    subprocess.run([COMPILER, *flags, str(HERE / "check.c"), *sources, "-lm", "-o", program], check=True)
    found = subprocess.run([EMULATOR, program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "0 of 32 kernels differed" in found.stdout
