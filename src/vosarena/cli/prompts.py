"""Clicks and boxes on the command line: `--click X,Y`, `--not X,Y`, `--box X0,Y0,X1,Y1` and `--frame N`, in order."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError

if TYPE_CHECKING:
    from vosarena.inference.job import Given

_NUMBERS = {"click": 2, "not": 2, "box": 4}
_FORMS = {"click": "X,Y", "not": "X,Y", "box": "X0,Y0,X1,Y1"}


class _InOrder(argparse.Action):
    """Keep option and value in one list, because `--frame` and ids depend on what comes before."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        namespace.given = [*namespace.given, (self.option_strings[0].lstrip("-"), str(values))]


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add the options, whose values are collected in `given`."""
    parser.set_defaults(given=[])
    options = {
        "--click": ("[ID:]X,Y", "a pixel of an object in CLIP: of a new one, or of the object ID (may be repeated)"),
        "--not": ("[ID:]X,Y", "a pixel that is not of the object ID, or of the last one (may be repeated)"),
        "--box": ("[ID:]X0,Y0,X1,Y1", "first and last column and row of an object, as --click (may be repeated)"),
        "--frame": (
            "N",
            "frame of the clicks and boxes after this option, counted from 0 (may be repeated; default: 0)",
        ),
    }
    for option, (form, words) in options.items():
        parser.add_argument(option, action=_InOrder, dest="given", metavar=form, help=words)


def read_prompts(given: Iterable[tuple[str, str]], *, masks: bool = False) -> Given:
    """Return what the options say.

    Args:
        given: Options without dashes and their values, in order.
        masks: Whether there are masks too, so that objects have ids already.

    Raises:
        ConfigError: A value is not of the form of its option, or it is not clear which object it is of.
    """
    from vosarena.trackers.prompts import Click, Prompt

    found: dict[int, dict[int, Prompt]] = {}
    known: set[int] = set()
    frame, last = 0, 0
    for option, text in given:
        if option == "frame":
            if not text.isascii() or not text.isdecimal():
                raise ConfigError(f"--frame {text}: expected the number of a frame, counted from 0")
            frame = int(text)
            continue
        number, values = _parse(option, text)
        if number is None:
            if masks:
                raise ConfigError(f"--{option} {text}: with --masks, name the object: --{option} ID:{_FORMS[option]}")
            number = last if option == "not" else max(known, default=0) + 1
        if number == 0:
            raise ConfigError(f"--{option} {text}: give a --click or --box before it, or the object: --not ID:X,Y")
        before = found.setdefault(frame, {}).get(number)
        box, clicks = (before.box, before.clicks) if before else (None, ())
        if option == "box":
            if box:
                raise ConfigError(f"--box {text}: object {number} has two boxes in frame {frame}; give one")
            box = (values[0], values[1], values[2], values[3])
        else:
            clicks += (Click(values[0], values[1], option == "click"),)
        found[frame][number] = Prompt(box=box, clicks=clicks)
        known.add(number)
        last = number
    return found


def _parse(option: str, text: str) -> tuple[int | None, list[float]]:
    """Return the id of the object, None without one, and the numbers of a value."""
    match = re.fullmatch(r"(?:([0-9]+):)?([0-9.,]+)", text)
    try:
        values = [float(part) for part in match[2].split(",")] if match else []
    except ValueError:
        values = []
    number = int(match[1]) if match and match[1] else None
    if len(values) != _NUMBERS[option] or (number is not None and not 0 < number < 256):
        raise ConfigError(f"--{option} {text}: expected {_FORMS[option]} in pixels, or ID:{_FORMS[option]}")
    return number, values
