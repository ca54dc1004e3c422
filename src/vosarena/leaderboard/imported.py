"""Scores that were not measured here: published tables, and what evaluation servers answered. All are checked.

Published rows stand in `catalog/published.csv`, each with its source. Numbers that contradict each other (two papers,
one model) are kept as rows of their own. A published row whose (J + F) / 2 is not its J&F is kept as it was published,
marked `inconsistent` and left out of every ranking and difference: a benchmark repeats the literature, it does not
correct it. A server's score that fails the same check is an error, because somebody here can mend the file.

A server's answer is put into `scores/<dataset>/<split>/<model>.txt`, `.json` or `.yaml` (docs/how-to/submissions.md).
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from vosarena.base.errors import DataError
from vosarena.base.files import read_text
from vosarena.config.study import BUILT_IN

PUBLISHED = BUILT_IN / "published.csv"
SCORES = ("j_and_f", "j", "f")
SUFFIXES = (".txt", ".json", ".yaml", ".yml")

# Names of the same numbers in the answers of DAVIS, MOSE, LVOS and YouTube-VOS servers, in lower case without marks.
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
_WORDS = ("source", "date", "note")

Row = dict[str, Any]


def published_rows(places: Iterable[tuple[str, str]], file: Path = PUBLISHED) -> list[Row]:
    """Rows of the given (dataset, split) pairs, as they were published; scores in percent, NaN where none was given.

    Raises DataError for a row that cannot be a score, or that stands there twice.
    """
    wanted = set(places)
    return [row for row in _read(file) if (row["dataset"], row["split"]) in wanted]


def _read(file: Path) -> Iterator[Row]:
    seen: dict[tuple[str, ...], int] = {}
    with file.open(newline="") as lines:
        for number, line in enumerate(csv.DictReader(lines), 2):
            where = f"{file}, line {number}"
            key = tuple(line[name] for name in ("model", "dataset", "split", "protocol", "source"))
            if key in seen:
                raise DataError(f"{where}: {line['model']} is already in line {seen[key]} with the same source")
            seen[key] = number
            if not line["source"]:
                raise DataError(f"{where}: {line['model']} has no source; say where the numbers stand")
            row: Row = {name: _number(line[name], where, name) for name in (*SCORES, "fps")}
            _check_range(row, where)
            row |= {name: line[name] for name in ("model", "dataset", "split", "protocol", "source", "same_as")}
            row |= {"device": line["hardware"], "kind": "published", "note": line["note"]}
            consistent = _is_consistent(row, {name: _digits(line[name]) for name in SCORES})
            row["status"] = "published" if consistent else "inconsistent"
            if row["status"] == "inconsistent":
                mean = (row["j"] + row["f"]) / 2
                row["note"] = "; ".join([*filter(None, [row["note"]]), f"(J+F)/2 is {mean:.2f}"])
            yield row


def _number(text: str, where: str, name: str) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise DataError(f"{where}: {name} is {text!r}, expected a number") from None


def _check_range(row: Mapping[str, Any], where: str) -> None:
    """Raises DataError unless the row has a J&F and all its scores are percentages."""
    if math.isnan(row["j_and_f"]):
        raise DataError(f"{where}: no J&F; expected `J&F` or both `J` and `F`")
    for name in SCORES:
        if not (math.isnan(row[name]) or 0 <= row[name] <= 100):
            raise DataError(f"{where}: {name} is {row[name]}, expected a percentage between 0 and 100")


def _digits(text: str) -> int:
    """How many digits after the decimal point a number is given with."""
    exponent = Decimal(text).as_tuple().exponent if text else 0
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _is_consistent(row: Mapping[str, Any], digits: Mapping[str, int]) -> bool:
    """Whether (J + F) / 2 is J&F within one unit of the last digit given; true where J or F is missing.

    digits: of each score. J and F are taken to have equally many: 79 beside 81.25 is 79.00.
    """
    if math.isnan(row["j"]) or math.isnan(row["f"]):
        return True
    last = min(digits["j_and_f"], max(digits["j"], digits["f"]))
    return abs((row["j"] + row["f"]) / 2 - row["j_and_f"]) <= 10.0**-last + 1e-9


def score_files(folder: Path, dataset: str, split: str, models: Iterable[str]) -> dict[str, Path]:
    """The scores file of each model that has one. Raises DataError if a model has two."""
    found: dict[str, Path] = {}
    for model in models:
        paths = [path for suffix in SUFFIXES if (path := folder / dataset / split / f"{model}{suffix}").is_file()]
        if len(paths) > 1:
            raise DataError(f"{paths[0]} and {paths[1]} both score {model}; keep one of them")
        if paths:
            found[model] = paths[0]
    return found


def read_scores(file: Path) -> Row:
    """A server's answer: j_and_f, j, f and what else it gives, in percent; source, date and note if they are there.

    Text is lines of `name: value` (CodaLab, Codabench); JSON and YAML are mappings of the same names. Fractions become
    percent. Raises DataError naming the file if there is no J&F, a score is out of range or stands there twice with
    different values, or (J + F) / 2 is not J&F.
    """
    given = _content(file)
    row: Row = {name: math.nan for name in SCORES}
    digits: dict[str, int] = dict.fromkeys(SCORES, 0)
    for key, value in given:
        name = _MEANING.get(re.sub(r"[^a-z]", "", str(key).lower().replace("&", "")))
        if name is None:
            continue
        number, other = _number(str(value), str(file), str(key)), row.get(name, math.nan)
        if number != other and not math.isnan(other):
            raise DataError(f"{file}: {key} is {number}, but {other} stands there for the same; keep the right one")
        row[name], digits[name] = number, max(digits.get(name, 0), _digits(str(value)))
    parts = [name for name in ("j_seen", "f_seen", "j_unseen", "f_unseen") if name in row]
    if len(parts) == 4:
        for name in ("j", "f"):
            if math.isnan(row[name]):
                row[name] = (row[f"{name}_seen"] + row[f"{name}_unseen"]) / 2
                digits[name] = max(digits[f"{name}_seen"], digits[f"{name}_unseen"])
    if math.isnan(row["j_and_f"]):
        row["j_and_f"] = (row["j"] + row["f"]) / 2
    if all(row[name] <= 1 for name in SCORES if not math.isnan(row[name])):
        row = {name: value * 100 for name, value in row.items()}
        digits = {name: count - 2 for name, count in digits.items()}
    _check_range(row, str(file))
    if not _is_consistent(row, digits):
        mean = (row["j"] + row["f"]) / 2
        raise DataError(f"{file}: J&F is {row['j_and_f']:.2f}, but (J+F)/2 is {mean:.2f}; copy the answer again")
    return row | {str(key): str(value) for key, value in given if key in _WORDS and value}


def _content(file: Path) -> list[tuple[Any, Any]]:
    text = read_text(file)
    try:
        if file.suffix == ".txt":
            pairs = re.findall(r"^\s*([A-Za-z][\w &+./-]*?)\s*[:=]\s*(.+?)\s*$", text, re.MULTILINE)
        else:
            # Numbers stay text: 71.90 has two digits.
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
