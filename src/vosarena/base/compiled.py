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
import re
import stat
import struct
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

_FAILED = -(2**63)  # returned instead of a result
# Takes the arguments from memory, because Python needs longer to pass dozens of them than some loops take. 0 and -2 are
# numba's codes for a result and for None, others are errors.
_CALL = """
declare i32 @"{symbol}"(ptr, ptr{types})
define i64 @call(ptr %arguments) {{
  %result = alloca i64
  %error = alloca ptr
  store i64 0, ptr %result
  {loads}
  %code = call i32 @"{symbol}"(ptr %result, ptr %error{values})
  %returned = icmp eq i32 %code, 0
  %none = icmp eq i32 %code, -2
  %good = or i1 %returned, %none
  %value = load i64, ptr %result
  %answer = select i1 %good, i64 %value, i64 {failed}
  ret i64 %answer
}}
"""
_LLVM_TYPES = {"q": "i64", "d": "double"}  # by format of `struct`
_Byte = ctypes.c_char
_INTEGER, _FLOAT = struct.Struct("q"), struct.Struct("d")
_ARRAYS = [struct.Struct(f"{5 + 2 * ndim}q") for ndim in range(4)]
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

    symbol, kinds, code = _machine_code(module, name)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_call_assembly(symbol, kinds)), target)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    native = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(engine.get_function_address("call"))
    size = 8 * len(kinds)

    def call(*arguments: Any) -> int:
        packed = b"".join(map(as_argument, arguments))
        result: int = native(packed) if len(packed) == size else _FAILED
        if result == _FAILED:
            raise RuntimeError(f"{module}.{name} failed")
        return result

    return call


def as_argument(value: Any) -> bytes:
    """Return an argument as numba passes it: an array as owner, parent, size, item size, data, shape and strides.

    A compiled function does that by itself. For arrays that are used often it is quicker to do it once; they must be
    kept alive meanwhile. Bytes are arguments already.
    """
    if isinstance(value, np.ndarray):
        try:
            where = ctypes.addressof(_Byte.from_buffer(value.data))  # three times as fast as `ctypes.data`
        except (TypeError, ValueError):  # read-only or empty
            where = value.ctypes.data
        return _ARRAYS[value.ndim].pack(0, 0, value.size, value.itemsize, where, *value.shape, *value.strides)
    if isinstance(value, bytes):
        return value
    return _FLOAT.pack(value) if isinstance(value, float) else _INTEGER.pack(value)


def _call_assembly(symbol: str, kinds: str) -> str:
    """Return the LLVM code of `call`, which passes arguments of these kinds, packed by `struct`, to a function."""
    types = [_LLVM_TYPES[kind] for kind in kinds]
    loads = [
        f"%p{i} = getelementptr i64, ptr %arguments, i64 {i}\n  %a{i} = load {kind}, ptr %p{i}"
        for i, kind in enumerate(types)
    ]
    return _CALL.format(
        symbol=symbol,
        types="".join(f", {kind}" for kind in types),
        loads="\n  ".join(loads),
        values="".join(f", {kind} %a{i}" for i, kind in enumerate(types)),
        failed=_FAILED,
    )


def _machine_code(module: str, name: str) -> tuple[str, str, bytes]:
    """Return the symbol of a function, the kinds of its arguments and its machine code, from the cache or compiled."""
    import llvmlite

    folder = _cache_folder()
    if folder is None:
        return _compile(module, name)
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    version = f"{llvmlite.__version__} {_cpu_features()} {_sources(spec.origin)}"
    file = folder / f"{module}.{name}-{hashlib.sha256(version.encode()).hexdigest()[:16]}.bin"
    with contextlib.suppress(OSError, ValueError):
        return _read(file)
    with _locked(folder):
        with contextlib.suppress(OSError, ValueError):
            return _read(file)
        symbol, kinds, code = _compile(module, name)
        content = f"{symbol} {kinds}\n".encode() + code
        with contextlib.suppress(OSError), atomic_path(file) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        return symbol, kinds, code


def _sources(file: str) -> str:
    """Return the text of a module and of those that it imports from this package: `jit`, and constants."""
    text = Path(file).read_text(encoding="utf-8")
    imported = (find_spec(name) for name in re.findall(r"^from (vosarena\.\S+) import", text, re.MULTILINE))
    files = (spec.origin for spec in imported if spec and spec.origin)
    return "".join([text, *(Path(name).read_text(encoding="utf-8") for name in files)])


def _read(file: Path) -> tuple[str, str, bytes]:
    """Return what a file of the cache holds. Raises ValueError if it is damaged."""
    data = file.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise ValueError
    first, _, code = data[32:].partition(b"\n")
    symbol, kinds = first.decode().split()
    return symbol, kinds, code


def _cpu_features() -> str:
    """Return the features that loops are compiled for, as LLVM writes them: `NUMBA_CPU_FEATURES`, or this CPU's.

    LLVM uses only half of each register of AVX-512, because whole ones slowed down the first CPUs that had them; those
    that know VBMI2 are not slowed down. Resizing is up to 1.7 times as fast with whole registers.
    """
    if chosen := os.environ.get("NUMBA_CPU_FEATURES"):
        return chosen
    from llvmlite import binding as llvm

    features: str = llvm.get_host_cpu_features().flatten()
    return f"{features},-prefer-256-bit" if "+avx512vbmi2" in features else features


def cpu_has(*features: str) -> bool:
    """Whether loops may use instructions of these names, as LLVM knows them."""
    return {f"+{feature}" for feature in features} <= {*_cpu_features().split(",")}


def _compile(module: str, name: str) -> tuple[str, str, bytes]:
    from numba import types
    from numba.core import config

    config.CPU_FEATURES = _cpu_features()  # type: ignore[attr-defined]
    ((signature, result),) = getattr(import_module(module), name).overloads.items()
    kinds = (
        "q" * (5 + 2 * kind.ndim) if isinstance(kind, types.Array) else "d" if isinstance(kind, types.Float) else "q"
        for kind in signature
    )
    return result.fndesc.llvm_func_name, "".join(kinds), result.library._get_compiled_object()


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
