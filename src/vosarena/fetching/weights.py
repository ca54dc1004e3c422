"""Checkpoints: from a catalog entry to a verified file, the same way as archives."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.base.files import atomic_path
from vosarena.base.locks import lock
from vosarena.fetching.sources import FileEntry, LocalSource, RetryPolicy
from vosarena.fetching.verified import RemoteFile, fetch_file, is_another


def fetch_weights(weights: FileEntry, output: Path, policy: RetryPolicy) -> None:
    """Bring a checkpoint to `output`, which is `<resources>/weights/<model>.pth`.

    A download is kept in `<resources>/archives/weights/`, where models share it and where a person may put it. Raises
    DataError naming the file and both hashes, or what to fetch and where to put it.
    """
    resources = output.parents[1]
    place = place_of(weights, output.stem, resources)
    wanted = RemoteFile(f"weights/{place.name}", weights, repository="model")
    try:
        path = fetch_file(wanted, place, resources, policy)
    except DataError:
        if not is_another(place, wanted):
            raise
        place = place.with_name(f"{output.stem}-{place.name}")  # another model's file has the same name
        path = fetch_file(replace(wanted, name=f"weights/{place.name}"), place, resources, policy)
    with lock(output), atomic_path(output, alone=True) as temporary:
        if path == place:
            temporary.symlink_to(os.path.relpath(path, output.parent))
        else:
            shutil.copyfile(path, temporary)


def place_of(weights: FileEntry, model: str, resources: Path) -> Path:
    """Where the checkpoint of a model is kept; files that only lie on this machine go by the model's name."""
    names = [source.file_name() for source in weights.sources if not isinstance(source, LocalSource)]
    return resources / "archives" / "weights" / next((name for name in names if name), f"{model}.pth")


def local_files(weights: FileEntry | None) -> list[str]:
    """Local sources that are there: when one changes, the weights have changed."""
    sources = weights.sources if weights else ()
    return [source.local for source in sources if isinstance(source, LocalSource) and source.path.is_file()]
