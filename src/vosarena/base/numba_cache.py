"""Compiled inner loops: numba with a cache that works for installed packages, read-only checkouts and many processes.

numba's own choice, `__pycache__` beside the source, fails where the package is read-only, and its index file is not
made for several processes that compile at once. So the cache goes to the user's cache folder (`NUMBA_CACHE_DIR`
overrides it, as everywhere), one folder per CPU type because homes are shared between unlike machines, and one
process compiles while the others wait for what it caches.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding as llvm
from numba.core import config

try:
    import fcntl
except ImportError:  # Windows: no lock, the worst case is compiling twice
    fcntl = None  # type: ignore[assignment]


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: compile for exactly one signature, without the GIL, cached on disk where a folder can be written."""

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = _cache_folder()
        with _locked(folder), _numba_cache_dir(folder):
            return numba.njit(signature, nogil=True, error_model="numpy", cache=folder is not None)(function)

    return compile_function


@cache
def _cache_folder() -> Path | None:
    """A private folder for compiled code, or None where nothing can be written (then every process compiles)."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    user = os.getuid() if hasattr(os, "getuid") else "user"
    bases = [Path(home, "vosarena"), Path(tempfile.gettempdir(), f"vosarena-{user}")]
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        bases.insert(0, Path(chosen))
    for base in bases:
        folder = base / "numba" / (llvm.get_host_cpu_name() or "cpu")
        try:
            for new in (*reversed(folder.parents), folder):
                if not new.exists():  # mkdir(parents=True) would give parents the mode of the umask
                    new.mkdir(exist_ok=True, mode=0o700)
            if not _is_private(folder.resolve()):
                continue
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


def _is_private(folder: Path) -> bool:
    """Whether only this user can put files there: cached code is executed.

    The folder must be the user's, and nobody else may write to it or replace it or one above it; in a folder like /tmp
    (sticky) others cannot replace what is not theirs.
    """
    if not hasattr(os, "getuid"):  # Windows
        return True
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        return False
    return not any(
        mode & 0o022 and not mode & stat.S_ISVTX for mode in (path.stat().st_mode for path in folder.parents)
    )


@contextlib.contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    if folder is None or fcntl is None:
        yield
        return
    with (folder / "lock").open("w") as handle:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _numba_cache_dir(folder: Path | None) -> Iterator[None]:
    previous = config.CACHE_DIR  # type: ignore[attr-defined]
    if folder is not None:
        config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        config.CACHE_DIR = previous  # type: ignore[attr-defined]
