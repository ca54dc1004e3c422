"""Machine code is kept in folders that nobody else can change, and loaded without numba."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from vosarena.base import compiled


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    compiled._cache_folder.cache_clear()
    yield tmp_path / "cache"
    compiled._cache_folder.cache_clear()


def test_a_new_folder_is_private_whatever_the_umask(chosen):
    previous = os.umask(0)
    try:
        folder = compiled._cache_folder()
    finally:
        os.umask(previous)
    assert folder.is_relative_to(chosen)
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent, chosen)} == {0o700}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_change_is_not_used(chosen, level, mode):
    folder = compiled._cache_folder()
    assert folder.is_relative_to(chosen)
    (folder, *folder.parents)[level].chmod(mode)
    compiled._cache_folder.cache_clear()
    other = compiled._cache_folder()
    assert other is None or not other.is_relative_to(chosen)


def test_a_sticky_parent_like_tmp_is_fine(chosen):
    folder = compiled._cache_folder()
    chosen.chmod(0o1777)
    compiled._cache_folder.cache_clear()
    assert compiled._cache_folder() == folder


LOOP = """
from vosarena.base.compiled import jit

@jit("i8(u1[:,::1], f8, i8)")
def total(pixels, factor, more):
    found = 0
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            found += pixels[y, x]
    return int(found * factor) + more
"""

CALL = """
import sys
from importlib.util import find_spec
import numpy as np
from vosarena.base.compiled import compiled
print(compiled("loop", "total")(np.arange(6, dtype=np.uint8).reshape(2, 3), 2.0, -1), "numba" in sys.modules)
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("io.run_kernels", "inflate_runs"),
        ("io.run_kernels", "find_runs"),
        ("metrics.kernels", "count"),
        ("io.resize_vector_kernels", "blend_rows"),
    ],
)
def test_machine_code_calls_nothing_of_numba(module, name):
    """In a process without numba, such a call would end it."""
    if "vector" in module and not compiled.cpu_has("avx512vbmi", "avx512vnni"):
        pytest.skip("this CPU has no AVX-512 with VBMI and VNNI")
    *_, code = compiled._machine_code(f"vosarena.{module}", name)
    assert not re.search(rb"(NRT|numba)_\w+", code)


def test_machine_code_is_made_once_and_made_again_if_damaged(chosen, tmp_path):
    def call() -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
        return subprocess.check_output([sys.executable, "-c", CALL], env=environment, text=True).split()

    (tmp_path / "loop.py").write_text(LOOP)
    assert call() == ["29", "True"]
    assert call() == ["29", "False"]
    (file,) = chosen.rglob("*.bin")
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    assert call() == ["29", "True"]
    (tmp_path / "loop.py").write_text(LOOP.replace("+ more", "- more"))
    assert call() == ["31", "True"]


def test_code_is_made_again_if_a_module_with_its_constants_changes():
    sources = compiled._sources(find_spec("vosarena.io.resize_kernels").origin)
    for part in ("def blend_levels", "LEVEL_REST = ", "def jit"):  # of the module, its tables and `base.compiled`
        assert part in sources
