"""The keys of the config: types, defaults and descriptions.

Those of datasets and models, which are also keys of the catalog, are in `dataset_schema` and `model_schema`. No other
place knows keys. `config/reference.py` writes the documentation and the JSON Schema from them, and `config/study.py`
makes a study of what they accept.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from vosarena.base.entry import Entry, Float, Folder, Int, Location, Name, Unique, wrong
from vosarena.config.dataset_schema import DatasetEntry, ProtocolName
from vosarena.config.model_schema import ITEM, ModelEntry
from vosarena.fetching.policy import RetryPolicy


def _form_of_size(value: Any) -> str:
    return "<auto>" if value == "auto" else "<number>"


JobSize = Annotated[
    Annotated[Literal["auto"], Tag("<auto>")] | Annotated[Annotated[Int, Field(ge=0)], Tag("<number>")],
    Discriminator(_form_of_size),
]


class Inference(Entry):
    """How inference jobs run."""

    example: ClassVar[str] = "inference: {device: cuda, precision: bf16}"

    sequences_per_job: JobSize = Field(
        "auto",
        description="Sequences per inference job, which loads its model once. `auto` makes as many jobs as can run at "
        "the same time on this machine; on a cluster, as many as keep the start of a job below 5 % of its time.",
    )
    minutes_per_job: Int = Field(
        0,
        ge=0,
        description="Alternative to `sequences_per_job`: time limit per inference job in minutes, including 10 for "
        "start-up. Jobs are filled up to that limit by a conservative estimate. 0 means no limit.",
    )
    jobs_per_gpu: Int = Field(
        1,
        ge=1,
        description="Inference jobs that share a GPU of this machine. On a cluster, the scheduler decides.",
    )
    cpus_per_gpu_job: Int = Field(
        4,
        ge=1,
        description="CPUs of an inference job on a GPU: they read and resize frames and write masks while the GPU "
        "computes. On one machine, a job gets at most its share of `--cores`.",
    )
    threads: Int = Field(
        1,
        ge=1,
        description="Threads with which PyTorch and OpenCV compute on the CPU, also in a training; also the CPUs of a "
        "job without a GPU. Another number can change the last bits of a model's output, and thus single pixels.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        description="Where models run. `auto` uses a CUDA device if there is one. `mps` is the GPU of an Apple "
        "computer; what torch cannot compute there, it computes on the CPU.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Number format of the models. `auto` is the reference implementation's own choice."
    )

    write_masks: Literal["all", "required"] = Field(
        "all",
        description="Which masks are written: those of all frames, or those that are required, which are the frames "
        "with ground truth, or those that a server expects (YouTube-VOS). All frames are tracked in any case.",
    )
    real_time: Float | None = Field(
        None,
        gt=0,
        description="Frames per second that models must keep up with: a frame whose mask is late keeps the mask before "
        "it (`docs/reference/protocols.md#real-time`). By default, models have all the time.",
    )

    @model_validator(mode="after")
    def _check_job_size(self) -> Self:
        if self.minutes_per_job and self.sequences_per_job and "sequences_per_job" in self.model_fields_set:
            raise wrong(
                "sequences_per_job and minutes_per_job are both given; leave out one or set it to 0 (a profile may "
                "give it too)"
            )
        return self


class Download(Entry):
    """How archives and weights are downloaded."""

    example: ClassVar[str] = "download: {attempts: 10, timeout: 60, archives: remove}"

    attempts: Int = Field(
        RetryPolicy.attempts, ge=1, description="Give up after this many consecutive attempts without new data."
    )
    timeout: Float = Field(
        RetryPolicy.timeout, gt=0, description="Seconds without data before a connection is dropped."
    )
    archives: Literal["keep", "remove"] = Field(
        "keep", description="Keep or remove archives in `<resources>/archives/` after they are extracted."
    )

    @property
    def policy(self) -> RetryPolicy:
        """How patient downloads are."""
        return RetryPolicy(self.attempts, self.timeout)


class Figures(Entry):
    """What the figures for papers show."""

    example: ClassVar[str] = "figures: {sequences: [demo/val/round-01]}"

    sequences: tuple[str, ...] = Field(
        (),
        description="Sequences in pictures and curves, as `<dataset>/<split>/<sequence>`. Default, and for splits "
        "without any in this list: the two sequences on which the models differ most.",
    )


class Pathvars(Entry):
    """Where files go: Snakemake's path variables."""

    example: ClassVar[str] = "pathvars: {resources: /shared/vosarena/resources, logs: /scratch/logs}"

    results: Folder = Field("results", description="Predictions, metrics, and the results of each study.")
    resources: Folder = Field("resources", description="Datasets and weights. Several users can share this folder.")
    logs: Folder = Field("logs", description="One log file per job.")
    benchmarks: Folder = Field("<results>/benchmarks", description="Run time and memory of every job.")


DatasetItem = Annotated[Annotated[str, Tag("<name>")] | Annotated[DatasetEntry, Tag("<mapping>")], ITEM]
ModelItem = Annotated[Annotated[str, Tag("<name>")] | Annotated[ModelEntry, Tag("<mapping>")], ITEM]


class Config(Entry):
    """A study: what to evaluate, and how. These are all keys of the workflow's config file."""

    example: ClassVar[str] = """\
study: my-study
datasets: [davis2017/val, {path: my-videos}]
models: [cutie-base, {name: mine, tracker: "my_tracker.py:Mine"}]"""

    datasets: tuple[DatasetItem, ...] = Field(
        min_length=1,
        description="Splits to evaluate: `<dataset>/<split>` of the catalog, or a mapping like a catalog entry, of "
        "which all splits are used. `{path: FOLDER}` is a dataset on its own.",
    )
    models: tuple[ModelItem, ...] = Field(
        min_length=1,
        description="Models to compare: names from the catalog, or mappings like a catalog entry with a `name`. "
        "`extends` starts from an entry of the catalog and changes what the mapping contains.",
    )
    study: Name | None = Field(
        None,
        description="Name of the study. Its results go to `<results>/studies/<study>/`. Default is the name of the "
        "config file given last, without its suffix.",
    )
    protocols: Annotated[tuple[ProtocolName, ...], Unique] = Field(
        (),
        min_length=1,
        description="Scoring protocols for all datasets. Default is the protocol of each split in the catalog.",
    )
    inference: Inference = Field(default_factory=Inference, description="How inference jobs run.")
    download: Download = Field(default_factory=Download, description="How archives and weights are downloaded.")
    figures: Figures = Field(default_factory=Figures, description="What the figures for papers show.")
    catalog: tuple[Location, ...] = Field(
        (),
        description="Additional catalog folders, each with `datasets/` and `models/`. Their entries replace built-in "
        "entries of the same name.",
    )
    pathvars: Pathvars = Field(default_factory=Pathvars, description="Where files go.")
