"""What a run of a study would need and do, from the files that are here. Nothing is downloaded or run."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vosarena.base.errors import DataError
from vosarena.base.names import WEIGHTS_FOLDER
from vosarena.config.catalogs import Model, Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.datasets.archives import archive_state, archives_of
from vosarena.datasets.table import SequenceRecord, read_table
from vosarena.fetching.sources import FileEntry, LocalSource, PageSource, RemoteSource, Repository
from vosarena.fetching.weights import local_weights, place_of
from vosarena.orchestration.machine import cpus_of_gpu_job
from vosarena.orchestration.shards import START_SECONDS, Workload, split_into_shards
from vosarena.orchestration.training import TrainingJob
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store
from vosarena.trackers.base import uses_torch

ASSUMED_FRAMES = 100
ASSUMED_OBJECTS = 2
_ASSUMED_SIZE = (480, 854)
_SAMPLE = 100  # sequences of a split that a speed is measured on
_PIXELS_PER_BYTE = 100  # of masks as PNG files; those of DAVIS and of the videos of the tests have 160 to 280


@dataclass(frozen=True)
class PlannedFile:
    """An archive or weights that a study needs.

    Attributes:
        name: Name of the file.
        how: `here`, `download` (by the workflow), `by hand`, or `optional` (by hand, and the workflow goes on without).
        size: Size in bytes; None if it is not known.
        origin: Where it is fetched from: a description of the source, or the page for a person.
        source_file: Its name on that page, where it has another one.
        place: Where it is kept, and where a person saves it.
        licence: Licence of the data.
        is_archive: Whether it is unpacked, which takes as much space again.
    """

    name: str
    how: Literal["here", "download", "by hand", "optional"]
    size: int | None
    origin: str
    source_file: str
    place: Path
    licence: str
    is_archive: bool


@dataclass(frozen=True)
class PlannedRun:
    """One model on one split.

    Attributes:
        split: Name of the split.
        model: Name of the model.
        kind: How it runs: `baseline`, `cpu` or `gpu`.
        sequences: Number of sequences; None if it is not known yet.
        finished: Number of sequences that earlier runs have finished.
        jobs: Number of tracking jobs that are left.
        hours: Estimate of the hours that these jobs take together, on one GPU or on one CPU.
        measured: Whether the estimate relies on the time that this model took for other sequences.
        mask_bytes: Estimate of the size of the masks that are written.
        assumed: Whether the split is not prepared yet, so that frames and objects are assumed.
    """

    split: str
    model: str
    kind: str
    sequences: int | None = None
    finished: int = 0
    jobs: int | None = None
    hours: float | None = None
    measured: bool = False
    mask_bytes: int = 0
    assumed: bool = True


@dataclass(frozen=True)
class PlannedTraining:
    """A model that is fine-tuned.

    Attributes:
        model: Name of the model.
        iterations: Number of iterations.
        gpus: Number of GPUs over all nodes; 0 on the CPU.
        hours: Estimate of the hours that are left.
        measured: Whether the estimate relies on the speed of an earlier job of the training.
        disk_bytes: Estimate of the size of weights and checkpoint.
    """

    model: str
    iterations: int
    gpus: int
    hours: float
    measured: bool
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a run of a study would need and do.

    Attributes:
        files: Archives and weights.
        runs: Every model on every split.
        trainings: Models that are fine-tuned first.
        needed_bytes: Estimate of the disk space that the run takes, without files of unknown size.
        free_bytes: Free space where the results are written.
    """

    files: list[PlannedFile]
    runs: list[PlannedRun]
    trainings: list[PlannedTraining]
    needed_bytes: int
    free_bytes: int

    @property
    def by_hand(self) -> list[PlannedFile]:
        """The files without which the run would fail, and which only a person can fetch."""
        return [file for file in self.files if file.how == "by hand"]


def plan_study(study: Study, paths: Paths, *, gpus: int, cores: int, cluster: bool = False) -> Plan:
    """Return what a run of a study would need and do.

    Args:
        study: The study.
        paths: Its files.
        gpus: GPUs of this machine.
        cores: CPU cores of the run.
        cluster: Whether a scheduler distributes the jobs, to machines with GPUs.

    Raises:
        DataError: A table of sequences is damaged.
        ConfigError: An archive of a dataset has no name.
    """
    return _Planner(study, paths, gpus, cores, cluster).plan()


@dataclass(frozen=True)
class _Planner:
    study: Study
    paths: Paths
    gpus: int
    cores: int
    cluster: bool

    def plan(self) -> Plan:
        files = [*self._archives(), *self._weights()]
        models = self.study.models.values()
        runs = [self._run(split, model) for split in self.study.splits.values() for model in models]
        trainings = [
            self._training(model)
            for model in models
            if model.finetune and not (self.paths.finetuned(model.name) / "weights.pth").is_file()
        ]
        fetched = sum((file.size or 0) * (2 if file.is_archive else 1) for file in files if file.how != "here")
        needed = fetched + sum(run.mask_bytes for run in runs) + sum(each.disk_bytes for each in trainings)
        return Plan(files, runs, trainings, needed, _free_bytes(self.paths.results))

    def _training(self, model: Model) -> PlannedTraining:
        recipe, kind = model.recipe, self._kind(model)
        if not self.cluster:  # a machine trains on what it has
            recipe = recipe.model_copy(update={"gpus": min(recipe.gpus, self.gpus or self.cores)})
        job = TrainingJob(recipe, self.paths.finetuned(model.name) / "checkpoint", uses_gpus=kind == "gpu")
        held_out = recipe.validation and self._records(self.study.split(recipe.validation.split))
        hours, measured = job.hours(kind, Workload.sum(map(Workload.of, held_out)) if held_out else None)
        start = self.study.model(recipe.from_model or "")
        gpus = recipe.gpus * recipe.nodes if kind == "gpu" else 0
        size = job.disk_bytes((start.weights.bytes if start.weights else None) or 4 * start.parameter_count())
        return PlannedTraining(model.name, recipe.iterations, gpus, hours, measured, size)

    def _archives(self) -> Iterable[PlannedFile]:
        found: dict[Path, PlannedFile] = {}
        for split in self.study.every_split():
            entry = self.study.catalog.datasets.get(split.dataset)
            for archive in archives_of(split):
                state = archive_state(archive, self.paths.resources)
                here = self.paths.sequences(split).is_file() or state not in ("absent", "partial")
                place, name = archive.place(self.paths.resources), f"{archive.namespace}/{archive.file}"
                licence = entry.license if entry and entry.license else ""
                file = _planned(name, archive.entry, place, "dataset", here, archive.entry.optional, licence)
                if place not in found or file.how != "here":
                    found[place] = file
        return found.values()

    def _weights(self) -> Iterable[PlannedFile]:
        found: dict[Path, PlannedFile] = {}
        for name in dict.fromkeys([*self.study.models, *self._bases()]):
            model = self.study.model(name)
            if model.weights:
                place = place_of(model.weights, name, self.paths.resources)
                here = local_weights(model.weights, name, self.paths.resources) is not None
                file = _planned(f"weights of {name}", model.weights, place, "model", here, False, model.license)
                if not here and model.weights.denied():
                    page = model.weights.sources[0].web_page("model") or ""
                    file = replace(file, how="by hand", origin=page, source_file=" and ".join(WEIGHTS_FOLDER))
                found[place] = file
        return found.values()

    def _bases(self) -> Iterable[str]:
        """Return the models that fine-tuning of the study starts from."""
        for model in self.study.models.values():
            for step in self.study.trainings(model):
                if step.from_model:
                    yield step.from_model

    def _run(self, split: Split, model: Model) -> PlannedRun:
        kind = self._kind(model)
        assumed = not self.paths.sequences(split).is_file()
        if assumed and split.sequences is None:
            return PlannedRun(str(split), model.name, kind)
        records = self._records(split)
        work = {record.sequence: Workload.of(record) for record in records}
        finished = (
            set()
            if assumed
            else _finished(Store(self.paths.predictions(split, model.name)), model.definition(split), work)
        )
        if finished == set(work):
            return PlannedRun(str(split), model.name, kind, len(work), len(work), jobs=0, hours=0.0, assumed=assumed)
        gpu_jobs = self.gpus * self.study.inference.jobs_per_gpu
        cpus = (
            cpus_of_gpu_job(self.study.inference.cpus_per_gpu_job, self.cores, gpu_jobs)
            if kind == "gpu" and gpu_jobs
            else 1
        )
        at_once = None if self.cluster else max(1, min(self.cores // cpus, gpu_jobs if kind == "gpu" else self.cores))
        shards = split_into_shards(work, self.study.inference, kind, at_once)
        left = [names for names in shards.values() if not finished.issuperset(names)]
        todo = [work[name] for name in work if name not in finished]
        speed = _measured(model.name, model.definition(split), self.paths, kind)
        seconds = (speed or 1) * sum(found.usual_seconds(kind) for found in todo) + len(left) * START_SECONDS[kind]
        size = sum(found.frames * found.pixels for found in todo) // _PIXELS_PER_BYTE
        return PlannedRun(
            split=str(split),
            model=model.name,
            kind=kind,
            sequences=len(work),
            finished=len(finished),
            jobs=len(left),
            hours=seconds / 3600,
            measured=speed is not None,
            mask_bytes=size,
            assumed=assumed,
        )

    def _records(self, split: Split) -> list[SequenceRecord]:
        """Return the sequences of a split; assumed ones if it is not prepared yet."""
        table = self.paths.sequences(split)
        if not table.is_file():
            return _assumed_records(split)
        return [record for record in read_table(table) if not record.problem]

    def _kind(self, model: Model) -> str:
        models = [self.study.model(name) for name in model.ensemble] if model.tracks_together else [model]
        if not any(each.weights or each.finetune or uses_torch(each.tracker) for each in models):
            return "baseline"
        device = self.study.inference.device
        return "gpu" if device == "mps" or (device != "cpu" and (self.gpus or self.cluster)) else "cpu"


def _planned(
    name: str, entry: FileEntry, place: Path, repository: Repository, here: bool, optional: bool, licence: str
) -> PlannedFile:
    local = [source for source in entry.sources if isinstance(source, LocalSource) and source.path.exists()]
    remote = [source for source in entry.sources if isinstance(source, RemoteSource)]
    pages = [page for source in entry.sources if (page := source.web_page(repository))]
    manual = [source for source in entry.sources if isinstance(source, PageSource)]
    how: Literal["here", "download", "by hand", "optional"]
    if here or local:
        how, origin = "here", ""
    elif remote:
        how, origin = "download", remote[0].describe()
    else:
        how, origin = "optional" if optional else "by hand", pages[0] if pages else ""
    source_file = next((file for source in manual if (file := source.file_name())), place.name)
    return PlannedFile(name, how, entry.bytes, origin, source_file, place, licence, repository == "dataset")


def _finished(store: Store, definition: ModelDefinition, names: Iterable[str]) -> set[str]:
    """Return the sequences whose masks were made by this definition of the model."""
    try:
        manifests = store.manifests(names)
    except DataError:
        return set()
    return {name for name, found in manifests.items() if found.identity.definition == definition}


def _measured(model: str, definition: ModelDefinition, paths: Paths, kind: str) -> float | None:
    """Return the time that a model took so far, as a multiple of the usual one; None if it has not run in this way."""
    took = usual = 0.0
    for folder in sorted((paths.results / "predictions").glob(f"*/*/{model}")):
        names = [file.stem for file in sorted(folder.glob("[!.]*.json"))[:_SAMPLE]]
        for found in Store(folder).manifests(names).values():
            if found.identity.definition == definition and (found.memory.gpu is None) == (kind != "gpu"):
                frames = len(found.frames)
                objects = len({number for ids in found.prompts.values() for number in ids})
                took += found.timing.track
                usual += Workload(frames, frames * max(1, objects), 0, objects).usual_seconds(kind)
    return took / usual if usual else None


def _assumed_records(split: Split) -> list[SequenceRecord]:
    count = split.sequences or 0
    if split.sample:
        drawn = max(1, round(split.sample.fraction * count))
        count = drawn if split.sample.part == "drawn" else count - drawn
    height, width = _ASSUMED_SIZE
    objects = tuple(range(1, ASSUMED_OBJECTS + 1))
    return [
        SequenceRecord(f"{index}", n_frames=ASSUMED_FRAMES, height=height, width=width, object_ids=objects)
        for index in range(count)
    ]


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(existing).free
