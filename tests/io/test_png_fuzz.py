"""The PNG reader against Pillow: the same samples, or a MaskError, whatever the bytes are."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vosarena.base.errors import MaskError
from vosarena.io.masks import decode_mask

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
fuzz = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int, colour: int, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


@st.composite
def chunks(draw, colours=(0, 3)) -> list[bytes]:
    """A valid PNG as a list of chunks: any kind, filters and interlace, its image data in several pieces."""
    colour = draw(st.sampled_from(colours))
    depth = draw(st.sampled_from(DEPTHS[colour]))
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    interlaced = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    raw = b""
    for top, left, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // right)
        if rows > 0 and columns > 0:
            size = (columns * depth * CHANNELS[colour] + 7) // 8
            filters = rng.integers(0, 5, (rows, 1), dtype=np.uint8)
            raw += np.hstack([filters, rng.integers(0, 256, (rows, size), dtype=np.uint8)]).tobytes()
    stream = zlib.compress(raw, draw(st.integers(0, 9)))
    cut = draw(st.integers(0, len(stream)))
    extra = [chunk(b"tEXt", b"a\0b")] if draw(st.booleans()) else []
    palette = [chunk(b"PLTE", bytes(range(3)) * 2**depth)] if colour == 3 else []
    data = [chunk(b"IDAT", stream[:cut]), chunk(b"IDAT", stream[cut:])]
    return [header(width, height, depth, colour, int(interlaced)), *extra, *palette, *data, chunk(b"IEND", b"")]


def by_pillow(data: bytes) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.load()
        assert image.mode in ("1", "L", "P"), image.mode
        return np.asarray(image).astype(np.uint8)


def same_or_refused(data: bytes) -> None:
    """No other samples than Pillow's, and no other error than MaskError."""
    try:
        labels = decode_mask(data, "frame 7")
    except MaskError as error:
        assert "frame 7" in str(error) and "\n" not in str(error)
        return
    np.testing.assert_array_equal(labels, by_pillow(data))


@pytest.mark.timeout(60)
@fuzz
@given(chunks())
def test_valid_files_equal_pillow(parts: list[bytes]) -> None:
    data = SIGNATURE + b"".join(parts)
    if parts[0][16] == 16:
        with pytest.raises(MaskError, match="16 bits"):
            decode_mask(data, "frame 7")
    else:
        np.testing.assert_array_equal(decode_mask(data, "frame 7"), by_pillow(data))


@pytest.mark.timeout(60)
@fuzz
@given(chunks((0, 3, 3, 2, 4, 6)), st.data())
def test_chunks_in_any_order(parts: list[bytes], data: st.DataObject) -> None:
    """Chunks twice, left out, moved, and headers of other files: a whole file of nonsense."""
    other = data.draw(chunks((0, 3, 2, 6)))
    pool = [*parts, *other]
    keep = data.draw(st.lists(st.sampled_from(pool), max_size=2))
    at = data.draw(st.integers(0, len(parts)))
    mixed = [*parts[:at], *keep, *parts[at + data.draw(st.integers(0, 2)) :]]
    same_or_refused(SIGNATURE + b"".join(mixed))


@pytest.mark.timeout(60)
@fuzz
@given(chunks(), st.data())
def test_damaged_bytes(parts: list[bytes], draw: st.DataObject) -> None:
    """Truncated, with flipped bits, and with flipped bits under a checksum that is right."""
    data = bytearray(SIGNATURE + b"".join(parts))
    for _ in range(draw.draw(st.integers(0, 2))):
        data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    same_or_refused(bytes(data[: draw.draw(st.integers(0, len(data)))]))
    part = draw.draw(st.integers(0, len(parts) - 1))
    kind, content = parts[part][4:8], bytearray(parts[part][8:-4])
    if content:
        content[draw.draw(st.integers(0, len(content) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    same_or_refused(SIGNATURE + b"".join([*parts[:part], chunk(kind, bytes(content)), *parts[part + 1 :]]))


@pytest.mark.parametrize(("depth", "colour"), [(16, 0), (8, 2), (8, 6), (8, 0), (8, 3)])
def test_a_second_header_is_damage(depth: int, colour: int) -> None:
    raw = b"".join(b"\0" + bytes(i % 4 for i in range(CHANNELS[colour] * depth)) for _ in range(8))
    data = [chunk(b"PLTE", bytes(768)), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    for headers in (
        [header(8, 8, 8, 3), header(8, 8, depth, colour)],
        [chunk(b"tEXt", b"a\0b"), header(8, 8, 8, 3)],
        [header(8, 8, 8, 3), chunk(b"IHDR", b"short")],
    ):
        with pytest.raises(MaskError, match="header"):
            decode_mask(SIGNATURE + b"".join([*headers, *data]), "frame 7")


def test_a_header_cannot_ask_for_more_memory_than_the_data_can_fill() -> None:
    data = SIGNATURE + header(2**14, 2**14, 8, 0) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(MaskError, match="fewer rows"):
        decode_mask(data, "frame 7")
