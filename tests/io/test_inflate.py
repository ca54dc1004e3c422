"""The decompression in compiled loops against zlib: all kinds of blocks and codes, and damaged streams."""

import zlib

import numpy as np
import pytest
from isal import isal_zlib

from vosarena.base.compiled import compiled
from vosarena.io.png import _INFLATE_BUFFER, _KERNELS

STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
MARGIN = 512  # bytes around the output that must stay as they are


def inflate(stream: bytes, size: int) -> tuple[int, bytes, int]:
    """Number of bytes, the bytes, and how much of the stream was read; nothing else may be written."""
    memory = np.full(size + 2 * MARGIN, 171, np.uint8)
    buffer = np.empty(_INFLATE_BUFFER, np.int32)
    out = memory[MARGIN : MARGIN + size]
    length = compiled(_KERNELS, "inflate")(np.frombuffer(stream, np.uint8), out, buffer)
    assert (memory[:MARGIN] == 171).all() and (memory[MARGIN + size :] == 171).all()
    return length, out[: max(length, 0)].tobytes(), int(buffer[0])


def content(rng: np.random.Generator, kind: int) -> bytes:
    """Noise, few values, runs, values of very different frequency (which have long codes), repeated pieces."""
    n = int(rng.integers(1, 4000))
    if kind == 0:
        return rng.integers(0, 256, n, dtype=np.uint8).tobytes()
    if kind == 1:
        return rng.integers(0, 3, n, dtype=np.uint8).tobytes()
    if kind == 2:
        return np.repeat(rng.integers(0, 256, 60, dtype=np.uint8), rng.integers(1, 900, 60)).tobytes()
    if kind == 3:
        return np.minimum(rng.geometric(0.5, 4 * n) ** 2, 255).astype(np.uint8).tobytes()
    return np.tile(rng.integers(0, 256, int(rng.integers(1, 60)), dtype=np.uint8), n // 20 + 1).tobytes()


@pytest.mark.parametrize("kind", range(5))
def test_streams_equal_zlib(kind: int) -> None:
    rng = np.random.default_rng(kind)
    for strategy in STRATEGIES:
        for level in (0, 1, 6, 9):
            data = content(rng, kind)
            packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
            stream = packer.compress(data) + packer.flush()
            assert inflate(stream, len(data)) == (len(data), data, len(stream) - 4)
            assert inflate(stream, len(data) + 7)[0] == len(data)
            assert inflate(stream, len(data) - 1)[0] == -1
    data = content(rng, kind)
    assert inflate(isal_zlib.compress(data, 1), len(data))[1] == data


def test_damaged_streams_write_nothing_outside() -> None:
    rng = np.random.default_rng(9)
    for index in range(300):
        data = content(rng, index % 5)[:6000]
        stream = bytearray(zlib.compress(data, int(rng.integers(0, 10))))
        assert inflate(bytes(stream[: int(rng.integers(0, len(stream) - 4))]), len(data))[0] == -1
        for _ in range(3):
            stream[int(rng.integers(2, len(stream)))] ^= 1 << int(rng.integers(8))
        inflate(bytes(stream), len(data))
    for header in (b"", b"\x78", b"\x79\x9c", b"\x78\x9d", b"\x78\xbb", b"\x88\x1c"):
        assert inflate(header + bytes(20), 10)[0] == -1
