"""Seen and unseen objects, and object ranges: what meta files of LVOS and YouTube-VOS say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vosarena.errors import DataError
from vosarena.scoring.pairs import Failure, ObjectInfo, SequencePair

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


def read_meta(path: Path) -> dict[str, dict[int, ObjectInfo]]:
    """{sequence: {object: ObjectInfo}} of a meta file, `{"videos": {name: {"objects": {id: {...}}}}}`.

    An object has `frame_range: {start, end}` (LVOS) or `frames: [...]` (YouTube-VOS), and may have a `category`;
    MOSEv2's objects have neither, their range is the whole sequence. Raises DataError if the file is different.
    """
    try:
        videos = json.loads(path.read_text())["videos"]
        return {
            str(name): {int(key): _object(value) for key, value in _items(video["objects"])}
            for name, video in videos.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a meta file ({type(error).__name__}: {error}); expected "
            '{"videos": {name: {"objects": {id: {"frame_range": {"start", "end"}} or {"frames": [...]}}}}}'
        ) from error


def _items(objects: Any) -> Iterable[tuple[Any, Any]]:
    return objects.items() if isinstance(objects, dict) else ((item, {}) for item in objects)


def _object(value: Any) -> ObjectInfo:
    if not isinstance(value, dict):
        value = {}
    category = str(value.get("category", ""))
    if "frame_range" in value:
        return ObjectInfo(int(value["frame_range"]["start"]), int(value["frame_range"]["end"]), category)
    if value.get("frames"):
        frames = [int(frame) for frame in value["frames"]]
        return ObjectInfo(min(frames), max(frames), category)
    return ObjectInfo(0, 2**31 - 1, category)


def with_meta(
    pairs: Iterable[SequencePair], meta: dict[str, dict[int, ObjectInfo]] | None, unseen: Iterable[str] | None = None
) -> list[SequencePair]:
    """The pairs with the objects of a meta file, and with what is unseen.

    unseen: names of sequences, `<sequence>/<object>` or categories of the meta file; all others are seen. None: no such
    split. A sequence that the meta file lacks carries that as its `problem`.
    """
    names = None if unseen is None else {line.strip() for line in unseen if line.strip()}
    result = []
    for pair in pairs:
        objects = pair.objects
        if meta is not None and pair.problem is None:
            if pair.name not in meta:
                reason = "it is not in the meta file; remove the sequence, or complete the file"
                pair = replace(pair, problem=Failure(pair.name, reason, "ground_truth"))
            objects = meta.get(pair.name)
        of_sequence = None if names is None else pair.name in names
        if names is not None and objects is not None:
            objects = {
                i: replace(info, unseen=bool({pair.name, f"{pair.name}/{i}", info.category} & names))
                for i, info in objects.items()
            }
        result.append(replace(pair, objects=objects, unseen=of_sequence))
    return result
