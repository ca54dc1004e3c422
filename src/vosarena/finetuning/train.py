"""The training loop of one process, alone or in a group of processes under torchrun (gloo or nccl).

All randomness is a function of the seed, the iteration and the position in the batch, so a checkpoint needs no random
states. A training that is killed and started again gives the same weights as one without interruption. On a CPU, with
the same number of processes, they are equal to the bit.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import distributed, nn

from vosarena.base.errors import Stopped, TrackerError
from vosarena.base.files import atomic_path, write_json
from vosarena.base.logs import progress_bar
from vosarena.finetuning.curves import write_curves
from vosarena.finetuning.files import LOSSES, SCORES
from vosarena.finetuning.identity import network_options, training_identity
from vosarena.finetuning.interruption import Stop, Watch, end_of_job, noted_signals
from vosarena.finetuning.recipe import samples_per_pass
from vosarena.finetuning.samples import passes, seed_everything, seeded
from vosarena.finetuning.task import TrainingTask
from vosarena.finetuning.tensorboard import open_writer
from vosarena.finetuning.validation import Validation, is_due, write_scores
from vosarena.trackers.checkpoints import read_checkpoint

if TYPE_CHECKING:
    from vosarena.finetuning.cutie import CutieMethod
    from vosarena.finetuning.sam2 import Sam2Method

logger = logging.getLogger(__name__)


def train(task: TrainingTask) -> None:
    """Train in this process, until the end or until there is a reason to stop; `task.progress` says which.

    The weights are written to `task.output` at the end: the last ones or, of a training that is validated, the best
    ones. Checkpoints, losses, scores and the identity of the training go to `task.work`.

    Raises:
        DataError: The training data cannot be used.
        ConfigError: The recipe is wrong.
        TrackerError: The weights are wrong, or the loss is not finite. The last good checkpoint is kept. Or a
            validation failed.
    """
    # rf-cutie's losses are TorchScript, which is recompiled after the first calls and then rounds differently, so a
    # resumed process would not give the same bits as one without interruption.
    with _group(task.device) as group, torch.jit.optimized_execution(False):
        watch = Watch(task.stop, end_of_job() if group.rank == 0 else None)
        run = _Run(task, group)
        with noted_signals(watch.note):
            run.train(watch)


class _Group:
    """The processes that train together, and this one's place among them.

    Args:
        rank: Number of this process.
        size: Number of processes.
        place: Device of this process.
    """

    def __init__(self, rank: int, size: int, place: torch.device) -> None:
        self.rank, self.size, self.place = rank, size, place

    def largest(self, value: int) -> int:
        """Return the largest of the processes' values."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self.place)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return int(shared)

    def mean(self, row: dict[str, float]) -> dict[str, float]:
        """Return the means of the processes' values."""
        if self.size == 1:
            return row
        shared = torch.tensor(list(row.values()), dtype=torch.float64, device=self.place)
        distributed.all_reduce(shared)
        return dict(zip(row, (shared / self.size).tolist(), strict=True))

    def from_first(self, value: Any) -> Any:
        """Return the value of the first process."""
        if self.size == 1:
            return value
        shared = [value]
        distributed.broadcast_object_list(shared, device=self.place)
        return shared[0]


@contextlib.contextmanager
def _group(device: str) -> Iterator[_Group]:
    """Yield the group of this process. Under torchrun it is connected inside the context."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if size == 1:
        yield _Group(rank, size, place)
        return
    # The others wait while the first process reads all training data for the identity, and while it validates.
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(hours=12))
    yield _Group(rank, size, place)
    distributed.destroy_process_group()  # not after an error: it could wait for the other processes


def _method(task: TrainingTask, place: torch.device) -> CutieMethod | Sam2Method:
    if task.tracker == "sam2":
        from vosarena.finetuning.sam2 import Sam2Method

        return Sam2Method(task.recipe, network_options(task), task.weights, place)
    from vosarena.finetuning.cutie import CutieMethod

    return CutieMethod(task.recipe, task.weights, place)


class _Run:
    """The state of one process of a training."""

    def __init__(self, task: TrainingTask, group: _Group) -> None:
        recipe = task.recipe
        self.task, self.recipe, self.group = task, recipe, group
        self.identity = group.from_first(training_identity(task) if group.rank == 0 else None)
        self.checkpoint = task.work / "checkpoint.pth"
        self.method = _method(task, group.place)
        self.optimizer = self.method.optimizer()
        self.scheduler = self.method.scheduler(self.optimizer)
        self.scaler = torch.amp.GradScaler("cuda", init_scale=8192, enabled=self.method.scaled)
        self.log: list[dict[str, float]] = []
        self.micro: int | None = None
        self.start = self.saved = self._resume()
        self.micro = samples_per_pass(recipe, group.size, self.micro)
        self.count = recipe.batch // (self.micro * group.size)
        self.model: nn.Module = self.method.model
        if group.size > 1:
            self.model = nn.parallel.DistributedDataParallel(
                self.model,
                device_ids=[group.place.index] if group.place.type == "cuda" else None,
                broadcast_buffers=False,
                find_unused_parameters=self.method.unused_parameters,
            )
        self.save_seconds = 0.0
        self.validation: Validation | None = None
        self.writer = None
        if group.rank == 0:
            if recipe.validation:
                self.validation = Validation(task, self.identity["identity"], self.start)
            if recipe.tensorboard:
                self.writer = open_writer(task.work / "tensorboard", self.start)

    def train(self, watch: Watch) -> None:
        """Run all iterations that are left, or as many as there is time for."""
        recipe = self.recipe
        if self.group.rank == 0:
            self._write_progress(self.start, Stop.NO)
        if not self._validate(self.start, watch) and self.start < recipe.iterations:
            self._loop(watch)
        validation = self.validation
        finished = self._is_finished(self.saved) if validation else self.saved == recipe.iterations
        if self.group.rank > 0 or not finished:
            return
        self._write_tables()
        best = validation.best if validation else None
        used = {"used": "best" if best else "last", "iteration": best.iteration if best else self.saved}
        write_json(self.task.work / "training.json", {**self.identity, "weights_of": used})
        if validation and best:
            with atomic_path(self.task.output, alone=True) as temporary:
                shutil.copyfile(validation.best_weights, temporary)
            validation.clean_up()
        else:
            _save(self.method.weights(), self.task.output)
        if self.writer:
            self.writer.close()
        write_curves(self.task.work, self.task.work / "curves.svg")
        self._write_progress(self.saved, Stop.NO)

    def _validate(self, iteration: int, watch: Watch) -> bool:
        """Score the weights, if that is due and not done yet; return whether the training has to stop now.

        The checkpoint of this iteration is on the disk, so that a validation may be interrupted. It draws no random
        number of the training.
        """
        if not is_due(self.recipe, iteration):
            return False
        validation, place = self.validation, self.group.place
        if validation and not validation.has(iteration):
            if place.type == "cuda":
                torch.cuda.empty_cache()
            _save(self.method.weights(), validation.last)
            try:
                with seeded(self.recipe.seed, 3, iteration):
                    validation.run(iteration)
            except Stopped:
                watch.note(signal.SIGTERM)
            if place.type == "cuda":
                torch.cuda.empty_cache()
            if self.writer and validation.has(iteration):
                score = validation.scores[-1]
                for name in ("j_and_f", "j", "f"):
                    self.writer.add_scalar(f"validation/{name}", getattr(score, name), iteration)
        if self.group.largest(int(self._is_finished(iteration))):  # the others wait here
            return True
        reason = Stop(self.group.largest(watch.reason()))
        if reason and self.group.rank == 0:
            self._write_progress(iteration, reason)
        return bool(reason)

    def _is_finished(self, iteration: int) -> bool:
        """Whether a training that is validated needs no iteration and no validation any more."""
        found = self.validation
        return found is not None and found.has(iteration) and (iteration == found.end or found.patience_is_over)

    def _loop(self, watch: Watch) -> None:
        recipe, first = self.recipe, self.group.rank == 0
        samples = self.method.samples(self.task.datasets)
        bar = progress_bar(total=recipe.iterations, initial=self.start, desc="fine-tuning", disable=not first)
        done, waiting, slowest = 0, time.perf_counter(), 0.0
        row: dict[str, float] = {}
        batches = passes(samples, recipe, self.start, self.group.rank, self.group.size, self.micro or 1)
        for iteration, number, data in batches:
            began = time.perf_counter()
            if done == 0:
                row = {"iteration": iteration + 1, "learning_rate": float(self.scheduler.get_last_lr()[-1])}
                row |= {"seconds": 0.0, "waiting": 0.0}
            for key, value in self._backward(iteration, number, data, last=done + 1 == self.count).items():
                row[key] = row.get(key, 0.0) + value / self.count
            done += 1
            if done == self.count:
                row["grad_norm"] = self._update(iteration)
                done = 0
            now = time.perf_counter()
            row["seconds"] += now - waiting
            row["waiting"] += began - waiting
            waiting = now
            if done == 0:
                row = {**self.group.mean(row), "iteration": iteration + 1}
                self.log.append(row)
                if self.writer:
                    for key, value in row.items():
                        self.writer.add_scalar(f"training/{key}", value, iteration + 1)
                bar.update()
                bar.set_postfix(loss=f"{row['total_loss']:.3f}", refresh=False)
                slowest = max(slowest, row["seconds"])
                last = iteration + 1 == recipe.iterations
                due = is_due(recipe, iteration + 1)
                needed = 3 * slowest + 3 * self.save_seconds
                if self.validation and (due or is_due(recipe, iteration + 2)):
                    needed += self.validation.seconds
                reason = self.group.largest(watch.reason(needed))
                if reason or last or due or (iteration + 1) % recipe.checkpoint_every == 0:
                    self._save_checkpoint(iteration + 1, Stop.NO if last and not due else Stop(reason))
                if reason or self._validate(iteration + 1, watch):
                    break
                waiting = time.perf_counter()
        bar.close()

    def _backward(self, iteration: int, number: int, data: dict[str, Any], *, last: bool) -> dict[str, float]:
        """Add the gradients of one pass, and return its losses."""
        place = self.group.place
        seed_everything(self.recipe.seed, 2, iteration, number)
        data = {key: value.to(place) if isinstance(value, torch.Tensor) else value for key, value in data.items()}
        alone = contextlib.nullcontext() if last or self.group.size == 1 else self.model.no_sync()  # type: ignore[operator]
        with alone:
            losses = self.method.losses(self.model, data)
            found = {key: float(value.detach()) for key, value in losses.items()}
            if not math.isfinite(found["total_loss"]):
                videos = ", ".join(data["info"]["name"])
                raise self._diverged(iteration, f"the loss is {found['total_loss']} (videos {videos})")
            self.scaler.scale(losses["total_loss"] / self.count).backward()
        return found

    def _update(self, iteration: int) -> float:
        """Make one step of the optimiser, and return the norm of the gradients before clipping."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.method.network.parameters(), self.recipe.clip_grad_norm)
        if not self.method.scaled and not torch.isfinite(norm):  # a scaler skips such a step
            raise self._diverged(iteration, f"the norm of the gradients is {float(norm)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        return float(norm)

    def _diverged(self, iteration: int, what: str) -> TrackerError:
        return TrackerError(
            f"fine-tuning: {what} at iteration {iteration + 1}; checkpoint {self.saved} in {self.task.work} "
            "is kept: lower learning_rate, or set amp: false"
        )

    def _save_checkpoint(self, iteration: int, reason: Stop) -> None:
        began = time.perf_counter()
        if self.group.rank == 0:
            state = {
                "identity": self.identity["identity"],
                "iteration": iteration,
                "micro_batch": self.micro,
                "network": self.method.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.scaler.state_dict(),
                "log": self.log,
            }
            _save(state, self.checkpoint)
            self._write_tables()
            self._write_progress(iteration, reason)
            if self.writer:
                self.writer.flush()
        self.saved = iteration
        self.group.largest(0)  # wait for the file
        self.save_seconds = max(self.save_seconds, time.perf_counter() - began)

    def _write_tables(self) -> None:
        """Write the tables of losses and scores so far."""
        with atomic_path(self.task.work / LOSSES) as table:
            pd.DataFrame(self.log).to_parquet(table, index=False)
        write_scores(self.validation.scores if self.validation else [], self.task.work / SCORES)

    def _write_progress(self, iteration: int, reason: Stop) -> None:
        """Write how far the training is; the workflow derives the time limit of the next job from it."""
        content: dict[str, Any] = {"iteration": iteration, "iterations": self.recipe.iterations}
        content |= {"began": self.start, "stopped": int(reason)}
        if recent := self.log[-200:]:
            seconds = statistics.median(row["seconds"] for row in recent)
            waiting = sum(row["waiting"] for row in recent) / sum(row["seconds"] for row in recent)
            hours = (self.recipe.iterations - iteration) * seconds / 3600
            if self.validation:
                content["seconds_per_validation"] = self.validation.seconds
                hours += self.recipe.validations_after(iteration) * self.validation.seconds / 3600
            content |= {"seconds_per_iteration": seconds, "waiting_share": waiting, "hours_left": hours}
            logger.info(
                "iteration %d of %d: loss %.4f, %.2f s per iteration of which %.0f %% wait for data, %.1f hours left",
                *(iteration, self.recipe.iterations, recent[-1]["total_loss"], seconds, 100 * waiting, hours),
            )
        write_json(self.task.progress, {**content, "processes": self.group.size})

    def _resume(self) -> int:
        """Load the checkpoint of this same run, if there is one, and return the number of finished iterations."""
        if not self.checkpoint.exists():
            return 0
        try:
            state = read_checkpoint(self.checkpoint)
        except TrackerError:
            logger.warning("%s is damaged: starting anew", self.checkpoint)
            return 0
        if not isinstance(state, dict) or state.get("identity") != self.identity["identity"]:
            logger.warning("%s belongs to another recipe, data, weights or packages: starting anew", self.checkpoint)
            return 0
        self.method.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.log, self.micro = state["log"], state["micro_batch"]
        logger.info("going on after iteration %d", state["iteration"])
        return int(state["iteration"])


def _save(state: Any, path: Path) -> None:
    """Call torch.save atomically, so that a killed run leaves either the old file or the new one."""
    with atomic_path(path, alone=True) as temporary, temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
