"""Fetch and verify the weights of a model, in the same way as archives."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.base.files import atomic_path
from vosarena.base.locks import lock
from vosarena.base.names import WEIGHTS_FOLDER
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import FileEntry, LocalSource, WeightsEntry
from vosarena.fetching.verified import RemoteFile, fetch_file, is_another


def fetch_weights(weights: WeightsEntry, output: Path, policy: RetryPolicy) -> None:
    """Fetch the weights of a model.

    A download is kept in `<resources>/archives/weights/`, where several models can share it. The user can also save the
    file there manually. The output is a link to that file, or a copy if the weights come from a local source. Of
    weights that are a folder, this holds for each file.

    Args:
        weights: Sources and hashes of the weights.
        output: Path of the weights (see `weights_path`).
        policy: How often and how long to try a download.

    Raises:
        DataError: The weights are wrong or cannot be fetched. If the hash is wrong, the message has the name of the
            file and both hashes. If no source provides the file, it says what to download and where to save it.
    """
    resources = output.parents[1]
    members = weights.members()
    model = output.name if members else output.stem
    place = place_of(weights, model, resources)
    for name, entry in members.items():
        _fetch(entry, place / name, place.with_name(f"{model}-{place.name}") / name, output / name, resources, policy)
    if not members:
        _fetch(weights, place, place.with_name(f"{model}-{place.name}"), output, resources, policy)


def _fetch(entry: FileEntry, place: Path, other: Path, output: Path, resources: Path, policy: RetryPolicy) -> None:
    """Fetch a file to `place`, or to `other` if a file of another model is there, and link it from `output`."""
    archives = resources / "archives"
    wanted = RemoteFile(str(place.relative_to(archives)), entry, repository="model")
    try:
        path = fetch_file(wanted, place, resources, policy)
    except DataError:
        if not is_another(place, wanted):
            raise
        place = other
        path = fetch_file(replace(wanted, name=str(place.relative_to(archives))), place, resources, policy)
    with lock(output), atomic_path(output, alone=True) as temporary:
        if path == place:
            temporary.symlink_to(os.path.relpath(path, output.parent))
        else:
            shutil.copyfile(path, temporary)


def weights_path(weights: WeightsEntry, model: str, resources: Path) -> Path:
    """Return the path of the weights of a model: `<resources>/weights/<model>`, with `.pth` if they are one file."""
    return resources / "weights" / (model if weights.is_folder else f"{model}.pth")


def place_of(weights: WeightsEntry, model: str, resources: Path) -> Path:
    """Return the path where the weights of a model are kept.

    Args:
        weights: Sources of the weights.
        model: Name of the model, by which the weights are named if only local sources, or none, give a name.
        resources: The resources folder.

    Returns:
        Path of the file or folder in `<resources>/archives/weights/`.
    """
    names = [source.file_name() for source in weights.sources if not isinstance(source, LocalSource)]
    default = weights_path(weights, model, resources).name
    return resources / "archives" / "weights" / next((name for name in names if name), default)


def local_weights(weights: WeightsEntry, model: str, resources: Path) -> Path | None:
    """Return a model's weights on this machine: fetched, downloaded or local; None if they are not there."""
    places = [weights_path(weights, model, resources), place_of(weights, model, resources)]
    places += [source.path for source in weights.sources if isinstance(source, LocalSource)]
    return next((place for place in places if all(file.is_file() for file in _files_of(weights, place))), None)


def local_files(weights: WeightsEntry | None) -> list[str]:
    """Return the files of local sources that exist.

    If one of these files changes, the weights have changed.

    Args:
        weights: Sources of the weights. None if the model has no weights.

    Returns:
        Paths of the files.
    """
    if not weights:
        return []
    local = [source.path for source in weights.sources if isinstance(source, LocalSource)]
    return [str(file) for place in local for file in _files_of(weights, place) if file.is_file()]


def _files_of(weights: WeightsEntry, place: Path) -> list[Path]:
    return [place / name for name in WEIGHTS_FOLDER] if weights.is_folder else [place]
