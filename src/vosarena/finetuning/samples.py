"""The samples of a training as batches, in an order that depends on nothing but their numbers.

All randomness of a sample comes from the seed and the number of the sample. Any number of workers gives the same
samples, and a resumed run continues with the next number.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import _get_inverse_affine_matrix

from vosarena.config.model_schema import FinetuneEntry


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


def draw_turn(height: int, width: int) -> list[float]:
    """Draw a rotation by up to 25 degrees and a shear by up to 20, as the recipes of Cutie and of SAM 2 do.

    Returns:
        The six numbers that `io.warp` takes: from a pixel of the result to one of the frame.
    """
    drawn = transforms.RandomAffine.get_params([-25.0, 25.0], None, None, [-20.0, 20.0], [width, height])
    angle, shift, scale, shear = drawn
    matrix: list[float] = _get_inverse_affine_matrix(
        [width * 0.5, height * 0.5], angle, list(shift), scale, list(shear)
    )
    return matrix


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
        multiprocessing_context="fork" if recipe.workers else None,  # workers share the memory of decoded frames
    )
    for (iteration, number), data in zip(plan, loader, strict=True):
        yield iteration, number, data
