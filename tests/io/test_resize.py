"""Resizing equals Pillow's and torch's to the bit, whatever the sizes, and falls back to them where it does not."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vosarena.io import resize
from vosarena.io.resize import resize_as_pillow, resize_as_torch
from vosarena.io.resize_tables import integer_columns, level_columns, pillow_table, torch_table

pytestmark = pytest.mark.usefixtures("one_torch_thread")
sides = st.integers(1, 260)
VECTORS = resize._has_vectors()


@pytest.fixture(params=["vectors", "rows"], scope="module", autouse=True)
def ways(request):
    """What a CPU with AVX-512 computes, and what all others do."""
    if request.param == "vectors" and not VECTORS:
        pytest.skip("this CPU has no AVX-512 with VBMI and VNNI")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "_has_vectors", lambda: request.param == "vectors")
        patch.setattr(resize, "_ways", {})
        yield request.param


def picture(height, width, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillows(frame, height, width):
    return np.array(Image.fromarray(frame).resize((width, height)))


def torchs(frame, height, width):
    image = torch.from_numpy(frame).permute(2, 0, 1).contiguous().float() / 255
    size = [height, width]
    return torch.nn.functional.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides)
@example(35, 2, 1, 1)  # a single pixel, which the wrong order gives right for many pictures
@example(108, 192, 102, 102)  # Pillow resizes columns first
@example(250, 40, 20, 40)  # rows first
@example(1, 1, 1, 1)
@example(260, 260, 7, 9)
@example(3, 22, 5, 22)  # rows are hardly longer than a vector
@example(3, 22, 5, 21)  # and here the new ones shorter
@example(60, 240, 60, 99)  # six pixels of the new row need up to 64 bytes of the old one
@example(60, 240, 60, 98)  # and here more
def test_any_size_equals_pillow(height, width, new_height, new_width):
    frame, out = picture(height, width), np.empty((3, new_height, new_width), np.uint8)
    resize_as_pillow(frame, out)
    np.testing.assert_array_equal(out.transpose(1, 2, 0), pillows(frame, new_height, new_width))


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides)
@example(108, 192, 48, 85)
@example(260, 260, 7, 9)
@example(1, 1, 3, 2)
@example(3, 22, 5, 22)
@example(3, 22, 5, 21)
@example(60, 240, 60, 77)  # up to 64 bytes
@example(60, 240, 60, 76)  # more
@example(70, 90, 70, 40)
def test_any_size_equals_torch(height, width, new_height, new_width):
    frame, out = picture(height, width), np.empty((3, new_height, new_width), np.float32)
    resize_as_torch(frame, out)
    np.testing.assert_array_equal(out, torchs(frame, new_height, new_width).numpy())


@pytest.mark.parametrize("size", [(480, 854), (720, 1280), (1080, 1920), (1920, 1080)])
def test_the_sizes_of_videos_need_no_fallback(size, ways):
    resize_as_pillow(picture(*size), np.empty((3, 1024, 1024), np.uint8))
    reduced = tuple(int(480 * side / min(size)) for side in size)
    resize_as_torch(picture(*size), np.empty((3, *reduced), np.float32))
    for key in (("pillow", size, (1024, 1024)), ("torch", size, reduced)):
        if size != reduced or key[0] == "pillow":
            wanted = "_pixels_at_once" if ways == "vectors" else "_channel_by_channel"
            assert resize._ways[key].__qualname__.startswith(wanted)


@pytest.mark.skipif(not VECTORS, reason="this CPU has no AVX-512 with VBMI and VNNI")
@pytest.mark.parametrize("new_width", range(22, 44))
def test_vectors_write_nothing_but_the_result(new_width):
    """The last ones of a row overlap those before them instead of reaching beyond its end."""

    def check(blend, height, new_height, width, new_width, dtype):
        memory = np.full(2 * 128 + new_height * new_width, 7, dtype)
        rows = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        blend(rows, memory[128:-128].reshape(new_height, new_width))
        assert (memory[:128] == 7).all() and (memory[-128:] == 7).all()

    columns = {
        "blend_columns": integer_columns(pillow_table(40, new_width), 40),
        "blend_level_columns": level_columns(torch_table(40, new_width), 40, 4),
    }
    for kernel, vectors in columns.items():
        dtype = np.uint8 if kernel == "blend_columns" else np.float32
        check(resize._vector_columns(kernel, vectors), 9, 9, 120, 3 * new_width, dtype)
    check(resize._vector_rows(pillow_table(9, 5)), 9, 5, 3 * new_width, 3 * new_width, np.uint8)


@pytest.mark.parametrize("sizes", [(40, 21), (21, 40), (21, 21)])
def test_rows_that_are_shorter_than_a_vector_are_not_for_vectors(sizes):
    assert integer_columns(pillow_table(*sizes), sizes[0]) is None
    assert level_columns(torch_table(*sizes), sizes[0], 4) is None


@pytest.mark.parametrize("library", ["pillow", "torch"])
def test_another_arithmetic_of_the_library_is_noticed(monkeypatch, library):
    """A version that computes something else: its own result is given, not ours."""
    monkeypatch.setattr(resize, "_ways", {})
    real = getattr(resize, f"_{library}")

    def other(frame, size):
        return real(frame, size)[:, ::-1]

    monkeypatch.setattr(resize, f"_{library}", other)
    frame = picture(50, 60)
    out = np.empty((3, 20, 30), np.uint8 if library == "pillow" else np.float32)
    getattr(resize, f"resize_as_{library}")(frame, out)
    np.testing.assert_array_equal(out, other(frame, (20, 30)))
