"""Compiled code is loaded only from folders that nobody else can change."""

import os

import pytest

from vosarena.base import numba_cache


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    numba_cache._cache_folder.cache_clear()
    yield tmp_path / "cache"
    numba_cache._cache_folder.cache_clear()


def test_a_new_folder_is_private_whatever_the_umask(chosen):
    previous = os.umask(0)
    try:
        folder = numba_cache._cache_folder()
    finally:
        os.umask(previous)
    assert folder.is_relative_to(chosen)
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent, chosen)} == {0o700}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_change_is_not_used(chosen, level, mode):
    folder = numba_cache._cache_folder()
    assert folder.is_relative_to(chosen)
    (folder, *folder.parents)[level].chmod(mode)
    numba_cache._cache_folder.cache_clear()
    other = numba_cache._cache_folder()
    assert other is None or not other.is_relative_to(chosen)


def test_a_sticky_parent_like_tmp_is_fine(chosen):
    folder = numba_cache._cache_folder()
    chosen.chmod(0o1777)
    numba_cache._cache_folder.cache_clear()
    assert numba_cache._cache_folder() == folder
