"""Training samples for Cutie from rf-cutie's VOSMergeTrainDataset, drawn so that sample N is always the same.

Upstream uses random states that belong to the workers and are not saved in a checkpoint. Here all randomness of a
sample comes from the seed and the number of the sample. Any number of workers gives the same samples, and a resumed run
continues with the next number. Every epoch is a new permutation of all frames, as with upstream's DistributedSampler.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vosarena.base.errors import DataError
from vosarena.config.schema import FinetuneEntry
from vosarena.datasets.sequences import read_sequence
from vosarena.datasets.table import selected_names
from vosarena.finetuning.recipe import interval_of, skip_at
from vosarena.io.masks import read_mask


def seed_everything(*numbers: int) -> None:
    """Seed torch, numpy's global state and `random`, because rf-cutie uses all three."""
    words = np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002
    random.seed(int(words[2]))


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed everything inside the context, and restore the random states after it.

    This is needed because samples are drawn in the training process if there are no workers.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    seed_everything(*numbers)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


class Samples(Dataset[dict[str, Any]]):
    """All samples of a run by number. A sample is the dictionary that CutieTrainWrapper takes."""

    def __init__(self, folders: Mapping[str, Path], recipe: FinetuneEntry, views: Path) -> None:
        """Link the annotated frames and create upstream's dataset.

        Args:
            folders: Folders in canonical layout, by "<dataset>/<split>".
            recipe: The recipe.
            views: Folder for links to the frames; it is deleted first if it exists.

        Raises:
            DataError: No sequence is long enough, or a folder has no annotated object.
        """
        os.environ.setdefault("LOCAL_RANK", "0")  # upstream's module reads it when it is imported
        from cutie.dataset.vos_dataset import VOSMergeTrainDataset

        self.recipe = recipe
        if views.exists():
            shutil.rmtree(views)
        configs = {}
        for name, folder in folders.items():
            view = views / name.replace("/", "-")
            link_annotated_frames(folder, view)
            configs[name] = {
                "im_root": str(view / "JPEGImages"),
                "gt_root": str(view / "Annotations"),
                "max_skip": 1,
                "subset": None,
                "empty_masks": None,
                "multiplier": 1,
            }
        self.inner = VOSMergeTrainDataset(
            configs,
            seq_length=recipe.frames,
            max_num_obj=recipe.objects,
            size=recipe.crop,
            merge_probability=recipe.merge_probability,
        )
        if len(self.inner) == 0:
            raise DataError(
                f"finetune: no video of {', '.join(folders)} has {recipe.frames} annotated frames; use fewer `frames`"
            )
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __getitem__(self, number: int) -> dict[str, Any]:
        epoch, place = divmod(number, len(self.inner))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.inner))
        skip = skip_at(self.recipe, number // self.recipe.batch)
        for name, config in self.inner.configs.items():
            config["max_skip"] = max(1, skip // interval_of(self.recipe, name))
        with seeded(self.recipe.seed, 1, number):
            sample: dict[str, Any] = self.inner[int(self._order[place])]
            return sample

    def __len__(self) -> int:
        return self.recipe.batch * self.recipe.iterations


def link_annotated_frames(folder: Path, view: Path) -> None:
    """Create links to the annotated frames of a dataset, in the form that upstream's dataset needs.

    Upstream's dataset expects a mask for every file in JPEGImages, and names that end in .jpg whatever the format of
    the file is. Sequences without any object are left out, because upstream would search them for a first frame
    forever.

    Args:
        folder: Folder of the dataset in canonical layout.
        view: Folder for the links.

    Raises:
        DataError: No sequence has an annotated object.
    """
    images, masks = folder / "JPEGImages", folder / "Annotations"
    for name in selected_names(folder):
        files = read_sequence(images, masks, name)
        if not any(read_mask(path).any() for path in files.masks.values()):
            continue
        for kind in ("JPEGImages", "Annotations"):
            (view / kind / name).mkdir(parents=True)
        for index, mask in files.masks.items():
            (view / "JPEGImages" / name / f"{index:08d}.jpg").symlink_to(files.frames[index].resolve())
            (view / "Annotations" / name / f"{index:08d}.png").symlink_to(mask.resolve())
    if not view.exists():
        raise DataError(f"finetune: no sequence of {folder} has an annotated object; check Annotations/")


def passes(
    samples: Dataset[dict[str, Any]], recipe: FinetuneEntry, start: int, rank: int, processes: int, micro: int
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Iterate over the forward passes of one process.

    Args:
        samples: The samples of the training by number. Their method `collate` makes a batch of them, if they have one.
        recipe: The recipe.
        start: The first iteration.
        rank: Number of this process.
        processes: Number of processes.
        micro: Samples per pass.

    Yields:
        The iteration, the number of the pass in the whole batch, and the data of the pass.
    """
    per_process = recipe.batch // (micro * processes)
    plan: list[tuple[int, int]] = [
        (iteration, rank * per_process + step)
        for iteration in range(start, recipe.iterations)
        for step in range(per_process)
    ]
    batches: Sequence[list[int]] = [
        list(range(iteration * recipe.batch + number * micro, iteration * recipe.batch + (number + 1) * micro))
        for iteration, number in plan
    ]
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=recipe.workers,
        collate_fn=getattr(samples, "collate", None),
        pin_memory=torch.cuda.is_available(),
    )
    for (iteration, number), data in zip(plan, loader, strict=True):
        yield iteration, number, data
