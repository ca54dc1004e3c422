"""A real HTTP server on loopback that misbehaves on request."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PAGE = b"<!DOCTYPE html>\n<html><head><title>Please sign in</title></head><body>...</body></html>"


@dataclass
class Server:
    """Serves `files` (path -> bytes). Every request takes the next of `faults`; without one it is answered properly.

    ranges, vouch, length: whether ranges are served, whether ETag and Last-Modified are sent, and Content-Length.
    careless: ranges are served even if `If-Range` says that the file is another one. piece: most bytes of a range.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str | Callable[["Server"], None]] = field(default_factory=list)
    ranges: bool = True
    vouch: bool = True
    length: bool = True
    careless: bool = False
    piece: int = 1 << 40
    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Range header

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        return f"{self.root}/{path}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path.lstrip("/")
        asked = handler.headers.get("Range", "")
        self.requests.append((path, asked))
        fault = self.faults.pop(0) if self.faults else ""
        if callable(fault):
            fault(self)
            fault = "truncate"
        if fault.isdigit() or path not in self.files:
            handler.send_error(int(fault) if fault.isdigit() else 404)
            return
        if fault == "html":
            self._send(handler, 200, PAGE, {"Content-Type": "text/html", "Content-Length": str(len(PAGE))})
            return
        body = self.files[path]
        tag = f'"{sha256(body).hexdigest()[:16]}"'
        date = formatdate(1_700_000_000 + len(body), usegmt=True)
        headers = {"Content-Type": "application/octet-stream"}
        if self.vouch:
            headers |= {"ETag": tag, "Last-Modified": date}
        status = 200
        same = self.careless or handler.headers.get("If-Range", tag) in (tag, date)
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(body):
                handler.send_error(416)
                return
            end = min(len(body), start + self.piece)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
            status, body = 206, body[start:end]
        if self.length:
            headers["Content-Length"] = str(len(body))
        else:
            headers["Connection"] = "close"
        self._send(handler, status, body, headers, fault)

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict, fault: str = "") -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.close_connection = bool(fault) or "Content-Length" not in headers
        handler.wfile.write(body[: len(body) // 2] if fault in ("truncate", "stall") else body)
        handler.wfile.flush()
        if fault == "stall":
            self.closing.wait(10)
