"""Archives from somewhere else: hostile, damaged, too big, killed in the middle."""

import gzip
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.miniature import tar_of, zip_of
from vosarena.base.errors import DataError
from vosarena.fetching.unpack import BOMB_FREE, check_archive, extract

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
        ({"name": "valid\\..\\..\\evil", "data": b"x"}, "climbs out"),
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
        "import sys; from pathlib import Path; from vosarena.fetching.unpack import extract;"
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


def zip_named(members: list[tuple[str, bytes]], **attributes) -> bytes:
    """A zip whose members have exactly these names, which the zipfile module would change."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return buffer.getvalue()


def test_backslashes_separate_folders_as_on_windows(tmp_path):
    members = [("JPEGImages\\", b""), ("JPEGImages\\a\\", b""), ("JPEGImages\\a\\0.jpg", b"frame")]
    out = unpack(tmp_path, zip_named(members, create_system=0), "a.zip")
    assert (out / "JPEGImages/a/0.jpg").read_bytes() == b"frame"
    assert "climbs out" in refused(tmp_path, zip_named([("a\\..\\..\\evil", b"x")]), "b.zip")
    assert "absolute" in refused(tmp_path, zip_named([("\\\\server\\share", b"x")]), "c.zip")


def header(name: bytes, size: bytes = b"0" * 11 + b"\0", kind: bytes = b"0") -> bytes:
    """A header of a tar with a right checksum and whatever else."""
    block = bytearray(512)
    block[: len(name)], block[100:108], block[108:124], block[136:148] = name, b"0000644\0", b"0000000\0" * 2, bytes(12)
    block[124:136], block[156:157], block[257:265], block[148:156] = size, kind, b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def block(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(text: bytes) -> bytes:
    return header(b"x", octal(len(text)), b"x") + block(text)


MEMBER = header(b"a/0.jpg", octal(1)) + block(b"x")
END = bytes(1024)
NEGATIVE = b"\xff" * 4 + struct.pack(">q", -512)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (MEMBER + header(b"x", NEGATIVE) + END, "size"),
        (header(b"x", NEGATIVE) + MEMBER + END, "size"),
        (header(b"x", NEGATIVE, b"x") + MEMBER + END, "header of -512"),
        (pax(b"13 size=-512\n") + MEMBER + END, "size of '-512'"),
        (pax(b"11 size=\xc2\xb2\n") + MEMBER + END, "size of '²'"),
        (header(b"h", octal(1 << 30), b"L") + bytes(1 << 20), "header of 1073741824"),
        (header(b"h", octal(1 << 30), b"x") + bytes(1 << 20), "header of 1073741824"),
        (header(b"h", octal(1 << 20), b"g") + bytes(99), "ends in the middle"),
        (pax(b"1" * 500_000) + MEMBER + END, "size of"),
        (pax(b"0 a=b\n") + MEMBER + END, "damaged header"),
        (pax(b"99 path=x\n") + MEMBER + END, "damaged header"),
        (pax(b"8 a=b") + MEMBER + END, "damaged header"),
        (pax(b"6 a=b\n") * 999 + MEMBER + END, "too many headers"),
        (header(b"a/0.jpg", octal(512), b"S") + bytes(512) + END, "sparse"),
        (pax(b"22 GNU.sparse.major=1\n") + MEMBER + END, "sparse"),
        (pax(b"200014 path=" + b"a/" * 100_000 + b"b\n") + MEMBER + END, "path that is too long"),
        (pax(b"6 a=b\n" * 170_000 + b"7 a=bc\n" + b"13 size=-512\n") + MEMBER + END, "size of '-512'"),
        (MEMBER + bytes(512) + MEMBER + END, "follows its end mark"),
        (MEMBER, "ends in the middle"),
        (header(b"evil\x07\x1b[31m", octal(1)) + block(b"x") + END, "control characters"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_headers_of_a_tar_that_no_tool_writes(tmp_path, content, words, compressed):
    text = refused(tmp_path, gzip.compress(content) if compressed else content)
    assert words in text and len(text) < 600


def test_extended_headers_are_understood(tmp_path):
    """Long names as GNU and POSIX write them, and a size that is only in the extended header."""
    long = "valid/" + "/".join("d" * 60 for _ in range(9)) + "/é.jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers={"comment": "0123"}) as archive:
            entry = tarfile.TarInfo(long)
            entry.size, entry.pax_headers = 4, {"SCHILY.xattr.user": "a\nb"}
            archive.addfile(entry, io.BytesIO(b"good"))
        assert (unpack(tmp_path, buffer.getvalue(), "a.tar") / long).read_bytes() == b"good"
    out = unpack(tmp_path, pax(b"9 size=5\n") + header(b"a.jpg") + block(b"hello") + END, "b.tar")
    assert (out / "a.jpg").read_bytes() == b"hello"


@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "/".join(["d" * 200] * 25) + "/a.jpg"])
def test_names_that_no_disk_takes(tmp_path, name):
    text = refused(tmp_path, zip_of({name: b"x"}), "a.zip")
    assert "member" in text and len(text) < 700


def test_many_empty_members_are_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("vosarena.fetching.unpack.BOMB_FREE", 1 << 20)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(header(b"a") * 3000 + END))
    with pytest.raises(DataError, match="times its"):
        check_archive(tmp_path / "b.tar.gz", "b.tar.gz")


def test_the_start_says_what_an_archive_is(tmp_path):
    """Zips are read from their end, and so a zip at the end of something else looks like the whole."""
    inner = zip_of({"valid/other/0.jpg": b"evil"})
    out = unpack(tmp_path, tar_of({GOOD: b"good", "valid/extras.zip": inner}, "w"), "a.tar")
    assert {path.name for path in out.rglob("*.*")} == {"00000.jpg", "extras.zip"}
    cut = tar_of({GOOD: b"good", "valid/extras.zip": inner}, "w")
    cut = cut[: cut.index(inner) + len(inner)]
    assert "ends in the middle" in refused(tmp_path, cut, "b.tar")
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr(GOOD, b"good")
        archive.writestr("extras.zip", inner)
    content = outer.getvalue()
    cut = content[: content.index(inner) + len(inner)]
    assert "cut off, or two were joined" in refused(tmp_path, cut, "c.zip")
    assert "two were joined" in refused(tmp_path, zip_of(FILES) + inner, "d.zip")
    assert "damaged" in refused(tmp_path, b"x" * 512 + inner, "e.zip")


def test_encrypted_zips_say_so(tmp_path):
    content = bytearray(zip_of({GOOD: b"x"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    assert "is encrypted; unpack it by hand" in refused(tmp_path, bytes(content), "a.zip")


def test_compression_that_python_does_not_know(tmp_path):
    """Windows compresses files of more than 2 GB by deflate64, method 9."""
    content = bytearray(zip_of({GOOD: b"x"}))
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(mark) + offset] = 9
    assert "unpack it by hand" in refused(tmp_path, bytes(content), "a.zip")


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff\xfe{", b"{", b"<html>"])
def test_json_files_that_are_none(tmp_path, content):
    assert "not a JSON file" in refused(tmp_path, content, "meta.json")


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of(FILES))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be unpacked to"):
        extract(tmp_path / "a.zip", tmp_path / "file" / "out", everything)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


FUZZED = {
    "v/JPEGImages/a/00000.jpg": os.urandom(700),
    "v/ImageSets/val.txt": b"bear\ndog\n",
    "v/extras.zip": zip_of({"v/x": b"x"}),
}
KINDS = {
    "zip": zip_of(FUZZED),
    "tar.gz": tar_of(FUZZED),
    "tar.bz2": tar_of(FUZZED, "w:bz2"),
    "tar": tar_of(FUZZED, "w"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=5000)
def test_any_damage_gives_the_same_files_or_one_sentence(kind, data):
    """Bits that flipped, a cut, zeros and bytes of something else; a plain tar has no checksum of what files hold."""
    whole = KINDS[kind]
    damage = data.draw(st.sampled_from(["bit", "cut", "zeros", "bytes"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    if damage == "bit":
        changed[place] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "cut":
        del changed[place:]
    elif damage == "zeros":
        changed[place : place + 512] = bytes(min(512, len(whole) - place))
    else:
        new = data.draw(st.binary(min_size=1, max_size=64))
        changed[place : place + len(new)] = new
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            out = unpack(folder, bytes(changed), f"a.{kind}")
        except DataError as error:
            assert "\n" not in str(error)
            assert [path.name for path in folder.iterdir()] == [f"a.{kind}"]
        else:
            assert sorted(path.name for path in folder.iterdir()) == [f"a.{kind}", "out"]
            found, expected = contents(out), contents_of(FUZZED)
            assert found.keys() == expected.keys() if kind == "tar" else found == expected


def contents_of(files: dict[str, bytes]) -> dict[str, bytes | None]:
    folders = {str(parent): None for name in files for parent in Path(name).parents if parent.name}
    return {**folders, **files}


NAMES = st.from_regex(r"[a-zé]{1,80}(/[a-z]{1,60}){0,3}", fullmatch=True)


@pytest.mark.timeout(120)
@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), min_size=1, max_size=6), st.sampled_from(["gnu", "pax", "ustar"])
)
@settings(max_examples=30, deadline=5000)
def test_what_tarfile_writes_and_reads(files, form):
    """Python's tarfile is the reference for the archives that tools write."""
    folders = {str(parent) for name in files for parent in Path(name).parents}
    files = {name: content for name, content in files.items() if name not in folders}
    buffer = io.BytesIO()
    forms = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with tarfile.open(fileobj=buffer, mode="w:gz", format=forms[form]) as archive:
                for path, content in files.items():
                    entry = tarfile.TarInfo(path)
                    entry.size, entry.mtime = len(content), 1.5
                    archive.addfile(entry, io.BytesIO(content))
        except ValueError:  # ustar has no room for long names
            return
        out = unpack(folder, buffer.getvalue(), "a.tgz")
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
            archive.extractall(folder / "reference", **safe)
        assert contents(out) == contents(folder / "reference")
