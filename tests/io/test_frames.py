"""Reading frames: pixels, order, bounded look-ahead, and one clear sentence for every kind of damaged file."""

import io
import threading

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vosarena.base.errors import DataError
from vosarena.io import frames as frames_module
from vosarena.io.frames import Frames, _decode_quickly, read_frame


def textured(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def clip(tmp_path):
    """Ten JPEG frames 00000.jpg..00009.jpg of 64x48."""
    paths = [tmp_path / f"{index:05d}.jpg" for index in range(10)]
    for seed, path in enumerate(paths):
        Image.fromarray(textured(seed=seed)).save(path, quality=90)
    return paths


def test_pixels_are_those_of_pillow_in_any_order(clip):
    expected = [np.array(Image.open(path).convert("RGB")) for path in clip]
    with Frames(clip, prefetch=3) as frames:
        assert len(frames) == 10
        assert frames.size == (48, 64)
        for index in [*range(10), 4, 9, 0, -1, 5, 6, 7]:
            assert frames[index].dtype == np.uint8
            np.testing.assert_array_equal(frames[index], expected[index])
        np.testing.assert_array_equal(frames[2:4][1], expected[3])
        with pytest.raises(IndexError):
            frames[10]
    np.testing.assert_array_equal(frames[3], expected[3])  # usable after close


def test_look_ahead_is_bounded_and_decodes_each_frame_once(clip, monkeypatch):
    decoded, caller = [], threading.current_thread()
    in_background = []

    def counted(path):
        decoded.append(path)
        in_background.append(threading.current_thread() is not caller)
        return read_frame(path)

    monkeypatch.setattr(frames_module, "read_frame", counted)
    with Frames(clip, prefetch=2) as frames:
        for index in range(10):
            frames[index]
            frames[index]  # the current frame is kept
            assert len(decoded) <= index + 3
            assert set(frames._ahead) == set(range(index + 1, min(index + 3, 10)))
    assert sorted(decoded) == clip
    assert any(in_background)


def test_without_prefetch_no_thread_is_started(clip):
    frames = Frames(clip, prefetch=0)
    before = threading.active_count()
    for index in range(len(frames)):
        frames[index]
    assert threading.active_count() == before


def test_close_stops_the_threads(clip):
    before = threading.active_count()
    with Frames(clip) as frames:
        frames[0]
        assert threading.active_count() > before
    assert threading.active_count() == before


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "LA", "1"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(textured()).convert(mode)
    path = tmp_path / ("0.jpg" if mode == "CMYK" else "0.png")
    image.save(path)
    frame = read_frame(path)
    assert frame.shape == (48, 64, 3)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, np.array(Image.open(path).convert("RGB")))
    if mode == "L":
        assert (frame == frame[..., :1]).all()


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(textured(96, 128)).save(buffer, kind)
    return buffer.getvalue()


def jpeg(mode="RGB", size=(151, 101), **options):
    buffer = io.BytesIO()
    picture = Image.fromarray(textured(*size[::-1])).resize((40, 30)).resize(size)  # smooth, as photos are
    picture.convert(mode).save(buffer, "JPEG", **{"quality": 85, "subsampling": "4:2:0"} | options)
    return buffer.getvalue()


def pillows(data):
    """What Pillow alone makes of a file: pixels, or an error."""
    try:
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "4:1:1"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"progressive": True}, {"size": (17, 1)}])
def test_ordinary_jpegs_are_decoded_quickly_to_pillows_pixels(subsampling, options):
    for mode in ("RGB", "L"):
        data = jpeg(mode, subsampling=subsampling, **options)
        np.testing.assert_array_equal(_decode_quickly(data), pillows(data))
        np.testing.assert_array_equal(_decode_quickly(with_thumbnail(data) + bytes(8)), pillows(data))


def test_a_rotation_in_the_metadata_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "0.jpg").write_bytes(jpeg(exif=exif))
    np.testing.assert_array_equal(read_frame(tmp_path / "0.jpg"), pillows(jpeg()))


def test_a_jpeg_for_printing_has_pillows_pixels_too(tmp_path):
    (tmp_path / "0.jpg").write_bytes(jpeg(mode="CMYK"))
    np.testing.assert_array_equal(read_frame(tmp_path / "0.jpg"), pillows(jpeg(mode="CMYK")))


def test_another_decoder_in_simplejpeg_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "0.jpg").write_bytes(jpeg())
    frames_module._simplejpeg_equals_pillow.cache_clear()
    real = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *arguments, **options: real(*arguments, **options) ^ 1)
    np.testing.assert_array_equal(read_frame(tmp_path / "0.jpg"), pillows(jpeg()))
    assert not frames_module._simplejpeg_equals_pillow()
    monkeypatch.undo()
    frames_module._simplejpeg_equals_pillow.cache_clear()
    assert frames_module._simplejpeg_equals_pillow()


def damaged(data, rng):
    """Change, cut out, blank or add some bytes of an image, which still ends as it should."""
    start = data.index(b"\xff\xda") if rng.random() < 0.8 else 2
    first = int(rng.integers(start, len(data) - 2))
    last = min(len(data) - 2, first + int(rng.integers(1, 300)))
    middle = [b"", bytes(last - first), rng.bytes(2), b"\xff" + rng.bytes(1), data[first:last]][rng.integers(5)]
    return data[:first] + middle + data[last:]


def test_damaged_jpegs_are_refused_or_read_as_by_pillow(tmp_path):
    """Whatever simplejpeg would make of them: Pillow decides what is an error."""
    rng = np.random.default_rng(0)
    ways: list[dict[str, object]] = [{}, {"restart_marker_blocks": 3}, {"progressive": True}]
    sources = [jpeg(mode, **options) for mode in ("RGB", "L") for options in ways]
    refused = 0
    for _ in range(900):
        data = damaged(sources[rng.integers(6)], rng)
        (tmp_path / "0.jpg").write_bytes(data)
        expected = pillows(data)
        try:
            np.testing.assert_array_equal(read_frame(tmp_path / "0.jpg"), expected)
        except DataError as error:
            assert expected is None or "no end-of-image marker" in str(error)
            refused += 1
    assert 10 < refused < 400


def with_thumbnail(data):
    """A JPEG whose metadata holds a complete little JPEG, as cameras write it."""
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    payload = b"Exif\0\0" + thumbnail.getvalue()
    return data[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + data[2:]


def with_size(data, height, width):
    """A JPEG whose header claims this size."""
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[start + 4 :]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("00007.jpg", b"", "empty file"),
        ("00007.jpg", encoded("JPEG")[:-500], "truncated"),
        ("00007.jpg", encoded("JPEG")[:-500] + bytes(500), "truncated"),
        ("00007.jpg", with_thumbnail(encoded("JPEG"))[:-500] + bytes(500), "truncated"),
        ("00007.jpg", encoded("JPEG")[:40], "not an image|damaged|truncated"),
        ("00007.jpg", with_size(encoded("JPEG"), 65500, 65500), "damaged"),
        ("00007.png", encoded("PNG")[:-500], "damaged"),
        ("00007.png", encoded("PNG")[:2000] + bytes(100) + encoded("PNG")[2100:], "damaged"),
        ("00007.jpg", b"<html>404</html>", "not an image"),
    ],
)
def test_a_damaged_frame_is_named_with_its_reason(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=reason) as caught:
        read_frame(tmp_path / name)
    message = str(caught.value)
    assert "00007" in message and str(tmp_path / name) in message
    assert "\n" not in message


def test_a_complete_jpeg_with_a_thumbnail_or_trailing_bytes_is_read(tmp_path):
    path = tmp_path / "0.jpg"
    path.write_bytes(with_thumbnail(encoded("JPEG")) + bytes(64))
    assert read_frame(path).shape == (96, 128, 3)


def test_missing_and_16_bit_frames_are_refused(tmp_path):
    with pytest.raises(DataError, match="00003 cannot be read"):
        read_frame(tmp_path / "00003.jpg")
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_frame(tmp_path / "deep.png")


def test_a_frame_of_another_size_is_refused_when_it_is_reached(clip):
    Image.fromarray(textured(50, 64)).save(clip[6])
    with Frames(clip) as frames:
        for index in range(6):
            assert frames[index].shape == (48, 64, 3)
        with pytest.raises(
            DataError, match=r"00006 is 64x50 but the first frame of its sequence is 64x48: .*00006\.jpg"
        ):
            frames[6]


def test_a_damaged_first_frame_is_named(clip):
    clip[0].write_bytes(b"")
    with pytest.raises(DataError, match="00000 is an empty file"):
        Frames(clip).size  # noqa: B018
