"""Runs of equal labels against pixels, and the decompression to runs against zlib."""

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.mask_makers import blobs, odd_pairs
from vosarena.io import png
from vosarena.io.masks import decode_mask
from vosarena.io.runs import Runs

STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)


def rows_of(labels: np.ndarray) -> np.ndarray:
    return np.pad(labels, ((0, 0), (1, 0)))


def compress(data: bytes, level: int, strategy: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    return compressor.compress(data) + compressor.flush()


def assert_equal(runs: Runs, labels: np.ndarray) -> None:
    assert runs.starts[0] == 0 and (np.diff(runs.starts) > 0).all() and len(runs.starts) == len(runs.labels) + 1
    np.testing.assert_array_equal(runs.rows(), rows_of(labels))


def test_runs_hold_the_pixels() -> None:
    rng = np.random.default_rng(0)
    for pair in odd_pairs(rng, 120):
        for labels in pair:
            noisy = np.pad(labels, ((0, 0), (1, 0)), constant_values=3)  # the first column is ignored
            assert_equal(Runs.of_rows(noisy), labels)


def test_streams_of_all_compressors() -> None:
    """Codes of all kinds, references of all distances, maps of more runs than there is room for."""
    rng, refused = np.random.default_rng(1), 0
    maps = [labels for pair in odd_pairs(rng, 80) for labels in pair]
    maps += [
        np.zeros((400, 300), np.uint8),
        blobs(rng, 400, 300, 40, 255),
        np.repeat(rng.integers(0, 9, (150, 300), np.uint8), 3, axis=1),
    ]
    for labels in maps:
        rows = rows_of(labels)
        streams = [compress(rows.tobytes(), level, strategy) for level in (1, 9) for strategy in STRATEGIES]
        streams += [bytes(png.zlib.compress(rows, 1))]
        for stream in streams:
            runs = Runs.of_stream(stream, *labels.shape)
            if runs is None:
                refused += 1
            else:
                assert_equal(runs, labels)
    assert refused < 0.1 * 11 * len(maps)


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_rows_with_a_filter_are_left_to_others(kind: int) -> None:
    rows = rows_of(np.ones((20, 30), np.uint8))
    rows[7, 0] = kind
    assert Runs.of_stream(zlib.compress(rows.tobytes()), 20, 30) is None


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_damaged_streams(draw: st.DataObject) -> None:
    """Flipped bits, also with a checksum that is right again: nothing, or what zlib makes of it."""
    rng = np.random.default_rng(draw.draw(st.integers(0, 20)))
    rows = rows_of(blobs(rng, 40, 70, draw.draw(st.sampled_from((0, 1, 5)))))
    stream = bytearray(compress(rows.tobytes(), draw.draw(st.integers(1, 9)), draw.draw(st.sampled_from(STRATEGIES))))
    for _ in range(draw.draw(st.integers(1, 3))):
        stream[draw.draw(st.integers(0, len(stream) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    inflater = zlib.decompressobj(-15)
    try:
        plain = inflater.decompress(bytes(stream[2:]))
        stream = stream[: len(stream) - len(inflater.unused_data)] + zlib.adler32(plain).to_bytes(4, "big")
    except zlib.error:
        plain = b""
    runs = Runs.of_stream(bytes(stream[: draw.draw(st.integers(len(stream) - 4, len(stream)))]), 40, 70)
    assert runs is None or runs.rows().tobytes() == plain


def test_files_as_runs_and_as_pixels() -> None:
    rng = np.random.default_rng(2)
    for labels in (blobs(rng, 300, 400, 3), rng.integers(0, 99, (300, 400), np.uint8)):  # sparse, dense
        data = png.encode_palette(labels, bytes(768))
        assert_equal(png.decode_runs(data), labels)
        np.testing.assert_array_equal(decode_mask(data, "x"), labels)


def test_labels_become_others() -> None:
    table = np.zeros(256, np.uint8)
    table[[1, 2]] = 1, 1
    labels = np.array([[0, 1, 2, 3], [2, 2, 1, 1]], np.uint8)
    runs = Runs.of_rows(rows_of(labels)).map(table)
    np.testing.assert_array_equal(runs.rows(), rows_of(table[labels]))
    assert runs.shape == (2, 4)
