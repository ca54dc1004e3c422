"""Digests of files and of JSON content."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_BLOCK = 1 << 22


def digest_of(content: Mapping[str, Any]) -> str:
    """Return a digest of JSON content that does not depend on the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=20).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return file_hashes(path, ["sha256"])["sha256"]


def file_hashes(
    path: Path, algorithms: Sequence[str], on_block: Callable[[int], object] = lambda size: None
) -> dict[str, str]:
    """Return several hashes of a file, reading it once.

    Args:
        path: The file.
        algorithms: Names as in `hashlib`, such as `sha256` and `md5`.
        on_block: Called with the number of bytes after each block, for a progress bar.
    """
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for found in hashes.values():
                found.update(block)
            on_block(len(block))
    return {name: found.hexdigest() for name, found in hashes.items()}
