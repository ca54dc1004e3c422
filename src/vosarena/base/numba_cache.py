"""Compiled inner loops: numba with a cache that works for installed packages, read-only checkouts and many processes.

numba's default, `__pycache__` next to the source, fails where the package is read-only, and its index file is not safe
for several processes that compile at once. Therefore the cache is in the user's cache folder (`NUMBA_CACHE_DIR`
overrides it, as usual), with one folder per CPU type because different machines may share a home. One process compiles
while the others wait for its result.
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
from filelock import FileLock
from llvmlite import binding as llvm
from numba.core import config
from platformdirs import user_cache_path


def jit(signature: str, contract: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for exactly one signature, without the GIL, cached on disk if a folder is writable.

    Args:
        signature: Types of the result and the arguments, as numba writes them.
        contract: Whether products and sums of floats become fused operations, with one rounding.

    Returns:
        A decorator.
    """

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = _cache_folder()
        with _locked(folder), _numba_cache_dir(folder):
            compiled: Callable[..., Any] = numba.njit(
                signature,
                nogil=True,
                error_model="numpy",
                fastmath={"contract"} if contract else False,
                cache=folder is not None,
            )(function)
            return compiled

    return compile_function


@cache
def _cache_folder() -> Path | None:
    """Return a private folder for compiled code, or None if none is writable (then every process compiles)."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    bases = [user_cache_path("vosarena"), Path(tempfile.gettempdir(), f"vosarena-{user}")]
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
    """Whether only this user can put files there, because cached code is executed.

    The folder must belong to the user, and nobody else may write to it or replace it or one of its parents. In a folder
    such as /tmp (sticky), users cannot replace files of others.
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
    """Let one process compile; without a lock, the worst case is to compile twice."""
    with contextlib.ExitStack() as stack:
        if folder is not None:
            with contextlib.suppress(OSError, NotImplementedError):  # some network file systems have no locks
                stack.enter_context(FileLock(folder / "lock"))
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
