"""A page of this machine on which a person clicks on the objects of a frame."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError
from vosarena.cli.prompts import read_prompts

_PAGE = Path(__file__).with_suffix(".html")
_MOST = 100_000  # bytes of an answer


def clicks_in_browser(picture: bytes, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Show a frame on a page of this machine, and return what was clicked when the person starts tracking.

    The page can be reached from this machine only, and only by its address, which has a random part.

    Args:
        picture: The frame as PNG.
        say: Gets the address of the page.

    Returns:
        Options without dashes and their values, as `read_prompts` takes them.
    """
    token = secrets.token_urlsafe(16)
    found: list[tuple[str, str]] = []
    contents = {
        f"/{token}/": ("text/html; charset=utf-8", _PAGE.read_bytes()),
        f"/{token}/frame.png": ("image/png", picture),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = contents.get(self.path, ("text/plain; charset=utf-8", b""))
            self._answer(200 if content else 404, kind, content)

        def do_POST(self) -> None:
            try:
                if self.path != f"/{token}/start":
                    raise ConfigError("there is no such page")
                given = [(str(option), str(value)) for option, value in json.loads(self.rfile.read(self._length()))]
                if not read_prompts(given):
                    raise ConfigError("nothing was clicked; click on an object first")
            except (ConfigError, ValueError, TypeError, KeyError) as error:
                self._answer(400, "text/plain; charset=utf-8", str(error).encode())
                return
            found[:] = given
            self._answer(204, "text/plain; charset=utf-8", b"")
            threading.Thread(target=self.server.shutdown).start()  # it waits for the loop that runs this method

        def _length(self) -> int:
            return min(_MOST, int(self.headers.get("Content-Length") or 0))

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        say(f"http://127.0.0.1:{server.server_port}/{token}/")
        server.serve_forever(poll_interval=0.1)
    return found
