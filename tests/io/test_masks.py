"""Label maps as PNG: every kind that is read equals PIL's result, everything else is refused by name."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.mask_makers import blobs
from vosarena.base.errors import MaskError
from vosarena.io import png
from vosarena.io.masks import (
    MasksDigest,
    davis_palette,
    decode_mask,
    masks_digest,
    object_ids,
    read_mask,
    read_runs,
    write_mask,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def build_png(rng: np.random.Generator, depth: int, colour: int, height: int, width: int, filters: range) -> bytes:
    """A PNG of random bytes in random row filters, its stream in two chunks."""
    kinds = rng.choice(filters, (height, 1)).astype(np.uint8)
    raw = np.hstack([kinds, rng.integers(0, 256, (height, (width * depth + 7) // 8), dtype=np.uint8)]).tobytes()
    stream = zlib.compress(raw)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(3 * 2**depth)) if colour == 3 else b""
    middle = len(stream) // 2
    data = chunk(b"IDAT", stream[:middle]) + chunk(b"IDAT", stream[middle:])
    return SIGNATURE + chunk(b"IHDR", header) + palette + data + chunk(b"IEND", b"")


def by_pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.uint8)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour", [0, 3])
def test_all_depths_and_filters_equal_pil(depth: int, colour: int) -> None:
    rng = np.random.default_rng(10 * depth + colour)
    for _ in range(40):
        height, width = rng.integers(1, 40, 2)
        data = build_png(rng, depth, colour, int(height), int(width), range(5))
        np.testing.assert_array_equal(decode_mask(data, "random"), by_pil(data))


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_files_written_by_pil(tmp_path: Path, mode: str) -> None:
    labels = blobs(np.random.default_rng(3), 50, 71, 5, highest=1 if mode == "1" else 5)
    image = Image.fromarray(labels.astype(bool)) if mode == "1" else Image.fromarray(labels)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), labels)
    assert read_mask(tmp_path / "mask.png").flags.c_contiguous


def test_interlaced_files_are_read(tmp_path: Path) -> None:
    # Adam7 of a 1x1 image is its one pixel.
    stream = zlib.compress(b"\0\7")
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    data = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    assert decode_mask(data, "interlaced").tolist() == [[7]]


def test_write_is_deterministic_and_reads_back(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 256, (33, 47), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        write_mask(tmp_path / name, labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels)
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "P"
    # The first colours of the DAVIS and PASCAL VOC palettes.
    assert image.getpalette()[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (97, 131), (1080, 1920)])
@pytest.mark.parametrize("library", [png.zlib, zlib])
def test_written_files_are_read_by_pillow_and_opencv(tmp_path, monkeypatch, size, library) -> None:
    monkeypatch.setattr(png, "zlib", library)  # zlib where there is no isal
    noise = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    for labels in (noise, noise // 100, np.zeros_like(noise), np.asfortranarray(noise), noise[::-1, ::-1]):
        write_mask(tmp_path / "a.png", labels)
        image = Image.open(tmp_path / "a.png")
        image.verify()  # checksums
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), labels)
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels)
        colours = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)[labels]
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], colours)


@pytest.mark.parametrize("highest", [1, 4, 256])
@pytest.mark.parametrize("size", [(0, 0), (1, 1), (37, 53)])
def test_object_ids_are_the_labels_that_occur(highest, size) -> None:
    labels = np.random.default_rng(3).integers(0, highest, size, dtype=np.uint8)
    for each in (labels, labels & 0xF5, np.asfortranarray(labels)[::2]):
        assert object_ids(each) == sorted({*each.ravel().tolist()} - {0})


def test_write_refuses_what_is_no_label_map(tmp_path: Path) -> None:
    for bad in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)):
        with pytest.raises(MaskError, match=r"a\.png.*expected uint8"):
            write_mask(tmp_path / "a.png", bad)


@pytest.mark.parametrize(
    ("mode", "message"), [("RGB", "is RGB"), ("RGBA", "is RGBA"), ("LA", "grey with alpha"), ("I;16", "16 bits")]
)
def test_images_that_are_no_label_maps(tmp_path: Path, mode: str, message: str) -> None:
    file = tmp_path / "00007.png"
    pixels = np.zeros((4, 4), np.uint16) if mode == "I;16" else np.zeros((4, 4, len(mode)), np.uint8)
    Image.fromarray(pixels).save(file)
    with pytest.raises(MaskError, match=message) as caught:
        read_mask(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_zero_byte_files(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"nowhere\.png cannot be read"):
        read_mask(tmp_path / "nowhere.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(MaskError, match=r"empty\.png is empty"):
        read_mask(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("these are not the masks you are looking for, they are words")
    with pytest.raises(MaskError, match=r"text\.png is not a PNG"):
        read_mask(tmp_path / "text.png")


def test_every_truncation_and_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", blobs(np.random.default_rng(5), 20, 30, 5))
    data = (tmp_path / "mask.png").read_bytes()
    for length in range(len(data)):
        with pytest.raises(MaskError, match="frame 7"):
            decode_mask(data[:length], "frame 7")
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(MaskError, match="frame 7"):
            decode_mask(bytes(damaged), "frame 7")


def test_too_few_rows_are_refused() -> None:
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    data = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(5 * 3))) + chunk(b"IEND", b"")
    with pytest.raises(MaskError, match="damaged"):
        decode_mask(data, "short")


def test_digest_sees_order_names_and_labels(tmp_path: Path) -> None:
    files = []
    for index in range(3):
        write_mask(tmp_path / f"{index}.png", np.full((4, 4), index, np.uint8))
        files.append((str(index), tmp_path / f"{index}.png"))
    digest = masks_digest(files)
    assert digest == masks_digest(files) and len(digest) == 40
    step = MasksDigest()
    for stem, path in files:
        step.update(stem, read_runs(path))
    assert step.hexdigest() == digest
    for index, (_, path) in enumerate(files):  # other files of the same labels
        Image.fromarray(np.full((4, 4), index, np.uint8)).save(path, compress_level=0)
    assert masks_digest(files) == digest
    renamed = [("x", files[0][1]), *files[1:]]
    assert len({digest, masks_digest(files[::-1]), masks_digest(files[:2]), masks_digest(renamed)}) == 4
