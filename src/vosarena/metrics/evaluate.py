"""Score a folder of predicted masks against a folder of ground truth. Needs neither Snakemake nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vosarena.base.errors import ConfigError, DataError
from vosarena.metrics.hota import summarise_hota
from vosarena.metrics.measure import count_sequences
from vosarena.metrics.meta import read_meta, with_meta
from vosarena.metrics.notes import find_notes, unscored
from vosarena.metrics.pairs import Failure, MeasureError, SequencePair, pair_folders
from vosarena.metrics.protocols import Protocol, find_protocol
from vosarena.metrics.read import Metrics
from vosarena.metrics.records import SequenceCounts, SequenceScore, split_by_object
from vosarena.metrics.scores import score_metrics, score_table, summarise_scores
from vosarena.metrics.sequence import CountOptions, ExtraIds, Resize
from vosarena.metrics.write import RunLabels, check_parquet, write_metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """Scores of one folder of predictions, in percent.

    Attributes:
        protocol: Name of the protocol.
        summary: Means over all objects by column: `n_sequences`, `n_objects`, `j_and_f`, `j`, `f`, and those of the
            protocol, such as `j_recall` or `j_unseen`. With `hota`, those of `vosarena.metrics.hota.summarise_hota`.
        scores: Scores of each object.
        metrics: Counts of each object and frame.
        failures: Sequences that could not be scored, and why.
        notes: Sentences about what was left out or looks wrong; each begins with `note: ` or `warning: `.
    """

    protocol: str
    summary: dict[str, float]
    scores: tuple[SequenceScore, ...] = field(repr=False)
    metrics: Metrics = field(repr=False)
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def j_and_f(self) -> float:
        """J&F: the mean of `j` and `f`."""
        return self.summary["j_and_f"]

    @property
    def j(self) -> float:
        """Mean J over all objects."""
        return self.summary["j"]

    @property
    def f(self) -> float:
        """Mean F over all objects."""
        return self.summary["f"]

    @property
    def objects(self) -> pd.DataFrame:
        """One row per object; the columns are those of `vosarena.metrics.scores.score`."""
        return score_table(self.scores, self.metrics, find_protocol(self.protocol))

    def to_pandas(self) -> pd.DataFrame:
        """The same table as `objects`."""
        return self.objects

    def __repr__(self) -> str:
        names = {"j_and_f": "J&F", "j": "J", "f": "F"}
        means = ", ".join(f"{title} {self.summary[name]:.1f}" for name, title in names.items() if name in self.summary)
        counted = f"{self.summary['n_objects']} objects in {self.summary['n_sequences']} sequences"
        failed = f", {len(self.failures)} failures" if self.failures else ""
        return f"<Evaluation {self.protocol}: {means + '; ' if means else ''}{counted}{failed}>"


def evaluate(
    gt: str | Path,
    pred: str | Path,
    protocol: str,
    *,
    jobs: int = 1,
    sequences: Iterable[str] | None = None,
    meta: str | Path | None = None,
    unseen: Iterable[str] | None = None,
    extra_ids: ExtraIds | None = None,
    resize: Resize = "never",
    binary: bool = False,
    keep_first_and_last: bool = False,
    match_objects: bool = False,
    hota: bool = False,
    counts: str | Path | None = None,
    allow_incomplete: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Score a folder of predicted masks against a folder of ground truth.

    Masks are `<sequence>/<frame>.png` or, for objects that overlap, `<sequence>/<object>/<frame>.png`.

    Args:
        gt: Folder of ground-truth masks, with one folder per sequence.
        pred: Folder of predicted masks, with one folder per sequence.
        protocol: Name of the protocol, such as `davis2017`, `sa-v`, `lvos`, `youtube-vos` or `mosev2`.
        jobs: Number of sequences that are scored at the same time.
        sequences: Names of the sequences to score; None scores all.
        meta: `meta.json` with the objects and their frames (LVOS, YouTube-VOS, MOSEv2).
        unseen: What is unseen: names of sequences, `<sequence>/<object>` or categories of the meta file.
        extra_ids: `error` or `ignore`: predicted objects that the ground truth does not have. None ignores them for
            the protocols that reproduce another evaluator, as that evaluator does, and is an error for the others.
        resize: `never` or `nearest`: predictions of another size than the ground truth.
        binary: Whether every nonzero pixel belongs to object 1, as in 0/255 masks.
        keep_first_and_last: Also score the first and the last frame, for LVOS those of an object's range, which most
            protocols skip (as in unsupervised tasks, and with `--do_not_skip_first_and_last_frame` of vos-benchmark).
        match_objects: Match predicted objects to those of the ground truth such that the sum of their J&F over all
            frames is largest, as in unsupervised tasks, whose predictions have ids of their own. Needs SciPy.
        hota: Also compute HOTA of all frames and label maps, which needs no equal ids. Needs SciPy.
        counts: Parquet file to write the counts of all frames and objects to.
        allow_incomplete: Return the scores of the other sequences if some cannot be scored; see `failures`.
        progress: Whether to show a progress bar.

    Returns:
        The scores of each object and their means.

    Raises:
        ConfigError: The protocol is unknown, or another argument is wrong.
        DataError: A folder is missing, or nothing can be scored.
        MeasureError: Some sequences cannot be scored (unless `allow_incomplete`). A DataError.

    Examples:
        >>> import vosarena
        >>> result = vosarena.evaluate("ground-truth", "masks", protocol="davis2017")
        >>> result
        <Evaluation davis2017: J&F 94.7, J 89.4, F 100.0; 4 objects in 2 sequences>
        >>> round(result.j_and_f, 1)
        94.7
        >>> result.objects[["sequence", "object_id", "j_and_f"]].round(1)
          sequence  object_id  j_and_f
        0        a          1     94.1
        1        a          2     95.2
        2        b          1     94.1
        3        b          2     95.2
    """
    gt, pred, found = Path(gt), Path(pred), find_protocol(protocol)
    if keep_first_and_last and not (found.skips_ends or found.score_ends):
        raise ConfigError(f"protocol {protocol} does not skip the first and the last frame; leave out the option")
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; expected 1 or more")
    if counts is not None:
        check_parquet(Path(counts))
    pairs = with_meta(pair_folders(gt, pred, sequences), read_meta(Path(meta)) if meta else None, unseen)
    options = CountOptions(
        extra_ids or _default_extra_ids(found),
        resize,
        found.adaptive,
        binary,
        ends_optional=found.skips_ends and counts is None and not keep_first_and_last and not hota,
        match="none" if not match_objects else "all" if found.late_objects else "first",
        hota=hota,
    )
    labels = RunLabels(gt.resolve().name, "", pred.resolve().name)
    results = list(count_sequences(pairs, options, jobs=jobs, title=labels.model if progress else None))
    failures = tuple(result for result in results if isinstance(result, Failure))
    if counts is not None:
        _write_counts(results, Path(counts), labels, options)
    if failures and not allow_incomplete:
        raise MeasureError(failures, len(results) - len(failures))
    evaluation = _score(results, found, labels, failures, keep_first_and_last)
    if found.name == "mosev2" and (note := _unpredicted_note(pairs, evaluation)):
        evaluation = replace(evaluation, notes=(*evaluation.notes, note))
    if not evaluation.scores and not failures:
        raise DataError(f"protocol {protocol} finds no frame to score in {gt}: {_reason(evaluation.metrics, found)}")
    return evaluation


def _default_extra_ids(protocol: Protocol) -> ExtraIds:
    return "ignore" if protocol.repeats_peer else "error"


def _write_counts(
    results: Sequence[SequenceCounts | Failure], path: Path, labels: RunLabels, options: CountOptions
) -> None:
    with suppress(MeasureError):  # the caller reports failures
        write_metrics(results, path, labels, options)


def _score(
    results: Sequence[SequenceCounts | Failure],
    protocol: Protocol,
    labels: RunLabels,
    failures: tuple[Failure, ...],
    keep_ends: bool,
) -> Evaluation:
    counted = [result for result in results if isinstance(result, SequenceCounts)]
    metrics = Metrics(
        labels.dataset,
        labels.split,
        labels.model,
        sequences=tuple(split_by_object(sequence) for sequence in counted if len(sequence.counts)),
        infos={sequence.name: sequence.info for sequence in counted},
        adaptive=protocol.adaptive,
    )
    scored = metrics
    if keep_ends and protocol.score_ends:
        protocol = replace(protocol, score=protocol.score_ends)
    elif keep_ends:
        scored = replace(metrics, sequences=tuple(sequence.with_ends_twice() for sequence in metrics.sequences))
    scores = score_metrics(scored, protocol)
    notes = find_notes(metrics, scores, protocol)
    summary = summarise_scores(scores, protocol)
    if overlaps := [sequence.hota for sequence in counted if sequence.hota is not None]:
        summary |= summarise_hota(overlaps)
    return Evaluation(protocol.name, summary, tuple(scores), metrics, failures, tuple(notes))


def _unpredicted_note(pairs: Sequence[SequencePair], evaluation: Evaluation) -> str:
    """What MOSEv2's script makes of sequences without a prediction, if the meta file says what objects they have."""
    missing = [pair for pair in pairs if pair.problem and pair.problem.side == "prediction" and pair.objects]
    if not missing or not evaluation.scores:
        return ""
    n_missing, n_scored = sum(len(pair.objects or ()) for pair in missing), len(evaluation.scores)
    official = evaluation.j_and_f * n_scored / (n_scored + n_missing)
    return (
        f"note: the official script counts the {n_missing} objects of {len(missing)} sequences without a prediction "
        f"as 0; its J&F (J&F_new) is {official:.2f}"
    )


def _reason(metrics: Metrics, protocol: Protocol) -> str:
    return next((unscored(sequence, protocol) for sequence in metrics.sequences), "there is no object in it")
