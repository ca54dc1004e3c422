"""Compiled inner loops: numba compiles them once, and later processes load their machine code without numba.

To import numba takes longer than to score a few sequences, and its own cache needs it imported. Therefore the machine
code of each loop is a file in the user's cache folder (`NUMBA_CACHE_DIR` overrides it), with one folder per CPU type
because different machines may share a home. llvmlite, with which numba makes machine code, loads it. One process
compiles while the others wait for its result.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from vosarena.base.files import atomic_path

Argument = tuple[int | float, ...]

_RETURNED = (0, -2)  # numba's codes for a result and for None; others are errors
_Byte = ctypes.c_char
_engines: list[Any] = []  # they own the machine code


def jit(signature: str, contract: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for exactly one signature, when its module is imported. `compiled` gives the result.

    Args:
        signature: Types of the result and the arguments, as numba writes them. The result is an integer or nothing.
        contract: Whether products and sums of floats become fused operations, with one rounding.

    Returns:
        A decorator.
    """
    import numba

    # Without the wrappers and the memory of numba's runtime, the machine code needs nothing of numba.
    bare: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    fast = {"contract"} if contract else False
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(signature, error_model="numpy", fastmath=fast, **bare)
    return decorator


@cache
def compiled(module: str, name: str) -> Callable[..., int]:
    """Return a function that `jit` compiled, as one that runs without the GIL.

    Args:
        module: Name of the module that defines it. It is imported only if the function is not in the cache.
        name: Name of the function.

    Returns:
        A function of C-contiguous arrays, whole numbers and floats, as its signature says, which are not checked.
    """
    from llvmlite import binding as llvm  # 45 MiB, which the planning of a run does not need

    symbol, code = _machine_code(module, name)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    native = ctypes.CFUNCTYPE(ctypes.c_int32)(engine.get_function_address(symbol))

    def call(*arguments: Any) -> int:
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        flat: list[int | float] = []
        for value in arguments:
            if isinstance(value, int):
                flat.append(value)
            else:
                flat += as_argument(value)
        if not native.argtypes:  # ctypes is faster if it knows the types
            kinds = [ctypes.c_double if isinstance(part, float) else ctypes.c_ssize_t for part in flat]
            native.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *kinds)
        if native(ctypes.byref(result), ctypes.byref(error), *flat) not in _RETURNED:
            raise RuntimeError(f"{module}.{name} failed")
        return result.value

    return call


def as_argument(value: Any) -> Argument:
    """Return an argument as numba passes it: an array as owner, parent, size, item size, data, shape and strides.

    A compiled function does that by itself. For arrays that are used often it is quicker to do it once; they must be
    kept alive meanwhile.
    """
    if isinstance(value, tuple):
        return value
    if isinstance(value, np.ndarray):
        quick = value.flags.writeable and value.size  # three times as fast as `ctypes.data`
        where = ctypes.addressof(_Byte.from_buffer(value.data)) if quick else value.ctypes.data
        return (0, 0, value.size, value.itemsize, where, *value.shape, *value.strides)
    return (value,)


def _machine_code(module: str, name: str) -> tuple[str, bytes]:
    """Return the symbol of a function and its machine code, from the cache or compiled now."""
    import llvmlite
    from llvmlite import binding as llvm

    folder = _cache_folder()
    if folder is None:
        return _compile(module, name)
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    features = llvm.get_host_cpu_features().flatten()
    version = f"{llvmlite.__version__} {features} {Path(spec.origin).read_text(encoding='utf-8')}"
    file = folder / f"{module}.{name}-{hashlib.sha256(version.encode()).hexdigest()[:16]}.bin"
    with contextlib.suppress(OSError, ValueError):
        return _read(file)
    with _locked(folder):
        with contextlib.suppress(OSError, ValueError):
            return _read(file)
        symbol, code = _compile(module, name)
        content = symbol.encode() + b"\n" + code
        with contextlib.suppress(OSError), atomic_path(file) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        return symbol, code


def _read(file: Path) -> tuple[str, bytes]:
    """Return what a file of the cache holds. Raises ValueError if it is damaged."""
    data = file.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError
    symbol, _, code = data[32:].partition(b"\n")
    return symbol.decode(), code


def _compile(module: str, name: str) -> tuple[str, bytes]:
    ((_, result),) = getattr(import_module(module), name).overloads.items()
    return result.fndesc.llvm_func_name, result.library._get_compiled_object()


@cache
def _cache_folder() -> Path | None:
    """Return a private folder for compiled code, or None if none is writable (then every process compiles)."""
    from llvmlite import binding as llvm

    cpu = llvm.get_host_cpu_name() or "cpu"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    bases = [user_cache_path("vosarena"), Path(tempfile.gettempdir(), f"vosarena-{user}")]
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        bases.insert(0, Path(chosen))
    for base in bases:
        folder = base / "numba" / cpu
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
def _locked(folder: Path) -> Iterator[None]:
    """Let one process compile; without a lock, the worst case is to compile twice."""
    from filelock import FileLock

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # some network file systems have no locks
            stack.enter_context(FileLock(folder / "lock"))
        yield
