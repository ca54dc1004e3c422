"""Checkpoints: from a catalog entry to a verified file."""

import shutil
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any

from vosarena.errors import DataError


def fetch_weights(weights: Mapping[str, Any], output: Path) -> None:
    """Bring a checkpoint to `output` and verify its hash. Raises DataError naming the file and both hashes."""
    temporary = output.with_name(f".{output.name}.part")
    source = next((Path(s["local"]) for s in weights["sources"] if "local" in s and Path(s["local"]).is_file()), None)
    if source is None:
        raise DataError(f"weights: none of the sources {list(weights['sources'])} is there; put the file in {output}")
    shutil.copyfile(source, temporary)
    for kind in ("sha256", "md5"):
        if kind in weights:
            with temporary.open("rb") as file:
                found = file_digest(file, kind).hexdigest()
            if found != weights[kind]:
                temporary.unlink()
                raise DataError(f"{source}: {kind} is {found}, expected {weights[kind]}; fetch the file again")
    temporary.replace(output)
