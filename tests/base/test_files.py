"""Notes that later steps trust: damage is noticed, and a power cut leaves the old or the new one."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vosarena.base.files import atomic_path, read_json
from vosarena.base.notes import read_note, write_note

CONTENT = {"path": "a.zip", "sha256": "ab" * 32, "bytes": 5, "folders": ["x", "ü"], "10": 1.5, "2": None}


@pytest.mark.timeout(60)
@given(bit=st.integers(0), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_damage_of_a_note_is_noticed(bit, cut, tmp_path_factory):
    note = tmp_path_factory.getbasetemp() / "note.json"
    write_note(note, CONTENT)
    assert read_note(note) == CONTENT
    data = bytearray(note.read_bytes())
    place = bit // 8 % len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit % 8
    note.write_bytes(data)
    found = read_note(note)
    if "checksum" not in json.loads(data or "{}") if found else False:  # the name of the checksum itself was hit
        found = {key: found[key] for key in CONTENT}
    assert found in ({}, CONTENT)


@pytest.mark.parametrize("content", [b"", bytes(99), b"\xff\xfe\x80", b"3", b"[]", b'"text"', b"[" * 100_000, b"{"])
def test_what_is_no_mapping_is_as_good_as_no_file(tmp_path, content):
    (tmp_path / "note.json").write_bytes(content)
    assert read_json(tmp_path / "note.json") == read_note(tmp_path / "note.json") == {}
    assert read_note(tmp_path / "absent.json") == read_note(tmp_path / "note.json" / "below.json") == {}


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """Otherwise a power cut may leave an empty file under the right name."""
    events = []
    monkeypatch.setattr(os, "fsync", lambda file: events.append(os.fstat(file).st_size))
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("12345")
        assert not events
    assert events == [5] and (tmp_path / "a.json").read_text() == "12345"
