"""Memory that is freed stays with the process."""

import ctypes
from contextlib import suppress
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST = 32 * 2**20  # bytes; the largest threshold that glibc accepts


@cache
def keep_freed_memory() -> None:
    """Let the C library keep freed blocks, up to 128 MiB, instead of giving them back to the operating system.

    Work that allocates a few megabytes again and again, such as decoding masks, otherwise waits while the operating
    system maps each page anew, which can take longer than the work. Does nothing where the C library is not glibc.
    """
    with suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 4 * _LARGEST)
