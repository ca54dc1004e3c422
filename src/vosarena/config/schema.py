"""The keys of the config and of catalog entries: types, defaults and descriptions.

This is the only place that knows them. `config/reference.py` writes the documentation and the JSON Schema from it, and
`config/study.py` makes a study of what it accepts.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from vosarena.base.entry import (
    Bool,
    Entry,
    Float,
    Folder,
    HomeText,
    Int,
    Interpreter,
    Location,
    Name,
    NameWithPlus,
    NonEmpty,
    Unique,
    wrong,
)
from vosarena.base.names import expand_home
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import FileEntry, WeightsEntry

ProtocolName = Literal[
    "davis2017",
    "davis2017-official",
    "vos-benchmark",
    "sa-v",
    "sa-v-official",
    "lvos",
    "lvos-official",
    "youtube-vos",
    "mosev2",
    "vost",
    "volumetric",
]
PROTOCOL_NAMES: tuple[ProtocolName, ...] = get_args(ProtocolName)
GroundTruth = Literal["full", "first_frame", "none"]
Layout = Literal["davis", "youtube-vos", "lvos", "sa-v", "folder", "video", "youtube-vis", "burst"]
Resize = Literal["never", "nearest"]
PromptKind = Literal["mask", "box", "1-click", "3-click", "5-click"]


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
        description="Threads with which PyTorch and OpenCV compute on the CPU; also the CPUs of a job without a GPU. "
        "Another number can change the last bits of a model's output, and thus single pixels.",
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


class Sample(Entry):
    """Keep a fraction of the sequences, the same ones on every machine."""

    example: ClassVar[str] = "sample: {fraction: 0.1, seed: 2024}"

    fraction: Float = Field(gt=0, lt=1, description="Fraction of the sequences.")
    seed: Int = Field(0, description="Random seed; another seed draws other sequences.")
    part: Literal["drawn", "rest"] = Field(
        "drawn", description="`rest` keeps the sequences that `drawn` leaves out with the same seed."
    )


class SubmissionEntry(Entry):
    """What the evaluation server expects."""

    example: ClassVar[str] = "submission: {server: https://www.codabench.org/competitions/10062/, frames: all}"

    server: str | None = Field(None, description="URL of the evaluation server.")
    status: Literal["open", "closed"] = Field("open", description="Whether the server takes submissions.")
    checked: str | None = Field(None, description="When and where the status was read.")
    instead: str | None = Field(
        None, description="What can be scored on this machine if the server is closed, such as `lvos-v2/val`."
    )
    folder: str = Field("", description="Folder in the archive that holds the sequences.")
    frames: Literal["all", "required"] = Field(
        "all", description="Which masks to pack: of every frame, or of the frames that `meta.json` lists."
    )
    team: dict[str, Any] | None = Field(
        None, description="Content of `team.json` at the root of the archive (LSVOS 2025)."
    )

    @property
    def notice(self) -> str:
        """A sentence about a closed server, empty for an open one."""
        if self.status == "open":
            return ""
        checked = f" ({self.checked})" if self.checked else ""
        return f"the server takes no submissions{checked}" + (f"; score {self.instead} instead" if self.instead else "")


class OverlapEntry(Entry):
    """Another dataset or split that has videos in common with this one."""

    example: ClassVar[str] = """\
overlaps:
  - {data: ovis, share: 0.5, source: "an author in MOSE-api#28"}"""

    data: NonEmpty = Field(description="The other one, as `<dataset>` or `<dataset>/<split>`.")
    share: Float | None = Field(
        None, gt=0, le=1, description="Fraction of these videos that are in the other one, if it is known."
    )
    source: NonEmpty = Field(description="Where this was read.")


class ArchiveEntry(FileEntry):
    """An archive to download and extract."""

    example: ClassVar[str] = """\
archives:
  - sources:
      - {huggingface: FudanCVL/MOSE, file: train.tar.gz}
      - {page: "https://henghuiding.github.io/MOSE/", file: train.tar.gz}
    sha256: 3f805e66ecb576fdd37a1ab2b06b08a428edd71994920443f70d09537918270b
    root: train"""

    file: NameWithPlus | None = Field(
        None, description="File name in `<resources>/archives/<dataset>/`. Default is the first source's file name."
    )
    root: str | None = Field(
        None, description="Folder in the archive that holds frames and masks. Default is to search for it."
    )
    optional: Bool = Field(False, description="If the file is not available, warn and continue without it.")


class SplitDefaults(Entry):
    """The keys of a split that a dataset can set for all of its splits."""

    protocol: ProtocolName = Field("davis2017", description="Scoring protocol.")
    ground_truth: GroundTruth = Field(
        "full",
        description="`full`: the ground truth is here, and the workflow scores. `first_frame`: the masks are prompts "
        "only, and an evaluation server scores. `none`: no ground truth and no server; predictions only, and the "
        "dataset needs no folder of masks.",
    )
    resize: Resize = Field(
        "never", description="What to do with a mask whose size differs from its frame: stop, or resize to the nearest."
    )
    select: tuple[str, ...] = Field((), description="Keep only sequences that match one of these names or globs.")
    exclude: tuple[str, ...] = Field((), description="Leave out sequences that match one of these names or globs.")
    attributes: tuple[str, ...] = Field((), description="Keep only sequences with one of these attributes.")
    sample: Sample | None = Field(None, description="Keep a fraction of the sequences.")
    images: HomeText | None = Field(None, description="Folder of the frames or videos. Default is that of the layout.")
    masks: HomeText | None = Field(
        None, description="Folder of the masks, or file of their run lengths. Default is that of the layout."
    )
    full_images: HomeText | None = Field(
        None,
        description="Folder with the same frames in a larger size, for models with the option `full_resolution`, whose "
        "masks have the size of the frames in `images`.",
    )
    full_masks: HomeText | None = Field(None, description="Folder of the masks of `full_images`.")
    reader: HomeText | None = Field(
        None,
        description="Instead of `layout`: a class that reads the dataset, as `path/to/file.py:Class` or the name of an "
        "entry point of the group `vosarena.layouts` (`docs/how-to/datasets.md`).",
    )
    prompts: PromptKind = Field(
        "mask",
        description="What models get of each object where it first appears: its mask, its box, or clicks that are "
        "derived from the mask by the rule of SAM 2's evaluation.",
    )
    binary: Bool = Field(False, description="Treat every non-zero pixel of a mask as object 1 (DAVIS 2016).")
    frame_rate: Float | None = Field(
        None,
        gt=0,
        description="Frames per second at which clips are shown. Default is that of the video files; without them, 24.",
    )
    submission: SubmissionEntry | None = Field(None, description="What the evaluation server expects.")
    overlaps: tuple[OverlapEntry, ...] = Field(
        (), description="Other datasets and splits that have videos in common with this one."
    )


class SplitEntry(SplitDefaults):
    """A split of a dataset."""

    example: ClassVar[str] = """\
splits:
  val:
    sequences: 30
    imageset: ImageSets/2017/val.txt
    path: /data/DAVIS"""

    sequences: Int | None = Field(None, ge=1, description="Expected number of sequences.")
    path: Location | None = Field(
        None,
        description="Extracted folder. Relative to the catalog file, or in a config to the working directory.",
    )
    imageset: HomeText | None = Field(
        None, description="File that lists the sequences of the split, such as `ImageSets/2017/val.txt`."
    )
    archives: tuple[ArchiveEntry, ...] = Field((), min_length=1, description="What to download and extract.")
    synthetic: Literal["train", "val", "absence"] | None = Field(
        None, description="Generate the procedural clips of the demo instead of reading files."
    )


class DatasetEntry(SplitDefaults):
    """A dataset: a file in `catalog/datasets/`, or a mapping under `datasets` in the config."""

    example: ClassVar[str] = """\
name: wildlife
title: Wildlife
layout: davis
protocol: sa-v
splits:
  val: {path: /data/wildlife, imageset: val.txt}"""

    name: Name | None = Field(
        None,
        description="Name in `<dataset>/<split>`. Default is the name of the catalog file, or of the folder in `path`.",
    )
    title: str = Field("", description="Name in LaTeX tables and figures. Default is `name`.")
    extends: str | None = Field(
        None,
        description="`<dataset>/<split>` of the catalog to start from. Only in the config, together with a new `name`.",
    )
    layout: Layout = Field(
        "davis",
        description="Layout of frames and masks on disk. `davis`: `JPEGImages/<sequence>/` and "
        "`Annotations/<sequence>/`, optionally under a resolution such as `480p`. `youtube-vos`: `davis` with "
        "`meta.json`. `lvos`: `davis` with `*_meta.json` and `*_meta_attribute.json`. `sa-v`: "
        "`JPEGImages_24fps/<video>/` and `Annotations_6fps/<video>/<object>/`. `folder`: in `images`, one folder of "
        "frames per sequence, or the frames of one sequence. `video`: in `images`, one video file per sequence. "
        "`youtube-vis` and `burst`: run lengths in the JSON file `masks`, in the form of YouTube-VIS (`videos` and "
        "`annotations`) or of BURST (`sequences`).",
    )
    homepage: str | None = Field(None, description="Home page of the dataset.")
    license: str | None = Field(None, description="Licence of the data.")
    citation: tuple[str, ...] = Field((), description="Keys of BibTeX entries in the catalog's `references.bib`.")
    path: Location | None = Field(
        None, description="Extracted folder of a dataset with a single split, which is then named `all`."
    )
    splits: dict[Name, SplitEntry] | None = Field(None, min_length=1, description="Splits by name.")

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        if self.reader and "layout" in self.model_fields_set:
            raise wrong("give either `reader` or `layout`, not both")
        return self


def _form_of_interval(value: Any) -> str:
    return "<mapping>" if isinstance(value, Mapping) else "<number>"


Interval = Annotated[
    Annotated[Annotated[Int, Field(ge=1)], Tag("<number>")]
    | Annotated[dict[str, Annotated[Int, Field(ge=1)]], Tag("<mapping>")],
    Discriminator(_form_of_interval),
]


class Sam2Recipe(Entry):
    """How SAM 2 is prompted and what it learns from a clip.

    The defaults are those of the official recipe (facebookresearch/sam2,
    `sam2/configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml`).
    """

    example: ClassVar[str] = "sam2: {points: 0.0, prompted_frames: 1}   # masks of the first frame only"

    points: Float = Field(
        0.5, ge=0, le=1, description="Fraction of the passes that are prompted by clicks and boxes instead of masks."
    )
    boxes: Float = Field(0.5, ge=0, le=1, description="Fraction of these prompts that are boxes.")
    prompted_frames: Int = Field(2, ge=1, description="Maximum number of frames with a prompt, the first always.")
    corrected_frames: Int = Field(
        2, ge=1, description="Maximum number of frames that get more clicks, in a pass that is not prompted by masks."
    )
    clicks: Int = Field(7, ge=0, description="Number of such clicks on a frame, each where the prediction is wrong.")
    clicks_on_truth: Float = Field(
        0.1, ge=0, le=1, description="Fraction of these clicks that are set on the object, whatever was predicted."
    )
    loss_mask: Float = Field(20.0, ge=0, description="Weight of the focal loss of the masks.")
    loss_dice: Float = Field(1.0, ge=0, description="Weight of the dice loss of the masks.")
    loss_iou: Float = Field(1.0, ge=0, description="Weight of the error of the predicted IoU.")
    loss_class: Float = Field(1.0, ge=0, description="Weight of the loss of the predicted presence of objects.")
    layer_decay: Float = Field(
        0.9, gt=0, le=1, description="Factor of the learning rate from one layer of the image encoder to the one below."
    )
    drop_path: Float = Field(0.1, ge=0, lt=1, description="Stochastic depth of the last layer of the image encoder.")
    image_encoder: Bool = Field(True, description="Train the image encoder too.")


class ValidationEntry(Entry):
    """Scores of the model during a training, on videos that it does not learn from.

    The model is scored as by the workflow, before the first iteration, every so many iterations, and after the last
    one. The weights with the highest J&F become those of the model.
    """

    example: ClassVar[str] = "validate: {split: mose/val-local, every: 1000, patience: 5}"

    split: NonEmpty = Field(
        description="Split with ground truth, as `<dataset>/<split>`. It must not be among the training data, and the "
        "study must not evaluate on it."
    )
    every: Int = Field(1000, ge=1, description="Iterations between two validations.")
    patience: Int | None = Field(
        None,
        ge=1,
        description="Stop the training after this many validations in a row without a higher J&F. Default is to go on "
        "to the end.",
    )


# Defaults of a recipe for SAM 2 where they differ from those for Cutie. Source: see Sam2Recipe; 40 epochs of the 1,507
# videos of MOSE, each twice per epoch, in batches of 8.
_SAM2_DEFAULTS: Mapping[str, Any] = {
    "iterations": 15070,
    "batch": 8,
    "learning_rate": 5e-6,
    "weight_decay": 0.1,
    "backbone_lr_ratio": 0.6,
    "clip_grad_norm": 0.1,
}
# Keys that only the training of Cutie reads.
_CUTIE_KEYS = (
    *("lr_steps", "lr_gamma", "model", "crop", "reference_frames", "merge_probability", "deep_update_prob"),
    *("max_skip", "max_skip_from", "frame_interval", "embed_weight_decay", "points", "oversample_ratio"),
    "importance_sample_ratio",
)

# Keys of a recipe that only change how the work is divided or when it is saved, not what is learned.
DIVISION = (
    *("from_model", "data", "micro_batch", "workers", "cache_gb", "checkpoint_every", "gpus", "nodes", "tensorboard"),
)


class TrainingSplit(Entry):
    """A split to train on and how often it is seen, relative to the others."""

    example: ClassVar[str] = "data: [{split: mose/train, weight: 1}, {split: lvos-v2/train, weight: 2.5}]"

    split: NonEmpty = Field(description="The split, as `<dataset>/<split>`.")
    weight: Float = Field(
        1.0,
        gt=0,
        description="How often an epoch has each frame of the split (SAM 2: each video). With 2.5, every frame occurs "
        "twice, and half of the frames, others in every epoch, once more.",
    )


def _form_of_item(value: Any) -> str | None:
    if isinstance(value, str):
        return "<name>"
    return "<mapping>" if isinstance(value, Mapping | Entry) else None


_ITEM = Discriminator(_form_of_item, custom_error_type="form", custom_error_message="is not text or a mapping")
TrainingItem = Annotated[Annotated[str, Tag("<name>")] | Annotated[TrainingSplit, Tag("<mapping>")], _ITEM]


class FinetuneEntry(Entry):
    """How to train the weights, as an alternative to `weights`, starting from the weights of another model.

    The model's tracker is `cutie` or `sam2`. The defaults up to `lr_gamma` are those of the LSVOS 2024 paper, those
    from `model` on are those of Cutie's own `main_training` stage (Cheng et al., CVPR 2024). Where a description gives
    another value for SAM 2, it is that of its official recipe.
    """

    example: ClassVar[str] = """\
finetune:
  from: cutie-base-plus
  data: [mose/train, lvos-v2/train]
  iterations: 20000
  frame_interval: {mose/train: 5, lvos-v2/train: 5}"""

    from_model: str | None = Field(None, alias="from", description="Model whose weights training starts from.")
    data: tuple[TrainingItem, ...] = Field(
        (), min_length=1, description="Splits to train on: `<dataset>/<split>`, or a mapping with a `weight`."
    )
    iterations: Int = Field(20000, ge=1, description="Steps of the optimiser (AdamW). SAM 2: 15070.")
    batch: Int = Field(16, ge=1, description="Samples per step, summed over all processes. SAM 2: 8.")
    learning_rate: Float = Field(1e-4, gt=0, description="Initial learning rate. SAM 2: 5e-6.")
    weight_decay: Float = Field(1e-3, ge=0, description="Weight decay. SAM 2: 0.1, and 0 for biases and LayerNorm.")
    lr_steps: tuple[Int, ...] = Field(
        (15000,),
        description="Iterations after which the learning rate is multiplied by `lr_gamma`. Cutie only; SAM 2 has a "
        "cosine to a tenth.",
    )
    lr_gamma: Float = Field(0.1, description="See `lr_steps`.")
    model: Literal["base", "small", "tiny"] = Field(
        "base",
        description="Size of the network, as in the tracker's option `model`. Cutie only; for SAM 2 the tracker's "
        "options `config` and `image_size` count.",
    )
    crop: Int = Field(480, ge=1, description="Side length of the square training images in pixels. Cutie only.")
    frames: Int = Field(8, ge=1, description="Frames per sample.")
    objects: Int = Field(
        3, ge=2, description="Maximum number of objects per sample. A single object would need another network."
    )
    reference_frames: Int = Field(3, ge=1, description="Maximum number of frames in memory during training.")
    merge_probability: Float = Field(
        0.5, ge=0, le=1, description="Fraction of samples into which objects of a second sequence are pasted."
    )
    deep_update_prob: Float = Field(
        0.2, ge=0, le=1, description="Fraction of frames after which the sensory memory gets a deep update."
    )
    max_skip: tuple[Annotated[Int, Field(ge=1)], ...] = Field(
        (5, 10, 15, 5),
        min_length=1,
        description="Maximum distance between neighbouring frames of a sample, one value per training phase.",
    )
    max_skip_from: tuple[Float, ...] = Field(
        (0.0, 0.1, 0.3, 0.8),
        min_length=1,
        description="Start of each phase of `max_skip`, as a fraction of the iterations.",
    )
    frame_interval: Interval = Field(
        1,
        description="Distance between annotated frames, by which `max_skip` is divided: one number for all data, or "
        "one per `<dataset>/<split>`.",
    )
    backbone_lr_ratio: Float = Field(
        0.1, ge=0, description="Learning rate of the image encoders, relative to `learning_rate`. SAM 2: 0.6."
    )
    embed_weight_decay: Float = Field(0.0, ge=0, description="Weight decay of the embeddings.")
    clip_grad_norm: Float = Field(3.0, gt=0, description="Maximum norm of the gradient. SAM 2: 0.1.")
    points: Int = Field(12544, ge=1, description="Number of points at which the loss is computed.")
    oversample_ratio: Float = Field(3.0, ge=1, description="Candidate points per point of the loss.")
    importance_sample_ratio: Float = Field(
        0.75, ge=0, le=1, description="Fraction of the points that are chosen where the predicted mask is uncertain."
    )
    sam2: Sam2Recipe = Field(default_factory=Sam2Recipe, description="How SAM 2 is prompted, and its losses.")
    amp: Bool = Field(True, description="Mixed precision, on CUDA only (SAM 2: bfloat16).")
    seed: Int = Field(14159265, description="Random seed.")
    micro_batch: Int | None = Field(
        None,
        ge=1,
        description="Samples per forward pass and process. Gradients are accumulated if it is less than the process's "
        "share of the batch.",
    )
    workers: Int = Field(8, ge=0, description="Data loading processes per training process.")
    cache_gb: Float = Field(
        0.0,
        ge=0,
        description="Memory of a node, in GB, for decoded frames and masks, so that they are decoded once: those of "
        "the first videos that fit. The job asks for this memory in addition.",
    )
    checkpoint_every: Int = Field(500, ge=1, description="Iterations between checkpoints.")
    validation: ValidationEntry | None = Field(
        None, alias="validate", description="Score the model during the training, and keep the best weights."
    )
    tensorboard: Bool = Field(
        False, description="Also write files for TensorBoard (`pip install 'vosarena[tensorboard]'`)."
    )
    gpus: Int = Field(
        1, ge=1, description="GPUs per node, with one training process each. Without a GPU, processes on the CPU."
    )
    nodes: Int = Field(1, ge=1, description="Nodes of a cluster.")

    @property
    def weights(self) -> dict[str, float]:
        """The splits to train on, with their weights."""
        items = (TrainingSplit(split=item) if isinstance(item, str) else item for item in self.data)
        return {item.split: item.weight for item in items}

    @property
    def training_splits(self) -> tuple[str, ...]:
        """The names of the splits to train on."""
        return tuple(self.weights)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that decide the weights: the training data, and the one on which the training is validated."""
        return (*self.weights, self.validation.split) if self.validation else self.training_splits

    @property
    def cache_bytes(self) -> int:
        """Memory of one training process for decoded frames and masks."""
        return int(self.cache_gb * 10**9) // self.gpus

    def validations_after(self, iteration: int) -> int:
        """Return how many validations come after an iteration, if the training goes on to its end."""
        if not self.validation:
            return 0
        return -(-self.iterations // self.validation.every) - iteration // self.validation.every

    def for_tracker(self, tracker: str) -> Self:
        """Return the recipe with the defaults of a tracker.

        Raises:
            ValueError: The tracker cannot be trained, or a key does not belong to it; a sentence for the user.
        """
        if tracker == "cutie":
            if "sam2" in self.model_fields_set:
                raise ValueError("the key 'sam2' is for the tracker sam2, not for cutie; leave it out")
            return self
        if tracker != "sam2":
            raise ValueError(f"the tracker {tracker!r} cannot be trained; use a model of cutie or sam2")
        for key in _CUTIE_KEYS:
            if key in self.model_fields_set:
                raise ValueError(f"the key {key!r} is for the tracker cutie, not for sam2; leave it out")
        changes = {key: value for key, value in _SAM2_DEFAULTS.items() if key not in self.model_fields_set}
        return self.model_copy(update=changes)


class ModelEntry(Entry):
    """A model: an entry of a file in `catalog/models/`, or a mapping under `models` in the config."""

    example: ClassVar[str] = """\
name: cutie-small-720
extends: cutie-small
options: {size: 720}"""

    name: NameWithPlus | None = Field(None, description="Name of the model. Only in the config.")
    extends: str | None = Field(
        None, description="Model of the catalog to start from. Only in the config, together with a new `name`."
    )
    title: str = Field(
        "", description="Name in LaTeX tables and figures. Default is `name`; `extends` does not copy it."
    )
    description: str = Field("", description="One line about the model.")
    tracker: HomeText | None = Field(
        None,
        description="A built-in tracker, an entry point of the group `vosarena.trackers`, or `path/to/file.py:Class`.",
    )
    options: Annotated[dict[str, Any], AfterValidator(expand_home)] = Field({}, description="Options of the tracker.")
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        {},
        min_length=1,
        description="Options with several values each: one model for every combination, named after its values. Only "
        "in the config.",
    )
    masks: Location | None = Field(
        None,
        description="Instead of a tracker: a folder of predictions that somebody else made, `<sequence>/<frame>.png`. "
        "Only in the config.",
    )
    ensemble: Annotated[tuple[str, ...], Unique] = Field(
        (),
        min_length=1,
        description="Instead of a tracker: models that are listed before this one, whose predictions are combined. Of "
        "labels with the same number of votes, that of the first model counts. Only in the config.",
    )
    by: Literal["vote", "mean"] = Field(
        "vote",
        description="How an `ensemble` combines the predictions: `vote` of the masks, or `mean` of the models' logits, "
        "for which the models track again, together in one job.",
    )
    prompts: PromptKind | None = Field(
        None, description="What this model gets of each object. Default is what `prompts` of the dataset says."
    )
    weights: WeightsEntry | None = Field(None, description="Where the weights come from.")
    finetune: FinetuneEntry | None = Field(None, description="How to train the weights.")
    trained_on: Annotated[tuple[NonEmpty, ...], Unique] | None = Field(
        None,
        description="Data with which the weights were trained, as `<dataset>` or `<dataset>/<split>`, also "
        "of datasets outside the catalog. `[]` if there is none; without the key, it is not known. A fine-tuned model "
        "needs no such key: its data are `finetune.data` and those of the model that it starts from.",
    )
    env: NameWithPlus = Field(
        "default",
        description="The conda environment `envs/NAME.yaml`, used if Snakemake is started with `--sdm conda`.",
    )
    python: Interpreter | None = Field(
        None,
        description="Python interpreter that runs the model instead of the current one or `env`, such as "
        "`/envs/fork/bin/python`. Relative to the catalog file, or in a config to the working directory "
        "(`docs/how-to/models.md`).",
    )
    revision: Int = Field(1, ge=1, description="Increase it to compute all predictions of the model again.")
    citation: tuple[str, ...] = Field((), description="Keys of BibTeX entries in the catalog's `references.bib`.")
    paper: str = Field("", description="Address of the paper, which the report links to.")
    code: str = Field("", description="Address of the code, which the report links to.")
    license: str = Field("", description="Licence of the weights.")
    parameters: str = Field("", description="Number of parameters, such as `38.9 M`.")


DatasetItem = Annotated[Annotated[str, Tag("<name>")] | Annotated[DatasetEntry, Tag("<mapping>")], _ITEM]
ModelItem = Annotated[Annotated[str, Tag("<name>")] | Annotated[ModelEntry, Tag("<mapping>")], _ITEM]


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
