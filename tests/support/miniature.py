"""Archives in the true layouts of the datasets, in miniature, made by the tests."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from vosarena.io.masks import davis_palette

SIZE = (24, 32)


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of the files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive of the files, compressed by default."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def frame(index: int, seed: int = 0) -> bytes:
    """A JPEG in which two squares move over a texture."""
    image = np.random.default_rng(seed).integers(0, 90, (*SIZE, 3), np.uint8)
    for number, colour in ((1, (200, 60, 60)), (2, (60, 200, 60))):
        y, x = _corner(number, index)
        image[y : y + 8, x : x + 8] = colour
    return cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()


def mask(index: int, objects: tuple[int, ...] = (1, 2), value: int = 0) -> bytes:
    """The palette PNG of the objects in that frame; `value`: write this number instead of the objects' ids."""
    labels = np.zeros(SIZE, np.uint8)
    for number in objects:
        y, x = _corner(number, index)
        labels[y : y + 8, x : x + 8] = value or number
    image = Image.fromarray(labels, mode="L" if value else "P")
    if not value:
        image.putpalette(davis_palette())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _corner(number: int, index: int) -> tuple[int, int]:
    return (2 if number == 1 else 13), (2 + index) % (SIZE[1] - 8)


def davis(names: Mapping[str, int], imageset: str, root: str = "DAVIS") -> dict[str, bytes]:
    """DAVIS 2017: 480p folders and ImageSets; `unlisted` is a sequence of another split in the same archive."""
    files = {f"{root}/ImageSets/{imageset}": "\n".join(names).encode() + b"\n", f"{root}/README.md": b"DAVIS"}
    for name, count in {**names, "unlisted": 2}.items():
        for index in range(count):
            files[f"{root}/JPEGImages/480p/{name}/{index:05d}.jpg"] = frame(index, len(name))
            files[f"{root}/Annotations/480p/{name}/{index:05d}.png"] = mask(index)
    return files


def mose(names: Mapping[str, int], root: str = "valid", dense: bool = False) -> dict[str, bytes]:
    """MOSE: five digits; in the validation set a mask for the first frame only."""
    files = {}
    for name, count in names.items():
        for index in range(count):
            files[f"{root}/JPEGImages/{name}/{index:05d}.jpg"] = frame(index, len(name))
            if dense or index == 0:
                files[f"{root}/Annotations/{name}/{index:05d}.png"] = mask(index)
    return files


def lvos(names: Mapping[str, int], root: str = "valid") -> tuple[dict[str, bytes], bytes, bytes]:
    """LVOS: eight digits in steps of five, object 2 late; the meta file and the one with attributes come apart."""
    files, meta, attributes = {}, {}, {}
    for name, count in names.items():
        for index in range(count):
            stem = f"{1 + 5 * index:08d}"
            files[f"{root}/JPEGImages/{name}/{stem}.jpg"] = frame(index, len(name))
            files[f"{root}/Annotations/{name}/{stem}.png"] = mask(index, (1, 2) if index >= 2 else (1,))
        end = 1 + 5 * (count - 1)
        objects = {
            "1": {"frame_range": {"start": "00000001", "end": f"{end:08d}", "frame_nums": str(count)}},
            "2": {"frame_range": {"start": "00000011", "end": f"{end:08d}", "frame_nums": str(count - 2)}},
        }
        meta[name] = {"objects": objects}
        attributes[name] = {"objects": objects, "attributes": ["OCC", "LRA"] if name.startswith("a") else ["FM"]}
    return files, json.dumps({"videos": meta}).encode(), json.dumps({"videos": attributes}).encode()


def youtube_vos(names: Mapping[str, int], root: str = "valid") -> dict[str, bytes]:
    """YouTube-VOS: every fifth frame, object 2 late, masks only where an object appears first, meta.json."""
    files, videos = {}, {}
    for name, count in names.items():
        stems = [f"{5 * index:05d}" for index in range(count)]
        for index, stem in enumerate(stems):
            files[f"{root}/JPEGImages/{name}/{stem}.jpg"] = frame(index, len(name))
        files[f"{root}/Annotations/{name}/{stems[0]}.png"] = mask(0, (1,))
        files[f"{root}/Annotations/{name}/{stems[2]}.png"] = mask(2, (2,))
        videos[name] = {
            "objects": {"1": {"category": "cat", "frames": stems}, "2": {"category": "dog", "frames": stems[2:]}}
        }
    files[f"{root}/meta.json"] = json.dumps({"videos": videos}).encode()
    return files


def sa_v(names: Mapping[str, int], root: str = "sav_val") -> dict[str, bytes]:
    """SA-V: 24 fps, masks of every fourth frame, a folder per object; 001 overlaps 000, which appears later."""
    files = {f"{root}/{root}.txt": "\n".join(names).encode()}
    for name, count in names.items():
        for index in range(count):
            files[f"{root}/JPEGImages_24fps/{name}/{index:05d}.jpg"] = frame(index, len(name))
            if index % 4 == 0:
                for number in (0, 1):
                    labels = np.zeros(SIZE, np.uint8)
                    labels[4:20, 4 + index % 8 : 20 - 8 * number] = 1 if index or number else 0
                    image = cv2.imencode(".png", labels)[1].tobytes()
                    files[f"{root}/Annotations_6fps/{name}/{number:03d}/{index:05d}.png"] = image
    return files
