"""Read scores that evaluation servers returned from `scores/<dataset>/<split>/<model>.txt`, `.json` or `.yaml`.

The user puts each answer there (docs/how-to/submissions.md). A score that fails a check is an error, because the user
can fix the file.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vosarena.base.errors import DataError
from vosarena.base.files import read_text
from vosarena.leaderboard.score_checks import SCORES, check_range, decimals, is_consistent, parse_score

SUFFIXES = (".txt", ".json", ".yaml", ".yml")

# Names of the same scores in the answers of the DAVIS, MOSE, LVOS and YouTube-VOS servers, in lower case and with
# letters only.
_ALIASES = {
    "j_and_f": ("jf", "jfmean", "jandf", "globalmean", "overall", "score", "final", "average"),
    "j": ("j", "jmean", "jaccard", "region"),
    "f": ("f", "fmean", "boundary", "contour"),
    "j_seen": ("jseen", "seenj"),
    "j_unseen": ("junseen", "unseenj"),
    "f_seen": ("fseen", "seenf"),
    "f_unseen": ("funseen", "unseenf"),
    "j_recall": ("jrecall",),
    "j_decay": ("jdecay",),
    "f_recall": ("frecall",),
    "f_decay": ("fdecay",),
}
_MEANING = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}


@dataclass(frozen=True)
class ServerScores:
    """The answer of a server.

    The source, date and note are remarks of the user about the upload. They are empty if not given.

    Attributes:
        scores: Scores in percent, by column of the leaderboard: `j_and_f`, `j`, `f` (NaN if not given), and any other
            scores in the answer.
        source: Which upload was scored, such as `upload 12345`.
        date: Date of the upload.
        note: A remark.
    """

    scores: Mapping[str, float]
    source: str = ""
    date: str = ""
    note: str = ""


def score_files(folder: Path, dataset: str, split: str, models: Iterable[str]) -> dict[str, Path]:
    """Return the scores file of each model that has one.

    Args:
        folder: The folder `scores`.
        dataset: Name of the dataset.
        split: Name of the split.
        models: Names of the models.

    Raises:
        DataError: A model has two scores files.
    """
    found: dict[str, Path] = {}
    for model in models:
        paths = [path for suffix in SUFFIXES if (path := folder / dataset / split / f"{model}{suffix}").is_file()]
        if len(paths) > 1:
            raise DataError(f"{paths[0]} and {paths[1]} both score {model}; keep one of them")
        if paths:
            found[model] = paths[0]
    return found


def read_scores(file: Path) -> ServerScores:
    """Read the answer of a server.

    Text files have lines `name: value` (CodaLab, Codabench), and JSON and YAML files map the same names to values.
    Fractions are converted to percent.

    Raises:
        DataError: There is no J&F, a score is out of range or given twice with different values, or (J + F) / 2 is not
            J&F.
    """
    given = _content(file)
    scores: dict[str, float] = dict.fromkeys(SCORES, math.nan)
    digits: dict[str, int] = dict.fromkeys(SCORES, 0)
    for key, value in given:
        name = _MEANING.get(re.sub(r"[^a-z]", "", str(key).lower().replace("&", "")))
        if name is None:
            continue
        number, other = parse_score(str(value), str(file), str(key)), scores.get(name, math.nan)
        if number != other and not math.isnan(other):
            raise DataError(f"{file}: {key} is {number}, but the same score is {other} above; keep the right one")
        scores[name], digits[name] = number, max(digits.get(name, 0), decimals(str(value)))
    if {"j_seen", "f_seen", "j_unseen", "f_unseen"} <= scores.keys():
        for name in ("j", "f"):
            if math.isnan(scores[name]):
                scores[name] = (scores[f"{name}_seen"] + scores[f"{name}_unseen"]) / 2
                digits[name] = max(digits[f"{name}_seen"], digits[f"{name}_unseen"])
    if math.isnan(scores["j_and_f"]):
        scores["j_and_f"] = (scores["j"] + scores["f"]) / 2
    if all(scores[name] <= 1 for name in SCORES if not math.isnan(scores[name])):
        scores = {name: value * 100 for name, value in scores.items()}
        digits = {name: count - 2 for name, count in digits.items()}
    check_range(scores, str(file))
    if not is_consistent(scores, digits):
        mean = (scores["j"] + scores["f"]) / 2
        raise DataError(f"{file}: J&F is {scores['j_and_f']:.2f}, but (J+F)/2 is {mean:.2f}; copy the answer again")
    texts = {str(key): str(value) for key, value in given if value}
    return ServerScores(scores, texts.get("source", ""), texts.get("date", ""), texts.get("note", ""))


def _content(file: Path) -> list[tuple[Any, Any]]:
    """Return the names and values of a scores file, in order."""
    text = read_text(file)
    try:
        if file.suffix == ".txt":
            pairs = re.findall(r"^\s*([A-Za-z][\w &+./-]*?)\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE)
        else:
            # Numbers are kept as text, because 71.90 has two digits after the decimal point.
            content = (
                json.loads(text, parse_float=str, parse_int=str)
                if file.suffix == ".json"
                else yaml.load(text, yaml.BaseLoader)
            )
            pairs = list(content.items()) if isinstance(content, Mapping) else []
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid {file.suffix[1:].upper()}: {' '.join(str(error).split())}") from None
    if not pairs:
        raise DataError(f"{file}: no scores found; expected lines of `name: value`, such as `J&F: 71.90`")
    return pairs
