"""Fetch and verify the weights of a model, in the same way as archives."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.base.files import atomic_path
from vosarena.base.locks import lock
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import FileEntry, LocalSource
from vosarena.fetching.verified import RemoteFile, fetch_file, is_another


def fetch_weights(weights: FileEntry, output: Path, policy: RetryPolicy) -> None:
    """Fetch the weights of a model.

    A download is kept in `<resources>/archives/weights/`, where several models can share it. The user can also save the
    file there manually. The output is a link to that file, or a copy if the weights come from a local source.

    Args:
        weights: Sources and hashes of the weights.
        output: Path of the weights, which is `<resources>/weights/<model>.pth`.
        policy: How often and how long to try a download.

    Raises:
        DataError: The weights are wrong or cannot be fetched. If the hash is wrong, the message has the name of the
            file and both hashes. If no source provides the file, it says what to download and where to save it.
    """
    resources = output.parents[1]
    place = place_of(weights, output.stem, resources)
    wanted = RemoteFile(f"weights/{place.name}", weights, repository="model")
    try:
        path = fetch_file(wanted, place, resources, policy)
    except DataError:
        if not is_another(place, wanted):
            raise
        place = place.with_name(f"{output.stem}-{place.name}")  # a file of another model has the same name
        path = fetch_file(replace(wanted, name=f"weights/{place.name}"), place, resources, policy)
    with lock(output), atomic_path(output, alone=True) as temporary:
        if path == place:
            temporary.symlink_to(os.path.relpath(path, output.parent))
        else:
            shutil.copyfile(path, temporary)


def place_of(weights: FileEntry, model: str, resources: Path) -> Path:
    """Return the path where the weights of a model are kept.

    Args:
        weights: Sources of the weights.
        model: Name of the model. The file is named `<model>.pth` if only local sources, or none, give a file name.
        resources: The resources folder.

    Returns:
        Path of the file in `<resources>/archives/weights/`.
    """
    names = [source.file_name() for source in weights.sources if not isinstance(source, LocalSource)]
    return resources / "archives" / "weights" / next((name for name in names if name), f"{model}.pth")


def local_weights(weights: FileEntry, model: str, resources: Path) -> Path | None:
    """Return the file of a model's weights on this machine: fetched, downloaded or local; None if there is none."""
    places = [resources / "weights" / f"{model}.pth", place_of(weights, model, resources)]
    places += map(Path, local_files(weights))
    return next((place for place in places if place.is_file()), None)


def local_files(weights: FileEntry | None) -> list[str]:
    """Return the local sources that exist as files.

    If one of these files changes, the weights have changed.

    Args:
        weights: Sources of the weights. None if the model has no weights.

    Returns:
        Paths of the files.
    """
    sources = weights.sources if weights else ()
    return [source.local for source in sources if isinstance(source, LocalSource) and source.path.is_file()]
