"""What decides the weights that a training gives: another recipe, data, start or package is another training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vosarena.base.hashing import digest_of, file_sha256
from vosarena.base.version import __version__
from vosarena.config.model_schema import DIVISION
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, META, read_sequence
from vosarena.datasets.table import selected_names
from vosarena.finetuning.task import TrainingTask
from vosarena.trackers.base import package_versions

_PACKAGES = {"cutie": "rf-cutie", "sam2": "sam2"}
_COMMON_PACKAGES = ("torch", "torchvision", "numpy", "pillow")
_READERS = 8


def training_identity(task: TrainingTask) -> dict[str, Any]:
    """Return everything that changes the result of a training, without how the batch is divided and loaded.

    Args:
        task: The training.

    Returns:
        `recipe`, `data` (weight and a digest of the checksums of all frames and masks by split, in the order of the
        recipe), `weights` (checksum of the start), `packages`, `validation` (settings, digest of the split) if there is
        one, and the digest of all this, `identity`.
    """
    content: dict[str, Any] = {
        "tracker": task.tracker,
        "options": network_options(task),
        "recipe": task.recipe.model_dump(mode="json", exclude={*DIVISION, "validation"}),
        "data": [
            {"split": name, "weight": task.recipe.weights.get(name, 1.0), "digest": _content(folder)}
            for name, folder in task.datasets.items()
        ],
        "weights": file_sha256(task.weights),
        "packages": {**package_versions([_PACKAGES[task.tracker], *_COMMON_PACKAGES]), "vosarena": __version__},
    }
    if task.recipe.validation and task.held_out:  # it decides which weights are kept
        how = {key: value for key, value in asdict(task.held_out).items() if key != "folder"}
        how |= {"options": dict(task.options), "digest": _every_file(task.held_out.folder)}
        content["validation"] = task.recipe.validation.model_dump(mode="json") | how
    return {"identity": digest_of(content), **content}


def network_options(task: TrainingTask) -> dict[str, Any]:
    """Return the options of the tracker that decide the network; Cutie's is in the recipe."""
    return {key: task.options.get(key) for key in ("config", "image_size")} if task.tracker == "sam2" else {}


def _content(folder: Path) -> str:
    """Return a digest of the names and checksums of every annotated frame of a dataset and its mask."""
    found = [
        (name, files.frames[index], mask)
        for name in selected_names(folder)
        for files in [read_sequence(folder / IMAGES, folder / ANNOTATIONS, name)]
        for index, mask in files.masks.items()
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        frames = pool.map(file_sha256, [frame for _, frame, _ in found])
        masks = pool.map(file_sha256, [mask for _, _, mask in found])
        sums = zip(found, frames, masks, strict=True)
        return digest_of({"frames": [[name, frame.stem, *both] for (name, frame, _), *both in sums]})


def _every_file(folder: Path) -> str:
    """Return a digest of the names and checksums of all frames and masks of a dataset, and of its meta file."""
    files = [path for path in (folder / META,) if path.is_file()]
    for name in selected_names(folder):
        found = read_sequence(folder / IMAGES, folder / ANNOTATIONS, name)
        masks = [found.masks, *found.objects.values()]
        files += [*found.frames, *(path for each in masks for path in each.values())]
    with ThreadPoolExecutor(_READERS) as pool:
        sums = zip(files, pool.map(file_sha256, files), strict=True)
        return digest_of({"files": [[str(path.relative_to(folder)), checksum] for path, checksum in sums]})
