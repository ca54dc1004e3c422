"""Sources of a file: a URL, Hugging Face, Google Drive, this machine, or a web page for manual download.

Each kind of source is a class. It has a description, gives the web page where the user finds the file and, if it is on
the network, what to request.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag

from vosarena.base.entry import Entry, FileSize, Location, Md5, Sha256, Url, check_keys, wrong
from vosarena.base.errors import DataError

if TYPE_CHECKING:
    import requests

Repository = Literal["dataset", "model"]  # two separate kinds on Hugging Face
_DRIVE = "https://drive.google.com/uc"
# The user and password in a URL, even if they contain a slash.
_USER = re.compile(r"//(?:[^/?#]*@|[^/?#@]*:(?!\d*(?:[/?#]|$))[^@]*@)")
_PUBLIC = {"id", "file", "files", "path", "name", "export", "download", "dl", "raw", "rev", "version", "format"}


@dataclass(frozen=True)
class Address:
    """The HTTP request for a source.

    Attributes:
        url: URL to request. It can contain signatures.
        identity: Identifier of the source, which is the same in every attempt.
        headers: Extra headers of the request.
    """

    url: str
    identity: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Source(Entry):
    """One place that a file can come from."""

    @abstractmethod
    def describe(self) -> str:
        """Return a description of the source without passwords or tokens."""

    @property
    def identity(self) -> str:
        """Identifier of the source: 16 hexadecimal digits that do not reveal the URL or depend on a password."""
        keys = self.given()
        if "url" in keys:
            keys["url"] = _USER.sub("//", keys["url"])
        return sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]

    def file_name(self) -> str | None:
        """Return the name of the file, or None if the source does not give one."""
        return None

    def web_page(self, repository: Repository) -> str | None:
        """Return the web page where the user finds the file, or None if there is none.

        Args:
            repository: Whether the file belongs to a dataset or to a model.
        """
        return None


class RemoteSource(Source):
    """A source on the network."""

    @abstractmethod
    def resolve(self, repository: Repository, session: requests.Session, timeout: float) -> Address:
        """Return what to request.

        Args:
            repository: Whether the file belongs to a dataset or to a model.
            session: HTTP session for requests that are needed to find the address.
            timeout: Seconds without data before a connection is closed.

        Returns:
            What to request for the file.

        Raises:
            DataError: The service does not provide the file.
            requests.RequestException: The service cannot be reached.
        """


class UrlSource(RemoteSource):
    """A file at a URL."""

    example: ClassVar[str] = "url: https://example.org/data.zip"

    url: Url = Field(description="URL of the file.")

    def describe(self) -> str:
        return shown(self.url)

    def file_name(self) -> str | None:
        try:
            return PurePosixPath(unquote(urlsplit(self.url).path)).name or None
        except ValueError:  # an invalid URL is reported when it is requested
            return None

    def web_page(self, repository: Repository) -> str | None:
        return shown(self.url)

    def resolve(self, repository: Repository, session: requests.Session, timeout: float) -> Address:
        return Address(self.url, self.identity)


class HuggingFaceSource(RemoteSource):
    """A file in a repository on Hugging Face."""

    example: ClassVar[str] = "{huggingface: FudanCVL/MOSE, file: train.tar.gz}"

    huggingface: str = Field(description="Repository on Hugging Face, such as `facebook/sam2-hiera-large`.")
    file: str = Field(description="Path of the file in the repository.")
    revision: str | None = Field(None, description="Commit or branch. Default is the main branch.")

    def describe(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"Hugging Face {self.huggingface}{revision}: {self.file}"

    def file_name(self) -> str | None:
        return PurePosixPath(self.file).name

    def web_page(self, repository: Repository) -> str | None:
        return f"https://huggingface.co/{'datasets/' if repository == 'dataset' else ''}{self.huggingface}"

    def resolve(self, repository: Repository, session: requests.Session, timeout: float) -> Address:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.huggingface, self.file, repo_type=repository, revision=self.revision)
        return Address(url, self.identity, build_hf_headers())


class DriveSource(RemoteSource):
    """A file on Google Drive."""

    example: ClassVar[str] = "drive: 1-ehpl5s0Fd14WwtT-GmWtIWa_BxZl9D6"

    drive: str = Field(description="Id of a file on Google Drive.")

    def describe(self) -> str:
        return f"Google Drive file {self.drive}"

    def web_page(self, repository: Repository) -> str | None:
        return f"https://drive.google.com/file/d/{self.drive}/view"

    def resolve(self, repository: Repository, session: requests.Session, timeout: float) -> Address:
        return _drive_address(self.drive, self.identity, session, timeout)


class DriveFolderSource(RemoteSource):
    """A file in a folder on Google Drive."""

    example: ClassVar[str] = "{drive_folder: 1vChKHzbboP1k6wd6t95guxxURW3nIXBe, file: train.tar.gz}"

    drive_folder: str = Field(description="Id of a folder on Google Drive.")
    file: str = Field(description="Name of the file in the folder.")

    def describe(self) -> str:
        return f"Google Drive folder {self.drive_folder}: {self.file}"

    def file_name(self) -> str | None:
        return PurePosixPath(self.file).name

    def web_page(self, repository: Repository) -> str | None:
        return f"https://drive.google.com/drive/folders/{self.drive_folder}"

    def resolve(self, repository: Repository, session: requests.Session, timeout: float) -> Address:
        file = _find_in_drive_folder(self.drive_folder, self.file, timeout)
        return _drive_address(file, self.identity, session, timeout)


class LocalSource(Source):
    """A file or an extracted folder on this machine."""

    example: ClassVar[str] = "local: /data/mose/train.tar.gz"

    local: Location = Field(
        description="File or extracted folder on this machine. Relative to the catalog file, or in a config to the "
        "working directory."
    )

    def describe(self) -> str:
        return self.local

    def file_name(self) -> str | None:
        return PurePosixPath(self.local).name

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.local)


class PageSource(Source):
    """A page where a person has to sign up or click. The file is then put into place by hand."""

    example: ClassVar[str] = "{page: https://youtube-vos.org/, file: valid.zip}"

    page: str = Field(description="Page where a person has to sign up or click.")
    file: str | None = Field(None, description="Name of the file on that page.")

    def describe(self) -> str:
        return shown(self.page)

    def file_name(self) -> str | None:
        return PurePosixPath(self.file).name if self.file else None

    def web_page(self, repository: Repository) -> str | None:
        return shown(self.page)


def shown(url: str) -> str:
    """Return a URL that is safe to print and store.

    Args:
        url: The URL.

    Returns:
        The URL without passwords and without values that may be tokens or signatures.
    """
    address, _, query = _USER.sub("//***@", url).partition("#")[0].partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    known = "&".join(f"{key}={value if key in _PUBLIC else '***'}" if equals else "***" for key, equals, value in pairs)
    return f"{address}?{known}" if known else address


SOURCES: dict[str, type[Source]] = {  # by the key that identifies the kind of source
    "url": UrlSource,
    "huggingface": HuggingFaceSource,
    "drive": DriveSource,
    "drive_folder": DriveFolderSource,
    "local": LocalSource,
    "page": PageSource,
}
_UNITS = ("B", "kB", "MB", "GB", "TB")
_KEYS = list(dict.fromkeys(key for kind in SOURCES.values() for key in kind.model_fields))


def _check_source(value: Any) -> Any:
    if isinstance(value, Mapping):
        check_keys(value, _KEYS)
        kinds = [key for key in SOURCES if key in value]
        if not kinds:
            raise wrong(f"incomplete source: give one of {', '.join(SOURCES)}")
        if len(kinds) > 1:
            raise wrong(f"{' and '.join(kinds)} are {len(kinds)} sources; make each an item of the list")
        for key, field in SOURCES[kinds[0]].model_fields.items():
            if field.is_required() and key not in value:
                raise wrong(f"incomplete source: `{kinds[0]}` also needs `{key}`")
    return value


def _kind_of(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((f"<{key}>" for key in SOURCES if key in value), None)
    return next((f"<{key}>" for key, kind in SOURCES.items() if isinstance(value, kind)), None)


AnySource = Annotated[
    Annotated[UrlSource, Tag("<url>")]
    | Annotated[HuggingFaceSource, Tag("<huggingface>")]
    | Annotated[DriveSource, Tag("<drive>")]
    | Annotated[DriveFolderSource, Tag("<drive_folder>")]
    | Annotated[LocalSource, Tag("<local>")]
    | Annotated[PageSource, Tag("<page>")],
    Discriminator(_kind_of, custom_error_type="form", custom_error_message="is not a mapping"),
    BeforeValidator(_check_source),
]


class FileEntry(Entry):
    """A file, where it comes from, and its hash."""

    sources: tuple[AnySource, ...] = Field(min_length=1, description="Where the file comes from, tried in order.")
    sha256: Sha256 | None = Field(
        None,
        description="Published SHA-256 hash. Without a hash, that of the first download is recorded and required from "
        "then on.",
    )
    md5: Md5 | None = Field(None, description="Published MD5 hash.")
    size: FileSize | None = Field(None, description="About how large the file is, such as `20.5 GB`.")

    @property
    def bytes(self) -> int | None:
        """The size in bytes; None if it is not known."""
        if self.size is None:
            return None
        number, unit = self.size.split()
        return round(float(number) * 1000.0 ** _UNITS.index(unit))


def _drive_address(file: str, identity: str, session: requests.Session, timeout: float) -> Address:
    """Return what to request for a file, with the confirmation that Google Drive requires for large files."""
    from gdown.download import get_url_from_gdrive_confirmation
    from gdown.exceptions import FileURLRetrievalError

    url = f"{_DRIVE}?id={file}&export=download"
    with session.get(url, stream=True, timeout=(10, timeout)) as answer:
        if "text/html" not in answer.headers.get("Content-Type", "") or not answer.ok:
            return Address(url, identity)
        try:
            return Address(get_url_from_gdrive_confirmation(answer.text), identity)
        except FileURLRetrievalError as error:
            raise DataError(f"Google Drive does not give out file {file} ({' '.join(str(error).split())})") from None


def _find_in_drive_folder(folder: str, name: str, timeout: float) -> str:
    """Return the id of a file in a folder on Google Drive."""
    from gdown import download_folder

    try:
        listed = download_folder(id=folder, skip_download=True, quiet=True, use_cookies=False, timeout=timeout)
    except Exception as error:  # gdown raises its own errors, those of requests, and parsing errors
        raise DataError(f"Google Drive does not list folder {folder} ({' '.join(str(error).split())})") from None
    for item in listed or ():
        if PurePosixPath(item.path).name == name:  # type: ignore[union-attr]
            return str(item.id)  # type: ignore[union-attr]
    raise DataError(f"Google Drive folder {folder} has no file {name}")
