"""Download one file over HTTP.

An interrupted download is resumed, a file that changed on the server is detected, and a web page is never saved as an
archive. The bytes are written to `<path>.part`. The size of the file and its ETag or date on the server are written to
`<path>.part.json`. The bytes of several responses are joined only if the server confirms that the file is still the
same.

This module uses requests directly, because no library both resumes with an ETag check and detects stalled connections.
"""

import errno
import logging
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import tenacity
import urllib3
from rich.filesize import decimal

from vosarena.base.errors import DataError
from vosarena.base.logs import progress_bar
from vosarena.base.notes import read_note, sidecar_path, write_note
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import OFFLINE, Address, RemoteSource, Repository, SourceUnavailable

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_LATER = {408, 425, 429}  # statuses that are tried again, like all 5xx
_SLOWEST = 1024  # bytes per second, averaged over one timeout; a slower connection counts as stalled
# Attempts that get fewer bytes than this in total count as failed. Otherwise, a very slow server could go on for ever.
_WORTH = 64 << 10
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError,
           urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)  # fmt: skip


class RetryableError(Exception):
    """An attempt failed, but the next one may succeed."""


class _Message(RetryableError):
    """The server sent a page or message instead of the file."""


class _Stuck(requests.Timeout):
    """A call did not return in time, and its thread is still running."""


def download(
    address: Address, part: Path, policy: RetryPolicy, session: requests.Session, hashed: bool = False
) -> bool:
    """Download a file to `part`, and resume an earlier download that is incomplete.

    The download is tried again with longer and longer pauses if a connection breaks, stalls or ends early. It stops
    after `policy.attempts` consecutive attempts without new data.

    Args:
        address: What to request.
        part: Path where the bytes are written. It can contain bytes from an earlier attempt or process.
        policy: How often and how long to try.
        session: The HTTP session.
        hashed: Whether the caller knows the hash of the file. If so, the bytes of several responses are joined even if
            the server does not confirm that the file is the same.

    Returns:
        Whether the file was joined from the bytes of several responses.

    Raises:
        SourceUnavailable: The server does not provide the file.
        DataError: The disk is full.
    """
    transfer = _Transfer(address, part, policy, session, hashed)

    def pause(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s: %s; next attempt in %.0f s", transfer.title, error, state.upcoming_sleep)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(RetryableError),
        stop=lambda _: transfer.fruitless >= policy.attempts or transfer.pages >= 2,
        wait=lambda state: min(60.0, policy.wait * 2 ** max(0, transfer.fruitless - 1)),
        before_sleep=pause,
        reraise=True,
    )
    try:
        retrying(transfer.attempt)
    except _Message as error:
        raise SourceUnavailable(str(error)) from None
    except RetryableError as error:
        raise SourceUnavailable(f"{error}, {transfer.fruitless} times in a row") from None
    return transfer.pieced


def find_address(
    source: RemoteSource, repository: Repository, policy: RetryPolicy, session: requests.Session
) -> Address:
    """Find what to request for a source.

    Failed requests are tried again, as in a download.

    Args:
        source: The source of the file.
        repository: Whether the file belongs to a dataset or to a model.
        policy: How often and how long to try.
        session: The HTTP session.

    Returns:
        What to request.

    Raises:
        SourceUnavailable: The service cannot be reached or does not provide the file.
    """
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_BROKEN),
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=tenacity.wait_exponential(policy.wait, max=60),
        reraise=True,
    )
    try:
        address: Address = patiently(_within, _patience(policy), source.resolve, repository, session, policy.timeout)
        return address
    except DataError as error:
        raise SourceUnavailable(str(error)) from None
    except _BROKEN as error:
        raise SourceUnavailable(f"{_words(error)}, {policy.attempts} times in a row") from None
    except (requests.RequestException, ValueError) as error:
        raise SourceUnavailable(_odd(error)) from None


class _Transfer:
    def __init__(
        self, address: Address, part: Path, policy: RetryPolicy, session: requests.Session, hashed: bool
    ) -> None:
        self.address, self.part, self.policy, self.session, self.hashed = address, part, policy, session, hashed
        self.notes = sidecar_path(part)
        self.title = part.name.removesuffix(".part")
        self.fruitless = 0  # consecutive attempts without new data
        self.pages = 0
        self.pieced = False
        self.furthest = self._offset()

    def attempt(self) -> None:
        try:
            self._attempt()
        except RetryableError:
            self._judge()
            raise
        except _BROKEN as error:
            self._judge()
            raise RetryableError(_words(error)) from None
        except (requests.RequestException, ValueError) as error:
            raise SourceUnavailable(_odd(error)) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DataError(
                    f"{self.part}: the disk is full after {decimal(self._offset())}; make room and run again, the "
                    "download goes on from there"
                ) from None
            raise

    def _judge(self) -> None:
        offset = self._offset()
        if offset >= self.furthest + _WORTH:
            self.fruitless, self.furthest = 0, offset
        else:
            self.fruitless += 1

    def _attempt(self) -> None:
        known = self._known()
        offset = self._offset() if known else 0
        self.pieced = offset > 0
        if known and offset == known["size"]:
            return
        headers = {"Accept-Encoding": "identity", **self.address.headers}
        if offset and known:
            headers["Range"] = f"bytes={offset}-"
            if known["etag"] or known["date"]:
                headers["If-Range"] = known["etag"] or known["date"]
        options = {"headers": headers, "stream": True, "timeout": (10, self.policy.timeout)}
        with _closing(_within(_patience(self.policy), self.session.get, self.address.url, **options)) as answer:
            self._check_status(answer)
            if self.address.url.startswith("https:") and answer.url.startswith("http:") and not self.hashed:
                raise SourceUnavailable(
                    "the server leads to an address without encryption, and no published hash is known"
                )
            notes = self._notes(answer, offset)
            if answer.status_code == 206:
                if known is None or notes != known:
                    self.part.unlink(missing_ok=True)
                    raise RetryableError("the file on the server changed between two attempts")
            else:
                offset = 0
                self.pieced = False
            stream = self._stream(answer)
            first = next(stream, b"")
            if not offset:
                self._refuse_message(first)
            size = notes["size"]
            _check_space(self.part, (size or 0) - offset, self.title)
            with self.part.open("ab" if offset else "wb") as file:
                if not offset:
                    file.flush()
                    write_note(self.notes, notes)
                self._copy(first, stream, file, offset, size)
        if size is not None and self._offset() != size:
            raise RetryableError(f"the connection ended after {decimal(self._offset())} of {decimal(size)}")

    def _check_status(self, answer: requests.Response) -> None:
        status = answer.status_code
        if status in (200, 206):
            return
        said = f"the server answered {status} {_short(str(answer.reason or ''))}".rstrip()
        if status == 416:  # the local file is longer than the file on the server
            self.part.unlink(missing_ok=True)
            raise RetryableError(said)
        if status in _LATER or status >= 500:
            time.sleep(min(60, _number(answer.headers.get("Retry-After", "")) or 0))
            raise RetryableError(said)
        raise SourceUnavailable(said)

    def _notes(self, answer: requests.Response, offset: int) -> dict[str, Any]:
        """Return the size of the whole file, and the ETag and date that identify its version, from a response."""
        etag, date = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        notes: dict[str, Any] = {
            "source": self.address.identity,
            "size": None,
            "etag": etag if re.fullmatch(r'"[!#-~]*"', etag) else "",  # weak ones (W/) do not guarantee equal bytes
            "date": date if re.fullmatch(r"[\w,: +-]{1,60}", date, re.ASCII) else "",
        }
        if answer.status_code == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""), re.ASCII)
            if match and _number(match[1]) == offset:
                notes["size"] = _number(match[2])
        else:
            notes["size"] = None if self._encoded(answer) else _number(answer.headers.get("Content-Length", ""))
        return notes

    def _encoded(self, answer: requests.Response) -> bool:
        """Return whether the server compressed the file for the transfer although that was not requested."""
        # Many servers say so about .gz files, but mean the compression of the file itself.
        encoding = answer.headers.get("Content-Encoding", "identity").lower()
        return encoding != "identity" and not self.title.lower().endswith((".gz", ".tgz"))

    def _known(self) -> dict[str, Any] | None:
        """Return the notes about the bytes that are already downloaded, or None if the download cannot be resumed."""
        notes = read_note(self.notes)
        size = notes.get("size")
        if notes.get("source") != self.address.identity or not isinstance(size, int) or self._offset() > size:
            return None
        return notes if notes.get("etag") or notes.get("date") or self.hashed else None

    def _stream(self, answer: requests.Response) -> Iterator[bytes]:
        """Yield the bytes as they arrive, and raise RetryableError if the connection is too slow."""
        since, received = time.monotonic(), 0
        options = {"decode_content": self._encoded(answer)}
        while chunk := _within(_patience(self.policy), answer.raw.read1, _CHUNK, **options):
            yield chunk
            received += len(chunk)
            passed = time.monotonic() - since
            if passed > self.policy.timeout:
                if received < _SLOWEST * passed:
                    raise RetryableError(f"connection stalled ({received} bytes in {passed:.0f} s)")
                since, received = time.monotonic(), 0

    def _refuse_message(self, start: bytes) -> None:
        if message := server_message(start, self.title):
            self.pages += 1
            raise _Message(f"the server sent {message} instead of the file")

    def _copy(self, first: bytes, stream: Iterator[bytes], file: Any, offset: int, size: int | None) -> None:
        bar = progress_bar(total=size, initial=offset, desc=self.title, unit="B", unit_scale=True, unit_divisor=1024)
        with bar:
            chunk = first
            while chunk:
                file.write(chunk)
                bar.update(len(chunk))
                if size is not None and file.tell() > size:
                    raise RetryableError(f"the server sent more than the {decimal(size)} it announced")
                file.flush()
                chunk = next(stream, b"")

    def _offset(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def _patience(policy: RetryPolicy) -> float:
    """Return how many seconds to wait for a response to begin, including redirects, or for the next bytes."""
    return 10 + 3 * policy.timeout


def _within(seconds: float, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the result of a call, or raise _Stuck if the call takes longer than `seconds`."""
    # The timeout of a socket starts again with every byte. Without this limit, a server that sends the bytes of a
    # header very slowly could block the download for days.
    done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(*arguments, **options), None))
        except BaseException as error:  # raised again below, in the waiting thread
            done.put((None, error))

    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise _Stuck("timed out") from None
    if error:
        raise error
    return result


@contextmanager
def _closing(answer: requests.Response) -> Iterator[requests.Response]:
    """Close the response at the end, unless a thread is stuck in it, because closing would wait for that thread."""
    try:
        yield answer
    except _Stuck:
        raise
    except BaseException:
        answer.close()
        raise
    answer.close()


@contextmanager
def new_session() -> Iterator[requests.Session]:
    """Open an HTTP session with the User-Agent of vosarena.

    Yields:
        The session, which is closed at the end.
    """
    from vosarena.base.version import __version__

    with requests.Session() as session:
        session.headers["User-Agent"] = f"vosarena/{__version__}"
        yield session


def server_message(start: bytes, name: str) -> str:
    """Describe the web page or message that a server sent instead of a file.

    Args:
        start: First bytes of the file.
        name: Name of the file. JSON is accepted in a file that ends in `.json` or `.txt`.

    Returns:
        Description of the web page or message, or "" if the bytes are not one.
    """
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = start[:65536].decode(encoding, errors="replace").lstrip()
    if any(char < " " and not char.isspace() for char in text[:1024]):
        return ""  # binary
    if text.startswith("version https://git-lfs"):
        return "a pointer of Git LFS"
    if text.startswith("<"):
        title = re.search(r"<(title|message|code)\b[^>]*>(.*?)</\1", text, re.DOTALL | re.IGNORECASE)
        kind = "an XML message" if text.startswith("<?xml") and "<html" not in text.lower() else "a web page"
        return f"{kind} ({_short(title[2])})" if title else kind
    if text.startswith(("{", "[")) and not name.lower().endswith((".json", ".txt")):
        return f"a JSON message ({_short(text)})"
    return ""


def _short(text: str) -> str:
    """Return the text of a server as one short line without control characters, so that it is safe to print."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split())[:100])


def _check_space(part: Path, need: int, title: str) -> None:
    free = shutil.disk_usage(part.parent).free
    if need > free:
        raise DataError(f"{title} needs {decimal(need)}, but {part.parent} has {decimal(free)} free; make room there")


def _number(text: str) -> int | None:
    """Return the number in a header, or None if it is not a number or larger than any file size."""
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def _odd(error: Exception) -> str:
    """Describe an address or response that requests rejects, without its message, which can contain passwords."""
    if isinstance(error, requests.TooManyRedirects):
        return "the server sends from one address to the next without end"
    return f"invalid URL, or a redirect to one ({type(error).__name__})"


def _words(error: Exception) -> str:
    """Describe a network error without the memory addresses of objects that libraries print."""
    text = str(error).lower()
    if "timed out" in text:
        return "the connection timed out"
    if any(words in text for words in ("name or service not known", "resol", "getaddrinfo", "nodename", "no address")):
        return f"the server's name cannot be resolved{OFFLINE}"
    if "unreachable" in text or "no route to host" in text:
        return f"the network cannot be reached{OFFLINE}"
    if "proxy" in text:
        return "the proxy does not let it through"
    if "certificate" in text:
        return "the server's certificate is not valid"
    if "refused" in text:
        return "the server refuses connections"
    return f"the connection broke ({type(error).__name__})"
