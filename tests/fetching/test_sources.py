"""Where files can come from: what each kind of source says of itself, and what is requested for it."""

import subprocess
import sys

import pytest
import requests
from pydantic import TypeAdapter

from vosarena.base.errors import DataError
from vosarena.fetching.sources import SOURCES, AnySource, FileEntry, LocalSource, RemoteSource, Source

SOURCE = TypeAdapter(AnySource)


def source(**keys: str) -> Source:
    made = SOURCE.validate_python(keys)
    assert isinstance(made, Source)
    return made


@pytest.mark.parametrize(("keys", "name", "words", "page"), [
    ({"url": "https://x.org/a%20b.zip"}, "a b.zip", "https://x.org/a%20b.zip", "https://x.org/a%20b.zip"),
    ({"url": "https://x.org/a.zip?sig=1"}, "a.zip", "https://x.org/a.zip?sig=***", "https://x.org/a.zip?sig=***"),
    ({"url": "https://x.org/"}, None, "https://x.org/", "https://x.org/"),
    ({"huggingface": "o/r", "file": "d/a"}, "a", "Hugging Face o/r: d/a", "https://huggingface.co/datasets/o/r"),
    ({"huggingface": "o/r", "file": "a", "revision": "v1"},
     "a", "Hugging Face o/r@v1: a", "https://huggingface.co/datasets/o/r"),
    ({"drive": "id"}, None, "Google Drive file id", "https://drive.google.com/file/d/id/view"),
    ({"drive_folder": "id", "file": "a"},
     "a", "Google Drive folder id: a", "https://drive.google.com/drive/folders/id"),
    ({"local": "data/a.zip"}, "a.zip", "data/a.zip", None),
    ({"page": "https://x.org/", "file": "a.zip"}, "a.zip", "https://x.org/", "https://x.org/"),
    ({"page": "https://x.org/"}, None, "https://x.org/", "https://x.org/"),
])  # fmt: skip
def test_what_a_source_says_of_itself(keys, name, words, page):
    made = source(**keys)
    assert (made.file_name(), made.describe(), made.web_page("dataset")) == (name, words, page)


def test_repositories_of_models_and_datasets_have_different_addresses():
    made = source(huggingface="o/r", file="a.pth")
    assert isinstance(made, RemoteSource)
    assert made.web_page("model") == "https://huggingface.co/o/r"
    with requests.Session() as session:
        assert made.resolve("model", session, 1).url == "https://huggingface.co/o/r/resolve/main/a.pth"
        assert made.resolve("dataset", session, 1).url == "https://huggingface.co/datasets/o/r/resolve/main/a.pth"


def test_sources_are_told_apart_without_their_passwords():
    plain, other = source(url="https://x.org/a.zip"), source(url="https://x.org/b.zip")
    assert plain.identity == source(url="https://me:secret@x.org/a.zip").identity != other.identity
    assert source(drive="id").identity != source(drive_folder="id", file="a").identity


def test_every_kind_of_source_is_either_remote_or_local_or_a_page():
    assert [kind for kind, made in SOURCES.items() if not issubclass(made, RemoteSource)] == ["local", "page"]
    assert all(next(iter(made.model_fields)) == kind for kind, made in SOURCES.items())


def test_a_list_in_google_drive_that_cannot_be_read_is_an_error_of_the_source(monkeypatch):
    monkeypatch.setattr("gdown.download_folder", lambda **_: [])
    made = source(drive_folder="id", file="a.zip")
    assert isinstance(made, RemoteSource)
    with pytest.raises(DataError, match=r"folder id has no file a\.zip"), requests.Session() as session:
        made.resolve("dataset", session, 1)


def test_the_home_folder_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (made,) = FileEntry.model_validate({"sources": [{"local": "~/a.zip"}]}).sources
    assert isinstance(made, LocalSource) and made.path == tmp_path / "a.zip"


@pytest.mark.parametrize(
    "module", ["vosarena.cli", "vosarena.metrics.evaluate", "vosarena.inference.run", "vosarena.trackers.cutie"]
)
def test_the_evaluator_and_trackers_need_no_pydantic(module):
    """The evaluator starts quicker, and other Python environments (`python:`) need one package less."""
    code = f"import sys, {module}; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
