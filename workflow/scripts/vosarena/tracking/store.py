"""The store of predictions: one folder of masks and one manifest per sequence, each accepted whole or not at all.

`<store>/<sequence>/<frame>.png` and `<store>/<sequence>.json`. Masks are written into a hidden folder beside their
place, renamed, and only then vouched for by the manifest; whatever moment a process dies at, a sequence without a
manifest that fits is simply tracked again. `<sequence>.failed.json` says why the last attempt failed.
"""

import glob
import hashlib
import json
import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vosarena.errors import VosarenaError


class Store:
    """Predictions of one model on one split, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def masks(self, sequence: str) -> Path:
        """Folder of a sequence's masks."""
        return self.folder / sequence

    def manifest(self, sequence: str) -> dict[str, Any] | None:
        """What is known of a finished sequence, or None."""
        try:
            return json.loads(self._manifest_file(sequence).read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            return None  # never written by commit(); edited by hand: track again

    def holds(self, sequence: str, fingerprint: str, stems: Sequence[str]) -> bool:
        """Whether the sequence is there, complete, and made by what `fingerprint` stands for."""
        manifest = self.manifest(sequence)
        if manifest is None or manifest.get("fingerprint") != fingerprint:
            return False
        try:
            present = {path.name for path in self.masks(sequence).iterdir()}
        except FileNotFoundError:
            return False
        return all(f"{stem}.png" in present for stem in stems)

    @staticmethod
    def sequences_of(status: Path) -> list[str]:
        """Sequences that a shard's status file vouches for."""
        return list(json.loads(status.read_text())["masks"])

    @contextmanager
    def writing(self, sequence: str) -> Iterator[Path]:
        """A fresh hidden folder for the sequence's masks, removed unless it was committed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep(sequence)
        folder = self.folder / f".{sequence}.{socket.gethostname()}-{os.getpid()}.part"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, sequence: str, written: Path, manifest: Mapping[str, Any]) -> None:
        """Put a written folder in its place; the manifest comes last and makes it valid."""
        self.discard(sequence)
        written.rename(self.masks(sequence))
        write_json(self._manifest_file(sequence), manifest)
        self._failure_file(sequence).unlink(missing_ok=True)

    def discard(self, sequence: str) -> None:
        """Forget a sequence, so that it is tracked again. The manifest goes first: no moment shows half of it."""
        self._manifest_file(sequence).unlink(missing_ok=True)
        shutil.rmtree(self.masks(sequence), ignore_errors=True)

    def fail(self, sequence: str, error: Exception) -> None:
        """Record why an attempt failed and count the attempts."""
        file = self._failure_file(sequence)
        attempts = json.loads(file.read_text())["attempts"] if file.exists() else 0
        self.folder.mkdir(parents=True, exist_ok=True)
        known = isinstance(error, VosarenaError)
        write_json(
            file,
            {
                "sequence": sequence,
                "error": type(error).__name__,
                "reason": str(error) if known else f"unexpected {type(error).__name__}: {error}",
                "traceback": "" if known else "".join(traceback.format_exception(error)),
                "attempts": attempts + 1,
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )

    def _manifest_file(self, sequence: str) -> Path:
        return self.folder / f"{sequence}.json"

    def _failure_file(self, sequence: str) -> Path:
        return self.folder / f"{sequence}.failed.json"

    def _sweep(self, sequence: str) -> None:
        """Remove what killed processes of this host left of the sequence."""
        host = socket.gethostname()
        for folder in self.folder.glob(f".{glob.escape(sequence)}.{glob.escape(host)}-*.part"):
            pid = int(folder.name.removesuffix(".part").rpartition("-")[2])
            if pid == os.getpid() or not _alive(pid):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)


def digest_of(content: Mapping[str, Any]) -> str:
    """Digest of JSON-able content, independent of the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=20).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
