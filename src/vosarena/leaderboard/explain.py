"""Explain why published numbers of a model differ from each other and from the score measured here.

What can be computed from the counts has points: each choice in which protocols differ. What only the source states,
such as the checkpoint or the number of sequences, is named without points.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vosarena.config.catalogs import Model, Split
from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.config.training_data import TrainingData
from vosarena.datasets.table import read_table
from vosarena.leaderboard.published import PublishedScore, published_scores
from vosarena.metrics.choices import CHOICES, Step, steps
from vosarena.metrics.protocols import PROTOCOLS, find_protocol
from vosarena.metrics.read import Metrics, read_metrics
from vosarena.metrics.records import IGNORE
from vosarena.metrics.scores import score_metrics, summarise_scores
from vosarena.predictions.store import Store

_ROUNDING = 1e-9
CHECKPOINTS = {"paper": "that of the paper, which was not released", "released": "the released one"}


@dataclass(frozen=True)
class Offset:
    """The score of the same masks under another protocol.

    Attributes:
        protocol: Name of the protocol.
        j_and_f: J&F under it.
        points: J&F under it minus J&F under the split's protocol: the sum of the steps.
        steps: The choices in which the protocols differ, with the points of each.
    """

    protocol: str
    j_and_f: float
    points: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Condition:
    """One thing in which a published number differs from the score measured here.

    Attributes:
        name: What differs.
        published: What the source states.
        here: What holds here; empty if it is not known.
        points: By how much the published number is higher because of it; NaN if the counts cannot tell.
    """

    name: str
    published: str
    here: str
    points: float = math.nan


@dataclass(frozen=True)
class PublishedNumber:
    """A published number of the model and the conditions in which it differs.

    Attributes:
        j_and_f: The number.
        source: Where it was published.
        conditions: What differs.
        difference: The number minus the score measured here; NaN without one.
        unexplained: The difference without the points of the conditions; NaN without a score.
    """

    j_and_f: float
    source: str
    conditions: tuple[Condition, ...]
    difference: float
    unexplained: float


@dataclass(frozen=True)
class Explanation:
    """Everything that `vosarena explain` shows.

    Attributes:
        model: Name of the model.
        split: `<dataset>/<split>`.
        protocol: Protocol of the split.
        j_and_f: J&F measured here under it; NaN if it was not measured.
        here: What holds here, by name.
        offsets: The same masks under the other protocols; empty if nothing was measured.
        undefined: The protocols that give no score for these masks, with the reason; empty if nothing was measured.
        published: The published numbers of the model on the split.
    """

    model: str
    split: str
    protocol: str
    j_and_f: float
    here: dict[str, str]
    offsets: tuple[Offset, ...]
    undefined: dict[str, str]
    published: tuple[PublishedNumber, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain mappings, with None for numbers that are not known."""
        content: dict[str, Any] = _without_nan(asdict(self))
        return content

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explain(study: Study, model: Model, split: Split, paths: Paths) -> Explanation:
    """Explain the published numbers of a model on a split.

    Args:
        study: The study, whose catalog says what models were trained on.
        model: The model.
        split: The split.
        paths: The files of the study. Without a metrics file of the model, nothing is compared with a score.
    """
    file, protocol = paths.metrics(split, model.name), split.protocol
    metrics = read_metrics(file, allow_incomplete=True)[0] if file.is_file() else None
    j_and_f = _score(metrics, protocol) if metrics else math.nan
    here = dict(_here(model, split, study.seen(model, split), paths, metrics))
    offsets = tuple(_offsets(metrics, protocol)) if metrics else ()
    scored = {protocol, *(offset.protocol for offset in offsets)}
    undefined = {name: _reason(metrics, name) for name in PROTOCOLS if name not in scored} if metrics else {}
    published = tuple(
        _published(row, j_and_f, here, {offset.protocol: offset for offset in offsets}, protocol)
        for row in published_scores({(split.dataset, split.name)})
        if model.name in (row.same_as, row.model)
    )
    return Explanation(model.name, str(split), protocol, j_and_f, here, offsets, undefined, published)


def _score(metrics: Metrics, protocol: str) -> float:
    found = find_protocol(protocol)
    if found.adaptive and not metrics.adaptive:
        return math.nan
    return summarise_scores(score_metrics(metrics, found), found).get("j_and_f", math.nan)


def _offsets(metrics: Metrics, protocol: str) -> Iterator[Offset]:
    base = _score(metrics, protocol)
    for name in PROTOCOLS:
        if name == protocol or math.isnan(j_and_f := _score(metrics, name)):
            continue
        found = steps(metrics, protocol, name)
        rest = j_and_f - base - sum(step.points for step in found)
        if abs(rest) > _ROUNDING:  # lvos-official counts frames that are not there
            found.append(Step("other", protocol, name, rest))
        yield Offset(name, j_and_f, j_and_f - base, tuple(found))


def _reason(metrics: Metrics, protocol: str) -> str:
    """Why a protocol gives no score for a model."""
    if find_protocol(protocol).adaptive and not metrics.adaptive:
        return f"not counted; add {protocol} to `protocols` of the config"
    if protocol == "lvos-official":
        return "no score without both seen and unseen objects"
    return "no frame to score"


def _here(
    model: Model, split: Split, training: TrainingData, paths: Paths, metrics: Metrics | None
) -> Iterator[tuple[str, str]]:
    """Yield what holds here. What is not known is left out."""
    table = paths.sequences(split)
    expected = len(read_table(table)) if table.is_file() else split.sequences
    if metrics:
        measured = len(metrics.infos)
        yield "sequences", str(measured) if measured == expected else f"{measured} of {expected}"
        objects = [rows for sequence in metrics.sequences for rows in sequence.objects.values() if rows.in_gt.any()]
        late = sum(not rows.in_gt[0] for rows in objects)
        scored = "scored" if find_protocol(split.protocol).late_objects else "not scored"
        yield "late objects", f"{late} of {len(objects)} objects appear after the first frame, {scored}"
        yield "label 255", f"in {sum(IGNORE in sequence.in_ground_truth for sequence in metrics.sequences)} sequences"
    elif expected:
        yield "sequences", str(expected)
    if model.weights or model.finetune:
        yield "checkpoint", "fine-tuned here" if model.finetune else CHECKPOINTS["released"]
    for name in ("image_size", "size"):
        if name in model.options:
            yield "resolution", f"{name} {model.options[name]}"
    names = [record.sequence for record in read_table(table)] if table.is_file() else []
    if manifests := list(Store(paths.predictions(split, model.name)).manifests(names).values()):
        yield "precision", _all(manifest.identity.precision for manifest in manifests)
        yield (
            "environment",
            _all(
                ", ".join(
                    [manifest.device, *(f"{name} {version}" for name, version in manifest.identity.packages.items())]
                )
                for manifest in manifests
            ),
        )
    if training.seen.value:
        yield "training", ": ".join(filter(None, [training.seen.value, "; ".join(training.reasons)]))


def _all(values: Iterator[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _published(
    row: PublishedScore, j_and_f: float, here: dict[str, str], offsets: dict[str, Offset], protocol: str
) -> PublishedNumber:
    conditions = tuple(_conditions(row, here, offsets, protocol))
    difference = row.j_and_f - j_and_f
    known = sum(condition.points for condition in conditions if not math.isnan(condition.points))
    return PublishedNumber(row.j_and_f, row.source, conditions, difference, difference - known)


def _conditions(
    row: PublishedScore, here: dict[str, str], offsets: dict[str, Offset], protocol: str
) -> Iterator[Condition]:
    if row.protocol != protocol and row.protocol in CHOICES:
        points = offsets[row.protocol].points if row.protocol in offsets else math.nan
        yield Condition("protocol", row.protocol, protocol, points)
    elif row.protocol != protocol:
        yield Condition("scored by", "the evaluation server", "the ground truth here" if offsets else "")
    checkpoint = CHECKPOINTS.get(row.checkpoint, row.checkpoint)
    if checkpoint and checkpoint != here.get("checkpoint"):
        yield Condition("checkpoint", checkpoint, here.get("checkpoint", ""))
    if row.n_sequences is not None and str(row.n_sequences) != here.get("sequences"):
        yield Condition("sequences", str(row.n_sequences), here.get("sequences", ""))
    if not math.isnan(row.frame_rate):
        yield Condition("frame rate", f"{row.frame_rate:g} fps", "that of the catalog's frames")
    if row.device:
        yield Condition("environment", row.device, here.get("environment", ""))
    if row.note:
        yield Condition("remark", row.note, "")


def _lines(found: Explanation) -> Iterator[str]:
    measured = "not measured here" if math.isnan(found.j_and_f) else f"J&F {found.j_and_f:.2f} measured here"
    yield f"{found.model} on {found.split}, protocol {found.protocol}: {measured}"
    for name, value in found.here.items():
        yield f"  {name}: {value}"
    yield ""
    yield "Published numbers:" if found.published else "No published number of this model on this split is known."
    for number in found.published:
        yield f"  {number.j_and_f:g}  {number.source}"
        for item in number.conditions:
            against = f", here {item.here}" if item.here else ""
            yield f"    {item.name}: {item.published}{against}{_points(item.points)}"
        if not math.isnan(number.difference):
            unexplained = f", of which {number.unexplained:+.2f} are not explained by the counts"
            yield f"    difference: {number.difference:+.2f}{unexplained}"
        elif not number.conditions:
            yield "    the source states no condition"
    if found.offsets:
        yield ""
        yield f"The same masks under other protocols, against {found.protocol}:"
    for offset in found.offsets:
        yield f"  {offset.protocol}: J&F {offset.j_and_f:.2f}, {offset.points:+.2f}"
        for step in offset.steps:
            yield f"    {step.choice}: {step.after} instead of {step.before}{_points(step.points)}"
    for name, reason in found.undefined.items():
        yield f"  {name}: {reason}"


def _points(points: float) -> str:
    return "" if math.isnan(points) else f": {points:+.2f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
