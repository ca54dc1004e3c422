"""What a training job gets: a recipe, data, and where the results go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vosarena.config.model_schema import FinetuneEntry


@dataclass(frozen=True)
class HeldOut:
    """The split on which a training is validated.

    Attributes:
        folder: Its folder in canonical layout.
        protocol: Protocol by which it is scored.
        resize: `never` or `nearest`: masks of another size than their frames.
        prompts: What the model gets of each object.
        precision: Number format of the tracker.
    """

    folder: Path
    protocol: str = "davis2017"
    resize: str = "never"
    prompts: str = "mask"
    precision: str = "auto"


@dataclass(frozen=True)
class TrainingTask:
    """A training.

    Attributes:
        recipe: The recipe.
        datasets: Folders of the training data in canonical layout, by "<dataset>/<split>".
        weights: Weights to start from.
        output: File for the trained weights.
        work: Folder for the checkpoint, from which an interrupted training continues, and for the curves.
        tracker: `cutie` or `sam2`.
        options: Options of the tracker.
        device: `auto`, `cpu` or `cuda`.
        evaluated: Splits that must not overlap the training data, in the same form as `datasets`.
        held_out: The split of the recipe's `validate`.
    """

    recipe: FinetuneEntry
    datasets: Mapping[str, Path]
    weights: Path
    output: Path
    work: Path
    tracker: str = "cutie"
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    evaluated: Mapping[str, Path] = field(default_factory=dict)
    held_out: HeldOut | None = None

    @property
    def progress(self) -> Path:
        """File that says how far the training is and how fast it was."""
        return self.work / "progress.json"

    @property
    def stop(self) -> Path:
        """File whose existence asks the processes of the training to save a checkpoint and to end."""
        return self.work / "stop"

    def to_json(self) -> dict[str, Any]:
        """Return the task as a plain mapping, for other processes."""
        return {
            "recipe": self.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "datasets": {name: str(folder) for name, folder in self.datasets.items()},
            "weights": str(self.weights),
            "output": str(self.output),
            "work": str(self.work),
            "tracker": self.tracker,
            "options": dict(self.options),
            "device": self.device,
            "evaluated": {name: str(folder) for name, folder in self.evaluated.items()},
            "held_out": asdict(self.held_out) | {"folder": str(self.held_out.folder)} if self.held_out else None,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        held_out = content["held_out"]
        return cls(
            recipe=FinetuneEntry.model_validate(content["recipe"]),
            datasets={name: Path(folder) for name, folder in content["datasets"].items()},
            weights=Path(content["weights"]),
            output=Path(content["output"]),
            work=Path(content["work"]),
            tracker=content["tracker"],
            options=content["options"],
            device=content["device"],
            evaluated={name: Path(folder) for name, folder in content["evaluated"].items()},
            held_out=HeldOut(**held_out | {"folder": Path(held_out["folder"])}) if held_out else None,
        )
