"""Entries from what users wrote, and one sentence for the first mistake in it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vosarena.base.entry import Entry, Reading
from vosarena.base.errors import ConfigError
from vosarena.base.text import nearest
from vosarena.fetching.sources import shown

AnyEntry = TypeVar("AnyEntry", bound=Entry)

_QUOTES = "; put it in quotes as you mean it: without them YAML takes 0123, 1.10, no, on or a date for something else"
_TYPES = {
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
}
_NAME = "invalid name {!r}: use letters, digits, ., _ and -, and begin with a letter or digit"
PATTERNS = {
    ".": "{!r} is empty",
    "^[^{}]*$": "{!r} has {{ or }} in it, which Snakemake takes for a wildcard; choose another folder",
    "^https?://": "invalid URL {!r}: it must begin with http:// or https://",
    "^[0-9a-f]{32}$": "invalid MD5 hash {!r}: write 32 hexadecimal digits in lower case",
    "^[0-9]+([.][0-9]+)? [kMGT]?B$": "invalid size {!r}: write it as in 20.5 GB",
    "^[0-9a-f]{64}$": "invalid SHA-256 hash {!r}: write 64 hexadecimal digits in lower case",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": _NAME,
    "^[A-Za-z0-9][A-Za-z0-9._+-]*$": _NAME,
}
_BOUNDS = {
    "greater_than_equal": ("ge", "less than the minimum of"),
    "less_than_equal": ("le", "greater than the maximum of"),
    "greater_than": ("gt", "not greater than"),
    "less_than": ("lt", "not less than"),
}


def read_entry(
    kind: type[AnyEntry],
    value: object,
    where: str,
    at: str = "",
    *,
    folder: Path | None = None,
    text_numbers: bool = False,
) -> AnyEntry:
    """Return the entry that a value from a YAML file or the command line describes.

    Args:
        kind: Class of the entry.
        value: What the user wrote.
        where: The file that the user knows.
        at: Path of the key in that file whose value this is.
        folder: Relative paths are relative to this folder. None leaves them relative to the working directory.
        text_numbers: Accept text for numbers and booleans (see base.entry.Reading).

    Raises:
        ConfigError: One sentence about the first mistake, with the path of the key and the nearest valid choice.
    """
    _check_keys(value, where, at)
    try:
        return kind.model_validate(value, context=Reading(folder, text_numbers))
    except ValidationError as error:
        path, sentence = explain(error)
        raise ConfigError(": ".join(filter(None, [where, ".".join(filter(None, [at, *path])), sentence]))) from None


def explain(error: ValidationError) -> tuple[list[str], str]:
    """Return the path of the key with the first mistake, and a sentence about the mistake."""
    # pydantic also reports a list as too short if it has only wrong items.
    errors = [item for item in error.errors(include_url=False) if item["type"] != "too_short" or not item["input"]]
    first = min(errors, key=_path)
    return _path(first), _sentence(first)


def _path(error: ErrorDetails) -> list[str]:
    """Return the path of a key as users would look for it: without the forms of a value (Tag) and pydantic's marks."""
    path = [str(part) for part in error["loc"] if not re.fullmatch(r"<\w+>|\[key\]", str(part))]
    return path[:-1] if error["type"] == "missing" else path


def _sentence(error: ErrorDetails) -> str:
    kind, value, details = error["type"], error["input"], error.get("ctx", {})
    if kind == "form":
        return f"{_shown(value)} {error['msg']}{_quotes(value) if 'text' in error['msg'] else ''}"
    if kind in _TYPES:
        return f"{_shown(value)} is not {_TYPES[kind]}{_hint(kind, value)}"
    if kind == "missing":
        return f"the key {error['loc'][-1]!r} is missing"
    if kind == "literal_error":
        known = re.findall("'(.*?)'", details["expected"])
        return f"{value!r} is not allowed; {_choices(value, known)}"
    if kind == "too_short":
        return f"the {'mapping' if isinstance(value, Mapping) else 'list'} is empty"
    if kind == "string_pattern_mismatch":
        return PATTERNS[details["pattern"]].format(shown(value) if "://" in value else value)
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{value} is {words} {details[bound]:g}"
    return error["msg"]


def _choices(word: Any, known: Sequence[str]) -> str:
    """Return all of a few choices, or the nearest of many."""
    return f"choose {', '.join(known[:-1])} or {known[-1]}" if 1 < len(known) < 5 else nearest(word, known)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value) if isinstance(value, date) else repr(value)


def _hint(kind: str, value: Any) -> str:
    if kind == "string_type":
        return _quotes(value)
    if kind == "tuple_type" and value and not isinstance(value, Mapping):
        return f"; write [{value}]"
    if kind == "float_type" and isinstance(value, str):
        with suppress(ValueError):
            return f"; YAML wants a point in it: {float(value):.1e}"
    return ""


def _quotes(value: Any) -> str:
    return "" if isinstance(value, Mapping | list) else _QUOTES


def _check_keys(value: object, where: str, at: str) -> None:
    """Raise ConfigError for a key that YAML does not read as text."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(": ".join(filter(None, [where, at, f"the key {key} is not text{_QUOTES}"])))
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    for key, item in parts:
        _check_keys(item, where, f"{at}.{key}" if at else str(key))


@contextmanager
def prefix_errors(place: str) -> Iterator[None]:
    """Prefix the ConfigErrors that are raised inside with `place`."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
