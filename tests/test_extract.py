"""Archives from somewhere else: hostile, damaged, too big, killed in the middle."""

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from vosarena.data.extract import BOMB_FREE, extract
from vosarena.errors import DataError

from .miniature import tar_of, zip_of

FILES = {f"valid/JPEGImages/a/{index:05d}.jpg": os.urandom(2000) for index in range(20)}
GOOD = next(iter(FILES))


def everything(_: str) -> bool:
    return True


def unpack(tmp_path: Path, content: bytes, name: str = "a.tar.gz", wanted=everything) -> Path:
    archive = tmp_path / name
    archive.write_bytes(content)
    extract(archive, tmp_path / "out", wanted)
    return tmp_path / "out"


def refused(tmp_path: Path, content: bytes, name: str = "a.tar") -> str:
    outside = sorted(path for path in tmp_path.rglob("*") if path.name != name)
    with pytest.raises(DataError) as caught:
        unpack(tmp_path, content, name)
    assert sorted(path for path in tmp_path.rglob("*") if path.name != name) == outside  # not a trace
    assert name in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def tar_with(**attributes) -> bytes:
    """A tar whose second member has these attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        good = tarfile.TarInfo(GOOD)
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        entry = tarfile.TarInfo("valid/bad")
        data = attributes.pop("data", b"")
        for key, value in {"size": len(data), **attributes}.items():
            setattr(entry, key, value)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_and_zip_give_the_same(tmp_path, mode):
    out = unpack(tmp_path, tar_of(FILES, mode), "any.name")
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.jpg")} == FILES
    out = unpack(tmp_path, zip_of(FILES), "any.zip")
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.jpg")} == FILES


def test_only_what_is_needed(tmp_path):
    extra = {
        "valid/README": b"x",
        "__MACOSX/valid/._a.jpg": b"x",
        "valid/.DS_Store": b"x",
        "valid/big.bin": b"x" * 9999,
    }
    out = unpack(tmp_path, zip_of({**FILES, **extra}), wanted=lambda name: name.endswith((".jpg", ".DS_Store")))
    assert sum(path.is_file() for path in out.rglob("*")) == len(FILES)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"name": "/etc/evil", "data": b"x"}, "absolute"),
        ({"name": "../evil", "data": b"x"}, "climbs out"),
        ({"name": "valid/../../evil", "data": b"x"}, "climbs out"),
        ({"name": "valid\\..\\..\\evil", "data": b"x"}, "absolute"),
        ({"name": "c:/evil", "data": b"x"}, "absolute"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc"}, "outside the folder"),
        ({"type": tarfile.SYMTYPE, "linkname": "../../etc"}, "outside the folder"),
        ({"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"}, "outside the folder"),
        ({"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "outside the folder"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, "device"),
        ({"type": tarfile.BLKTYPE, "devmajor": 8}, "device"),
        ({"type": tarfile.FIFOTYPE}, "device"),
        ({"name": "valid/line\nbreak", "data": b"x"}, "control characters"),
        ({"name": GOOD, "data": b"again"}, "contradict"),
        ({"name": f"{GOOD}/below", "data": b"x"}, "contradict"),
    ],
)
def test_hostile_members_of_a_tar(tmp_path, attributes, words):
    assert words in refused(tmp_path, tar_with(**attributes))


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "valid/../../evil", "..\\evil"])
def test_hostile_members_of_a_zip(tmp_path, name):
    assert "refused" in refused(tmp_path, zip_of({GOOD: b"x", name: b"x"}), "a.zip")


@pytest.mark.parametrize("target", ["/etc", "../../etc", "../../../x"])
def test_links_in_a_zip(tmp_path, target):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("valid/link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    assert "outside the folder" in refused(tmp_path, buffer.getvalue(), "a.zip")


UP = ("a/b/c/up", tarfile.SYMTYPE, "../../..")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([UP, ("a/b/c/up/out", tarfile.SYMTYPE, "../../..")], "under a link"),
        ([UP, ("a/b/out", tarfile.SYMTYPE, "c/up/..")], "leaves the folder"),
        ([("a/b/out", tarfile.SYMTYPE, "c/up/.."), UP], "leaves the folder"),
        ([UP, ("out", tarfile.LNKTYPE, "a/b/c/up"), ("out/evil", tarfile.REGTYPE, "")], "through another link"),
        ([UP, ("copy", tarfile.LNKTYPE, "a/b/c/up/any.tar")], "through another link"),
    ],
)
def test_nothing_leads_out_through_links(tmp_path, members, words):
    """Links that stay inside by their names alone, and end outside together."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    assert words in refused(tmp_path, buffer.getvalue())


def test_harmless_links_stay(tmp_path):
    out = unpack(tmp_path, tar_with(type=tarfile.SYMTYPE, linkname="JPEGImages", name="valid/frames"))
    assert (out / "valid/frames/a/00000.jpg").read_bytes() == b"good"


def test_a_member_that_is_hostile_counts_even_if_it_is_not_needed(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_with(name="../evil", data=b"x"))
    with pytest.raises(DataError, match="climbs out"):
        extract(archive, tmp_path / "out", lambda name: name.endswith(".jpg"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "sparse"])
def test_size_bombs(tmp_path, kind):
    if kind == "zip":
        content = zip_of({GOOD: bytes(BOMB_FREE + 1)})
    elif kind == "tar.gz":
        content = tar_of({GOOD: bytes(BOMB_FREE + 1)})
    else:  # the header alone claims a terabyte
        entry = tarfile.TarInfo(GOOD)
        entry.size = 1 << 40
        content = entry.tobuf() + bytes(10240)
    assert "times its" in refused(tmp_path, content, f"a.{kind}")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_truncated_archives(tmp_path, name, part):
    whole = zip_of(FILES) if name == "a.zip" else tar_of(FILES, "w" if name == "a.tar" else "w:gz")
    end = int(len(whole) * part)
    refused(tmp_path, whole[: end - end % 512] if name == "a.tar" else whole[:end], name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_flipped_bits(tmp_path, name):
    whole = bytearray(zip_of(FILES) if name == "a.zip" else tar_of(FILES))
    for place in (len(whole) // 3, len(whole) // 2):
        damaged = whole.copy()
        damaged[place] ^= 0x10
        assert "damaged" in refused(tmp_path, bytes(damaged), name)


@pytest.mark.parametrize("content", [b"", b"<html></html>", os.urandom(5000), b"7z\xbc\xaf\x27\x1c" + bytes(99)])
def test_what_is_no_archive(tmp_path, content):
    refused(tmp_path, content, "a.zip")


def test_nothing_needed_in_it(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of({"x.txt": b""}))
    with pytest.raises(DataError, match="nothing that is needed"):
        extract(tmp_path / "a.zip", tmp_path / "out", lambda _: False)


def test_a_killed_extraction_is_done_again(tmp_path):
    """Killed in the middle it leaves no folder, only a hidden part that the next one removes."""
    archive, out = tmp_path / "a.tar", tmp_path / "out"
    archive.write_bytes(tar_of({f"valid/{index:06d}.jpg": bytes(600) for index in range(6000)}, "w"))
    code = (
        "import sys; from pathlib import Path; from vosarena.data.extract import extract;"
        "extract(Path(sys.argv[1]), Path(sys.argv[2]), lambda name: True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, archive, out], stderr=subprocess.DEVNULL)
    part = tmp_path / ".out.part"
    deadline = time.monotonic() + 20
    while not (part / "valid/000100.jpg").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part.exists() and not out.exists()
    (part / "leftover").touch()
    extract(archive, out, everything)
    assert sum(1 for _ in out.rglob("*.jpg")) == 6000
    assert not part.exists() and not (out / "leftover").exists()


def test_a_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small]).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        archive = tmp_path / "a.tar"
        archive.write_bytes(tar_of({f"{index}.jpg": os.urandom(99_000) for index in range(20)}, "w"))
        with pytest.raises(DataError, match="make room"):
            extract(archive, small / "out", everything)
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)
