"""Notes and warnings for the reader of scores: what was left out, what is scored although it is absent, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vosarena.metrics.protocols import Protocol
from vosarena.metrics.read import Metrics
from vosarena.metrics.records import IGNORE, SequenceInfo, SequenceRows, SequenceScore


def find_notes(metrics: Metrics, scores: Sequence[SequenceScore], protocol: Protocol) -> list[str]:
    """Sentences that begin with `note: ` or `warning: `, by sequence; nothing is ignored silently."""
    scored: dict[str, set[int]] = {}
    for item in scores:
        scored.setdefault(item.sequence, set()).add(item.object_id)
    sequences = {name: SequenceRows(name, {}, info) for name, info in metrics.infos.items()}
    sequences |= {sequence.name: sequence for sequence in metrics.sequences}
    return [
        note
        for name, sequence in sorted(sequences.items())
        for note in _notes(sequence, scored.get(name, set()), protocol)
    ]


def _notes(sequence: SequenceRows, scored: set[int], protocol: Protocol) -> Iterator[str]:
    where, info = f"sequence {sequence.name}", sequence.info
    present = set(sequence.in_ground_truth)
    for label, frame in info.extra_ids.items():
        at = where + (f", frame {frame}" if frame else "")
        yield f"note: {at}, object {label}: predicted but not in the ground truth, ignored (--extra-ids)"
    if info.extra_ids and not any(sequence.objects[number].in_pred.any() for number in present):
        yield f"warning: {where}: no predicted object is in the ground truth, so it is scored like an empty prediction"
    if not scored:
        yield f"warning: {where} is not scored: {unscored(sequence, protocol)}"
    elif missing := sorted(set(info.objects) - scored):
        ids = ", ".join(map(str, missing))
        yield f"note: {where}: object {ids} of the ground truth is not scored by this protocol"
    if phantoms := sorted(scored - present):
        yield f"warning: {where}: {phantom_sentence(phantoms)}"
    elif (gap := id_gap(info)) and protocol.name == "davis2017":
        yield f"warning: {where}: {gap}"
    if protocol.name.startswith("lvos"):
        yield from _range_notes(sequence, where, protocol)
    if protocol.name == "davis2017-official" and (refused := _refused(sequence)):
        yield (
            f"warning: {where}: object {refused} is predicted, above the highest id of the first frame; "
            "the official script stops there without a result"
        )
    if info.unpredicted_ends:
        yield f"note: {where}: its first or last frame is not predicted, which this protocol does not score"
    if info.resized_frames:
        yield f"note: {where}: {info.resized_frames} predicted masks were resized (--resize)"
    if info.overlapping_frames:
        yield (
            f"note: {where}: predicted objects overlap in {info.overlapping_frames} frames; there the lowest id counts"
        )


def _range_notes(sequence: SequenceRows, where: str, protocol: Protocol) -> Iterator[str]:
    """Objects of LVOS with other numbers of frames than their meta file states."""
    for object_id, expected in sequence.info.range_frames.items():
        bounds, rows = sequence.range(object_id), sequence.objects.get(object_id)
        if bounds is None or rows is None:
            continue
        found = int(((rows.numbers >= bounds[0]) & (rows.numbers <= bounds[1])).sum())
        if found in (expected, expected - 1):  # in some files, the last frame is named as the end and thus left out
            continue
        if found > expected:
            official = "the official script stops there without a result"
        elif protocol.repeats_peer:
            official = "the missing ones count as 0, as in the official script"
        else:
            official = "the official script counts the missing ones as 0 (protocol lvos-official)"
        yield (
            f"warning: {where}, object {object_id}: {found} frames are in its range, but the meta file states "
            f"`frame_nums: {expected}`; {official}"
        )


def _refused(sequence: SequenceRows) -> int:
    """The highest id in the scored frames of a prediction, if the first frame has no id as high; else 0."""
    if sequence.info.per_object:
        return 0
    first = max((i for i, rows in sequence.objects.items() if rows.in_gt[0] and i != IGNORE), default=0)
    predicted = max((i for i, rows in sequence.objects.items() if rows.in_pred[1:-1].any()), default=0)
    return predicted if predicted > first else 0


def phantom_sentence(ids: list[int]) -> str:
    """The warning that objects are scored which no ground-truth frame has."""
    return (
        f"{len(ids)} scored objects, such as {ids[0]}, are in no ground-truth frame; they count as correct wherever "
        "they are not predicted, and raise the mean"
    )


def id_gap(info: SequenceInfo) -> str:
    """The warning that label maps skip ids, which the official script of DAVIS counts as objects; empty if not."""
    present = set(info.objects) - {IGNORE}
    absent = sorted(set(range(1, max(present, default=0))) - present)
    if info.per_object or not absent:
        return ""
    return (
        f"{len(absent)} ids below its highest object id {max(present)}, such as {absent[0]}, are in no ground-truth "
        "frame; they are not scored, but the official script counts them as objects (protocol davis2017-official)"
    )


def unscored(sequence: SequenceRows, protocol: Protocol) -> str:
    """Why a protocol scores nothing of a sequence, and what to do."""
    present = set(sequence.in_ground_truth)
    if not present:
        return "its ground truth has no object in any frame"
    if present == {IGNORE} and not sequence.info.per_object:
        return (
            "all pixels of its ground truth are 0 or 255, and 255 means ignore; write object ids from 1, or give "
            "`vosarena evaluate` --binary, which counts every nonzero pixel as object 1"
        )
    some = next(iter(sequence.objects.values()))
    if len(some.numbers) < 3:
        return f"it has {len(some.numbers)} frames with ground truth, and three or more are needed"
    if not protocol.late_objects:
        return "no object is in its first frame with ground truth"
    return "its objects are in too few frames"
