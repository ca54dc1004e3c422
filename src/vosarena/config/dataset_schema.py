"""The keys of datasets in a catalog or config: types, defaults and descriptions."""

from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from vosarena.base.entry import Bool, Entry, Float, HomeText, Int, Location, Name, NameWithPlus, NonEmpty, wrong
from vosarena.fetching.sources import FileEntry

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
    synthetic: Literal["train", "val", "absence", "low-contrast-train", "low-contrast-val"] | None = Field(
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
