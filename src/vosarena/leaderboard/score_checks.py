"""Check scores from servers and papers: numbers, ranges, and whether J&F is the mean of J and F."""

import math
from collections.abc import Mapping
from decimal import Decimal

from vosarena.base.errors import DataError

SCORES = ("j_and_f", "j", "f")


def parse_score(text: str, where: str, name: str) -> float:
    """Return the number that a text contains, or NaN for an empty text.

    Args:
        text: The text.
        where: File or line of the text, for error messages.
        name: Name of the score, for error messages.

    Raises:
        DataError: The text is not a number.
    """
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise DataError(f"{where}: {name} is {text!r}, expected a number") from None


def check_range(scores: Mapping[str, float], where: str) -> None:
    """Check that J&F is given and that all of SCORES are percentages.

    Args:
        scores: The scores by name; J and F may be NaN.
        where: File or line of the scores, for error messages.

    Raises:
        DataError: J&F is missing, or a score is not between 0 and 100.
    """
    if math.isnan(scores["j_and_f"]):
        raise DataError(f"{where}: no J&F; expected `J&F` or both `J` and `F`")
    for name in SCORES:
        if not (math.isnan(scores[name]) or 0 <= scores[name] <= 100):
            raise DataError(f"{where}: {name} is {scores[name]}, expected a percentage between 0 and 100")


def decimals(text: str) -> int:
    """Return the number of digits after the decimal point."""
    exponent = Decimal(text).as_tuple().exponent if text else 0
    return max(0, -exponent) if isinstance(exponent, int) else 0


def is_consistent(scores: Mapping[str, float], digits: Mapping[str, int]) -> bool:
    """Return whether (J + F) / 2 equals J&F within one unit of the last given digit.

    It is true where J or F is missing.

    Args:
        scores: `j_and_f`, `j` and `f` in percent.
        digits: Number of decimals of each score. J and F are assumed to have the same number: 79 next to 81.25 is read
            as 79.00.
    """
    if math.isnan(scores["j"]) or math.isnan(scores["f"]):
        return True
    last: int = min(digits["j_and_f"], max(digits["j"], digits["f"]))
    return abs((scores["j"] + scores["f"]) / 2 - scores["j_and_f"]) <= 10.0**-last + 1e-9
