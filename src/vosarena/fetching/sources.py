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
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from vosarena.base.entry import Bool, Entry, FileSize, Location, Md5, Sha256, Url, check_keys, wrong
from vosarena.base.errors import DataError
from vosarena.base.names import WEIGHTS_FOLDER

if TYPE_CHECKING:
    import requests

Repository = Literal["dataset", "model"]  # two separate kinds on Hugging Face
OFFLINE = "; is this machine offline?"  # ends the reasons of SourceUnavailable for which that is likely
_DRIVE = "https://drive.google.com/uc"
# The user and password in a URL, even if they contain a slash.
_USER = re.compile(r"//(?:[^/?#]*@|[^/?#@]*:(?!\d*(?:[/?#]|$))[^@]*@)")
_PUBLIC = {"id", "file", "files", "path", "name", "export", "download", "dl", "raw", "rev", "version", "format"}


class SourceUnavailable(DataError):
    """A source cannot provide the file, but another source may."""


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

    def member(self, name: str) -> Source | None:
        """Return the source of a file in a folder, or None if this is the source of one file."""
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
    """A file in a repository on Hugging Face, or of weights also the repository itself."""

    example: ClassVar[str] = "{huggingface: FudanCVL/MOSE, file: train.tar.gz}"

    huggingface: str = Field(description="Repository on Hugging Face, such as `facebook/sam2-hiera-large`.")
    file: str | None = Field(
        None,
        description="Path of the file in the repository. Without it, weights are a folder, which is the repository.",
    )
    revision: str | None = Field(None, description="Commit or branch. Default is the main branch.")
    gated: Bool = Field(
        False, description="Whether the repository is open only to accounts that were given access on its page."
    )

    def describe(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"Hugging Face {self.huggingface}{revision}" + (f": {self.file}" if self.file else "")

    def file_name(self) -> str | None:
        return PurePosixPath(self.file or self.huggingface).name

    def member(self, name: str) -> Source | None:
        return None if self.file else self.model_copy(update={"file": name})

    def is_denied(self) -> bool:
        """Return whether this machine certainly has no access: no account, or one without permission."""
        from huggingface_hub import auth_check, get_token
        from huggingface_hub.errors import HfHubHTTPError

        if not self.gated:
            return False
        if not get_token():
            return True
        try:
            auth_check(self.huggingface)
        except HfHubHTTPError as error:
            return error.response.status_code in (401, 403, 404)
        except Exception:  # without a network, the download will say what is wrong
            return False
        return False

    def web_page(self, repository: Repository) -> str | None:
        return f"https://huggingface.co/{'datasets/' if repository == 'dataset' else ''}{self.huggingface}"

    def resolve(self, repository: Repository, session: requests.Session, timeout: float) -> Address:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.huggingface, self.file or "", repo_type=repository, revision=self.revision)
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

    def member(self, name: str) -> Source | None:
        return LocalSource(local=str(self.path / name))

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

    def member(self, name: str) -> Source | None:
        return self.model_copy(update={"file": name})

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

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        repositories = [source for source in self.sources if isinstance(source, HuggingFaceSource) and not source.file]
        if repositories and not isinstance(self, WeightsEntry):
            raise wrong("incomplete source: `huggingface` also needs `file`")
        return self

    @property
    def bytes(self) -> int | None:
        """The size in bytes; None if it is not known."""
        if self.size is None:
            return None
        number, unit = self.size.split()
        return round(float(number) * 1000.0 ** _UNITS.index(unit))


class WeightsEntry(FileEntry):
    """The weights of a model and their hash: one file, or a folder with `config.json` and `model.safetensors`."""

    example: ClassVar[str] = """\
weights:
  sources:
    - url: https://github.com/hkchengrex/Cutie/releases/download/v1.0/cutie-base-mega.pth
  md5: a6071de6136982e396851903ab4c083a"""

    files: dict[Literal["config.json", "model.safetensors"], Sha256] | None = Field(
        None,
        description="Published SHA-256 hashes of the files of a folder. Without a hash, that of the first download is "
        "recorded and required from then on.",
    )

    @model_validator(mode="after")
    def _check_hashes(self) -> Self:
        if self.is_folder and (self.sha256 or self.md5):
            raise wrong("these weights are a folder; give the hashes of its files as `files`")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether the weights are a folder: a repository on Hugging Face, or a folder on this machine."""
        return bool(self.files) or any(
            source.path.is_dir() if isinstance(source, LocalSource) else not source.file
            for source in self.sources
            if isinstance(source, HuggingFaceSource | LocalSource)
        )

    @property
    def is_open(self) -> bool:
        """Whether a source gives the weights to everybody, without an account or a click."""
        return any(
            isinstance(source, RemoteSource) and not (isinstance(source, HuggingFaceSource) and source.gated)
            for source in self.sources
        )

    def members(self) -> dict[str, FileEntry]:
        """Return the files of a folder by name; empty if the weights are one file."""
        if not self.is_folder:
            return {}
        hashes = {str(name): value for name, value in (self.files or {}).items()}
        return {
            name: FileEntry(
                sources=[found for source in self.sources if (found := source.member(name))], sha256=hashes.get(name)
            )
            for name in WEIGHTS_FOLDER
        }

    def denied(self) -> bool:
        """Return whether the weights can only come from repositories to which this machine has no access."""
        return all(isinstance(source, HuggingFaceSource) and source.is_denied() for source in self.sources)


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
