"""Where a file can come from: a web address, Hugging Face, Google Drive, this machine, or a page for people."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from vosarena.base.errors import DataError

_DRIVE = "https://drive.google.com/uc"
_USER = re.compile(r"//(?:[^/?#]*@|[^/?#@]*:(?!\d*(?:[/?#]|$))[^@]*@)")  # user and password, even with a slash in it
_PUBLIC = {"id", "file", "files", "path", "name", "export", "download", "dl", "raw", "rev", "version", "format"}


@dataclass(frozen=True)
class Policy:
    """How patient a download is.

    attempts: attempts in a row that may bring nothing new. timeout: seconds without a byte after which a connection is
    given up. wait: seconds before the second attempt; doubled each time, 60 at most.
    """

    attempts: int = 5
    timeout: float = 20
    wait: float = 1


def policy_of(download: Mapping[str, Any]) -> Policy:
    """The policy that the config's `download` describes."""
    return Policy(**{key: value for key, value in download.items() if key in ("attempts", "timeout")})


@dataclass(frozen=True)
class Address:
    """A source as something to request. identity: the same at every attempt, while `url` may carry signatures."""

    url: str
    identity: str
    headers: Mapping[str, str] = field(default_factory=dict)


def source_name(source: Mapping[str, Any]) -> str | None:
    """The file name that a source gives, if it gives one."""
    if "file" in source:
        return PurePosixPath(source["file"]).name
    if "url" in source:
        try:
            return PurePosixPath(unquote(urlsplit(source["url"]).path)).name or None
        except ValueError:  # no address: asking for it says so
            return None
    if "local" in source:
        return PurePosixPath(source["local"]).name
    return None


def shown(url: str) -> str:
    """An address as it may be printed and stored: without passwords, and without what may be a token or signature."""
    address, _, query = _USER.sub("//***@", url).partition("#")[0].partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    known = "&".join(f"{key}={value if key in _PUBLIC else '***'}" if equals else "***" for key, equals, value in pairs)
    return f"{address}?{known}" if known else address


def identity(source: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that tell sources apart without their addresses; a password does not count."""
    plain = {key: _USER.sub("//", value) if key == "url" else value for key, value in source.items()}
    return sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def describe(source: Mapping[str, Any]) -> str:
    """A source in words, without secrets."""
    if "huggingface" in source:
        revision = f"@{source['revision']}" if "revision" in source else ""
        return f"Hugging Face {source['huggingface']}{revision}: {source['file']}"
    if "drive" in source:
        return f"Google Drive file {source['drive']}"
    if "drive_folder" in source:
        return f"Google Drive folder {source['drive_folder']}: {source['file']}"
    return source["local"] if "local" in source else shown(source.get("url") or source["page"])


def page_of(source: Mapping[str, Any], kind: str) -> str | None:
    """The page where a person finds the file."""
    if "page" in source:
        return shown(source["page"])
    if "huggingface" in source:
        return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{source['huggingface']}"
    if "drive_folder" in source:
        return f"https://drive.google.com/drive/folders/{source['drive_folder']}"
    if "drive" in source:
        return f"https://drive.google.com/file/d/{source['drive']}/view"
    return shown(source["url"]) if "url" in source else None


def resolve(source: Mapping[str, Any], kind: str, session: requests.Session, timeout: float) -> Address:
    """What to request for a source on the net. kind: `dataset` or `model` (Hugging Face keeps them apart).

    Raises DataError if Google Drive does not give the file out, requests' errors if it cannot be reached.
    """
    if "url" in source:
        return Address(source["url"], identity(source))
    if "huggingface" in source:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        repo = source["huggingface"]
        url = hf_hub_url(repo, source["file"], repo_type=kind, revision=source.get("revision"))
        return Address(url, identity(source), build_hf_headers())
    file = source["drive"] if "drive" in source else _in_drive_folder(source["drive_folder"], source["file"], timeout)
    return _drive(file, identity(source), session, timeout)


def _drive(file: str, known_as: str, session: requests.Session, timeout: float) -> Address:
    """Google Drive asks for a confirmation in front of large files; gdown knows its forms."""
    from gdown.download import get_url_from_gdrive_confirmation
    from gdown.exceptions import FileURLRetrievalError

    url = f"{_DRIVE}?id={file}&export=download"
    with session.get(url, stream=True, timeout=(10, timeout)) as answer:
        if "text/html" not in answer.headers.get("Content-Type", "") or not answer.ok:
            return Address(url, known_as)
        try:
            return Address(get_url_from_gdrive_confirmation(answer.text), known_as)
        except FileURLRetrievalError as error:
            raise DataError(f"Google Drive does not give out file {file} ({' '.join(str(error).split())})") from None


def _in_drive_folder(folder: str, name: str, timeout: float) -> str:
    from gdown import download_folder

    try:
        listed = download_folder(id=folder, skip_download=True, quiet=True, use_cookies=False, timeout=timeout)
    except Exception as error:  # gdown raises its own, requests' and parsing errors
        raise DataError(f"Google Drive does not list folder {folder} ({' '.join(str(error).split())})") from None
    for item in listed or ():
        if PurePosixPath(item.path).name == name:  # type: ignore[union-attr]
            return item.id  # type: ignore[union-attr]
    raise DataError(f"Google Drive folder {folder} has no file {name}")
