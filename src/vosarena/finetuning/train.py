"""Fine-tuning of Cutie with rf-cutie's own training wrapper, losses, parameter groups and dataset.

One process on a CPU or GPU, or several under torchrun (gloo or nccl) with the same code:

    vosarena finetune --recipe recipe.yaml --data mose/train=FOLDER --weights cutie-base-mega.pth \
        --output finetuned.pth --work FOLDER [--device cpu|cuda]
    torchrun --nproc-per-node 4 -m vosarena finetune ...

All randomness is a function of the seed, the iteration and the position in the batch, so a checkpoint needs no random
states. A run that is killed and started again gives the same weights as a run without interruption. On a CPU they are
equal to the bit.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import distributed, nn

from vosarena.base.errors import TrackerError
from vosarena.base.files import atomic_path, check_folder
from vosarena.base.hashing import digest_of, file_sha256
from vosarena.base.logs import progress_bar
from vosarena.base.version import __version__
from vosarena.config.schema import FinetuneEntry
from vosarena.datasets.sequences import read_sequence, sequence_names
from vosarena.finetuning.curves import write_curves
from vosarena.finetuning.leakage import check_leakage
from vosarena.finetuning.recipe import samples_per_pass, training_settings
from vosarena.finetuning.samples import Samples, passes, seed_everything
from vosarena.trackers.base import package_versions
from vosarena.trackers.checkpoints import read_checkpoint
from vosarena.trackers.cutie_network import build_network, cutie_config, load_weights

logger = logging.getLogger(__name__)

_PACKAGES = ("rf-cutie", "torch", "torchvision", "numpy", "pillow")
_READERS = 8


def finetune(
    recipe: FinetuneEntry,
    datasets: Mapping[str, Path],
    weights: Path,
    output: Path,
    work: Path,
    device: str = "auto",
    evaluated: Mapping[str, Path] | None = None,
) -> None:
    """Fine-tune Cutie and write its state dict to `output`, atomically.

    Args:
        recipe: The recipe.
        datasets: Folders of the training data in canonical layout, by "<dataset>/<split>".
        weights: Weights to start from.
        output: File to write.
        work: Folder for the checkpoint, from which an interrupted run continues, and for loss.parquet and loss.svg.
        device: `auto`, `cpu` or `cuda`.
        evaluated: Splits that must not overlap the training data, in the same form as `datasets`.

    Raises:
        DataError: The training data overlap the evaluated splits, or cannot be used.
        ConfigError: The recipe is wrong.
        TrackerError: The weights are wrong, or the loss is not finite. The last good checkpoint is kept.
    """
    check_leakage(datasets, evaluated or {})
    check_folder(work)
    check_folder(output.parent)
    # rf-cutie's losses are TorchScript, which is recompiled after the first calls and then rounds differently, so a
    # resumed process would not give the same bits as one without interruption.
    with _processes(device) as (rank, processes, place), torch.jit.optimized_execution(False):
        samples_per_pass(recipe, processes)
        run = _Run(recipe, datasets, weights, work, rank, processes, place)
        run.train()
        if rank == 0:
            run.write_losses()
            _save(run.network.state_dict(), output)
            write_curves(work / "loss.parquet", work / "loss.svg")
        shutil.rmtree(run.views)


@contextlib.contextmanager
def _processes(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """Yield the rank, the number of processes and the device of this process.

    Under torchrun the process group is open inside the context.
    """
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if processes == 1:
        yield rank, processes, place
        return
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(minutes=10))
    try:
        yield rank, processes, place
    finally:
        distributed.destroy_process_group()


class _Run:
    """The state of one process of a run."""

    def __init__(
        self,
        recipe: FinetuneEntry,
        datasets: Mapping[str, Path],
        weights: Path,
        work: Path,
        rank: int,
        processes: int,
        place: torch.device,
    ) -> None:
        from cutie.model.losses import LossComputer
        from cutie.model.utils.parameter_groups import get_parameter_groups

        self.recipe, self.work, self.rank, self.processes, self.place = recipe, work, rank, processes, place
        self.identity = _identity(recipe, datasets, weights)
        self.checkpoint = work / "checkpoint.pth"
        self.amp = recipe.amp and place.type == "cuda"
        config, stage = cutie_config(recipe.model), training_settings(recipe, self.amp)
        seed_everything(recipe.seed)
        self.network = build_network(config, stage)
        load_weights(self.network, weights)
        self.network.to(place).train()  # rf-cutie keeps the batch norms of its encoders frozen
        self.losses = LossComputer(config, stage)
        self.optimizer = torch.optim.AdamW(
            get_parameter_groups(self.network, stage),
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            eps=1e-6 if self.amp else 1e-8,
        )
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, list(recipe.lr_steps), recipe.lr_gamma)
        self.scaler = torch.amp.GradScaler("cuda", init_scale=8192, enabled=self.amp)
        self.log: list[dict[str, float]] = []
        self.start = self.saved = self._resume()
        self.model: nn.Module = self.network
        if processes > 1:
            self.model = nn.parallel.DistributedDataParallel(
                self.network, device_ids=[place.index] if place.type == "cuda" else None, broadcast_buffers=False
            )
        self.views = work / f"frames-{rank}"
        self.samples = Samples(datasets, recipe, self.views)

    def train(self) -> None:
        """Run all iterations that are left."""
        recipe = self.recipe
        count = recipe.batch // (samples_per_pass(recipe, self.processes) * self.processes)
        bar = progress_bar(total=recipe.iterations, initial=self.start, desc="fine-tuning", disable=self.rank > 0)
        done, waiting = 0, time.perf_counter()
        row: dict[str, float] = {}
        for iteration, number, data in passes(self.samples, self.start, self.rank, self.processes, recipe.workers):
            began = time.perf_counter()
            if done == 0:
                row = {"iteration": iteration + 1, "learning_rate": float(self.scheduler.get_last_lr()[-1])}
                row |= {"seconds": 0.0, "waiting": 0.0}
            for key, value in self._backward(iteration, number, data, last=done + 1 == count).items():
                row[key] = row.get(key, 0.0) + value / count
            done += 1
            if done == count:
                row["grad_norm"] = self._update(iteration)
                done = 0
            now = time.perf_counter()
            row["seconds"] += now - waiting
            row["waiting"] += began - waiting
            waiting = now
            if done == 0:
                self.log.append(row)
                bar.update()
                bar.set_postfix(loss=f"{row['total_loss']:.3f}", refresh=False)
                if (iteration + 1) % recipe.checkpoint_every == 0 or iteration + 1 == recipe.iterations:
                    self._save_checkpoint(iteration + 1)
        bar.close()

    def _backward(self, iteration: int, number: int, data: dict[str, Any], *, last: bool) -> dict[str, float]:
        """Add the gradients of one pass, and return its losses."""
        count = self.recipe.batch // (samples_per_pass(self.recipe, self.processes) * self.processes)
        seed_everything(self.recipe.seed, 2, iteration, number)
        data = {key: value.to(self.place) if isinstance(value, torch.Tensor) else value for key, value in data.items()}
        alone = contextlib.nullcontext() if last or self.processes == 1 else self.model.no_sync()  # type: ignore[operator]
        with alone:
            result = self.model(data)
            losses = self.losses.compute({**data, **result}, result["num_filled_objects"])
            found = {key: float(value.detach()) for key, value in losses.items()}
            if not math.isfinite(found["total_loss"]):
                videos = ", ".join(data["info"]["name"])
                raise self._diverged(iteration, f"the loss is {found['total_loss']} (videos {videos})")
            self.scaler.scale(losses["total_loss"] / count).backward()
        return found

    def _update(self, iteration: int) -> float:
        """Make one step of the optimiser, and return the norm of the gradients before clipping."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad_norm)
        if not self.amp and not torch.isfinite(norm):  # with mixed precision the scaler skips such a step
            raise self._diverged(iteration, f"the norm of the gradients is {float(norm)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        return float(norm)

    def _diverged(self, iteration: int, what: str) -> TrackerError:
        return TrackerError(
            f"fine-tuning: {what} at iteration {iteration + 1}; checkpoint {self.saved} in {self.work} "
            "is kept: lower learning_rate, or set amp: false"
        )

    def _save_checkpoint(self, iteration: int) -> None:
        if self.rank == 0:
            state = {
                "identity": self.identity,
                "iteration": iteration,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
                "log": self.log,
            }
            _save(state, self.checkpoint)
            self.write_losses()
        self.saved = iteration
        if self.processes > 1:
            distributed.barrier()

    def write_losses(self) -> None:
        """Write the table of losses so far."""
        with atomic_path(self.work / "loss.parquet") as table:
            pd.DataFrame(self.log).to_parquet(table, index=False)

    def _resume(self) -> int:
        """Load the checkpoint of this same run, if there is one, and return the number of finished iterations."""
        if not self.checkpoint.exists():
            return 0
        try:
            state = read_checkpoint(self.checkpoint)
        except TrackerError:
            logger.warning("%s is damaged: starting anew", self.checkpoint)
            return 0
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            logger.warning("%s belongs to another recipe, data, weights or packages: starting anew", self.checkpoint)
            return 0
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.log = state["log"]
        logger.info("going on after iteration %d", state["iteration"])
        return int(state["iteration"])


def _identity(recipe: FinetuneEntry, datasets: Mapping[str, Path], weights: Path) -> str:
    """Return a digest of everything that changes the result, without how the batch is divided and loaded."""
    numbers = recipe.model_dump(exclude={"from_model", "data", "micro_batch", "workers", "checkpoint_every"})
    return digest_of(
        {
            "recipe": numbers,
            "data": [[name, _content(folder)] for name, folder in datasets.items()],  # their order counts
            "weights": file_sha256(weights),
            "packages": package_versions(_PACKAGES),
            "vosarena": __version__,
        }
    )


def _content(folder: Path) -> list[list[str]]:
    """Return the sequence, the frame, and the checksums of frame and mask, for every annotated frame of a dataset."""
    found = [
        (name, files.frames[index], mask)
        for name in sequence_names(folder / "JPEGImages")
        for files in [read_sequence(folder / "JPEGImages", folder / "Annotations", name)]
        for index, mask in files.masks.items()
    ]
    with ThreadPoolExecutor(_READERS) as pool:
        frames = pool.map(file_sha256, [frame for _, frame, _ in found])
        masks = pool.map(file_sha256, [mask for _, _, mask in found])
        return [[name, frame.stem, *sums] for (name, frame, _), *sums in zip(found, frames, masks, strict=True)]


def _save(state: Any, path: Path) -> None:
    """Call torch.save atomically, so that a killed run leaves either the old file or the new one."""
    with atomic_path(path, alone=True) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
