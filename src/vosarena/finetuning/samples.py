"""Training samples for Cutie: rf-cutie's own VOSMergeTrainDataset, drawn so that sample N is always the same.

Upstream draws from random states that live in the workers, which no checkpoint holds. Here all randomness of a sample
comes from (seed, number of the sample): any number of workers gives the same samples, and a resumed run goes on with
the next number. Every epoch is a new permutation of all frames, as with upstream's DistributedSampler.
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
from vosarena.datasets.sequences import read_sequence, sequence_names
from vosarena.finetuning.recipe import interval_of, samples_per_pass, skip_at
from vosarena.io.masks import read_mask


def seed_everything(*numbers: int) -> None:
    """Seed torch, numpy's global state and random: rf-cutie draws from all three."""
    words = np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002
    random.seed(int(words[2]))


@contextlib.contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed everything for a while and put the random states back: without workers, samples are drawn in the trainer."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    seed_everything(*numbers)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


class Samples(Dataset[dict[str, Any]]):
    """Sample number N of a run; the dictionary that CutieTrainWrapper takes."""

    def __init__(self, folders: Mapping[str, Path], recipe: FinetuneEntry, views: Path) -> None:
        """folders: "<dataset>/<split>" -> folder in canonical layout. views: a folder of ours for links to the frames.

        Raises DataError if no video is long enough or one holds no object at all.
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
    """Links to a dataset's annotated frames in the form that upstream's dataset needs.

    It takes every file of JPEGImages for a frame with a mask, and names end in .jpg whatever they hold. Sequences
    without any object are left out: upstream would look for a first frame in them for ever.
    """
    images, masks = folder / "JPEGImages", folder / "Annotations"
    for name in sequence_names(images):
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
    samples: Samples, start: int, rank: int, processes: int, workers: int
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(iteration, number of the pass in the whole batch, batch of a forward pass) from iteration `start` on."""
    recipe = samples.recipe
    micro = samples_per_pass(recipe, processes)
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
    loader = DataLoader(samples, batch_sampler=batches, num_workers=workers, pin_memory=torch.cuda.is_available())
    for (iteration, number), data in zip(plan, loader, strict=True):
        yield iteration, number, data
