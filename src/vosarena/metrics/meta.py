"""Meta files of LVOS, YouTube-VOS and MOSEv2: which objects are scored on which frames, and which are unseen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vosarena.base.errors import DataError
from vosarena.datasets.sequences import frame_number
from vosarena.metrics.pairs import Failure, ObjectInfo, SequencePair

#: Sequences of LVOS v1 and v2 whose category is not in the training set. Source: unseen_videos.txt of lvos-evaluation.
LVOS_UNSEEN = frozenset(
    """
    R3UJGYwy K3OUeINk 058oeZ2p xpI7xRWN FiRTBMg2 nfcT3owb JGG6MrhF yfzVCnvU 6mNj04tC yWnanBID v3uNUctx 49TNsJzk
    gw84JOqH 711gAS21 dtHbJvYy tAyQIobn vJ8W2TO5 FmzvB44A 8lxxCA5h N6CONZUW Oj1z5fO0 gdqCcvs2 LWVlKBlK yxCvN6OJ
    pMntJwSQ p9RjdKoh 9NA8c5C3 m37l7ti1 nwflTTf1 LY2zehlH beR0WT11 afoR2rH6 xQZlxhxV o36i3YWC cdzAjcuN IlvtT6D6
    YfoFnMgm FiQUhyRi 9oLyy7aJ 9RoNInYO wrrX6bxv q2HE4zaM rvwT3piq ZFqAoImI bwcKqVSN QE1wMR58 eEcUJVBZ Qf9YVXOW
    SRRojucs PQfn7XV2 3bvEjhOT
    """.split()  # noqa: SIM905 - 51 quoted names are no clearer
)


Meta = dict[str, "dict[int, ObjectInfo] | DataError"]
_LARGEST = 2**31 - 1
_OF_LABEL_MAPS = frozenset(range(1, 256))


def read_meta(path: Path) -> Meta:
    """Read a meta file, `{"videos": {name: {"objects": {id: {...}}}}}`.

    An object has `frame_range: {start, end, frame_nums}` (LVOS; the frame `end` itself does not belong to the range, as
    in lvos-evaluation) or `frames: [...]` (YouTube-VOS), and may have a `category`. The objects of MOSEv2 have neither;
    their range is the whole sequence.

    Returns:
        The objects of each sequence, or the error in its entry.

    Raises:
        DataError: The file cannot be read or is not a meta file.
    """
    try:
        content = json.loads(path.read_bytes())
        videos = content["videos"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a meta file ({type(error).__name__}: {str(error)[:80]}); expected "
            '{"videos": {name: {"objects": {id: {"frame_range": {"start", "end"}} or {"frames": [...]}}}}}'
        ) from None
    return {name: _objects(video, f"{path}: sequence {name}") for name, video in videos}


def _objects(video: Any, where: str) -> dict[int, ObjectInfo] | DataError:
    objects = video.get("objects") if isinstance(video, dict) else None
    if not isinstance(objects, dict | list):
        return DataError(f"{where} has no `objects`; expected a mapping of ids, or a list of them")
    found: dict[int, ObjectInfo] = {}
    for key, value in objects.items() if isinstance(objects, dict) else ((item, {}) for item in objects):
        try:
            number = _whole_number(key)
            if number in found:
                raise ValueError("the id is there twice")
            found[number] = _object(value)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            return DataError(f"{where}, object {str(key)[:40]}: {problem}; correct the file")
    return found


def _object(value: Any) -> ObjectInfo:
    if not isinstance(value, dict):
        value = {}
    category = str(value.get("category", ""))
    if "frame_range" in value:
        if not isinstance(value["frame_range"], dict):
            raise TypeError("`frame_range` is not a mapping with `start` and `end`")
        start, end = (_whole_number(value["frame_range"][key]) for key in ("start", "end"))
        if start > end:
            raise ValueError(f"`frame_range` ends at {end}, before it starts at {start}")
        n_frames = value["frame_range"].get("frame_nums")
        return ObjectInfo(start, end - 1, category, n_frames=None if n_frames is None else _whole_number(n_frames))
    if value.get("frames"):
        if not isinstance(value["frames"], list):
            raise TypeError("`frames` is not a list")
        frames = [_whole_number(frame) for frame in value["frames"]]
        return ObjectInfo(min(frames), max(frames), category)
    return ObjectInfo(0, _LARGEST, category)


def _whole_number(value: Any) -> int:
    """A number in a meta file, which may be text: `5` or `"00005"`."""
    number = frame_number(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _LARGEST:
        raise ValueError(f"{str(value)[:40]!r} is no whole number from 0 to {_LARGEST}")
    return number


def with_meta(
    pairs: Iterable[SequencePair], meta: Meta | None, unseen: Iterable[str] | None = None
) -> list[SequencePair]:
    """Add to sequences the objects of a meta file, and what is unseen.

    Args:
        pairs: Files of the sequences.
        meta: What `read_meta` returned. A sequence that is missing in it gets a `problem`.
        unseen: Names of sequences, `<sequence>/<object>` or categories of the meta file; all others are seen. None if
            nothing is known about that.
    """
    names = None if unseen is None else {line.strip() for line in unseen if line.strip()}
    result = []
    for pair in pairs:
        objects = pair.objects
        if meta is not None:
            found = meta.get(
                pair.name, DataError("it is not in the meta file; remove the sequence, or complete the file")
            )
            impossible = [] if pair.per_object or isinstance(found, DataError) else sorted(set(found) - _OF_LABEL_MAPS)
            if impossible:
                found = DataError(
                    f"its meta file has object {impossible[0]}, but label maps hold 1 to 255; correct the file"
                )
            if isinstance(found, DataError):
                pair = replace(pair, problem=pair.problem or Failure(pair.name, str(found), "ground_truth"))
            else:
                objects = found
        of_sequence = None if names is None else pair.name in names
        if names is not None and objects is not None:
            objects = {
                i: replace(info, unseen=bool({pair.name, f"{pair.name}/{i}", info.category} & names))
                for i, info in objects.items()
            }
        result.append(replace(pair, objects=objects, unseen=of_sequence))
    return result
