"""The keys of models in a catalog or config, and of recipes to train them: types, defaults and descriptions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag

from vosarena.base.entry import (
    Bool,
    Entry,
    Float,
    HomeText,
    Int,
    Interpreter,
    Location,
    NameWithPlus,
    NonEmpty,
    Unique,
)
from vosarena.base.names import expand_home
from vosarena.config.dataset_schema import PromptKind
from vosarena.fetching.sources import WeightsEntry


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


ITEM = Discriminator(_form_of_item, custom_error_type="form", custom_error_message="is not text or a mapping")
TrainingItem = Annotated[Annotated[str, Tag("<name>")] | Annotated[TrainingSplit, Tag("<mapping>")], ITEM]


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
