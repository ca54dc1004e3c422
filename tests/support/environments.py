"""Environments with packages that do not fit in this one, such as forks whose module is called `sam2` too."""

import subprocess
import sys
import sysconfig
from pathlib import Path


def environment(folder: Path, *packages: str, shared: bool = True) -> Path:
    """The interpreter of a new environment with these packages. shared: it also sees the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    purelib = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    if shared:
        (Path(purelib) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if packages:
        install(python, *packages)
    return python


def install(python: Path, *packages: str) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    done = subprocess.run([*pip, "--no-deps", "--no-build-isolation", *packages], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr)
