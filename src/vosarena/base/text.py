"""Small helpers for sentences that users read."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def nearest(word: object, known: Iterable[object]) -> str:
    """Return "did you mean 'x'?" for the closest of the known words, else the list of them."""
    words = {name.lower(): name for name in sorted(map(str, known))}
    close = get_close_matches(str(word).lower(), words, n=1, cutoff=0.5)
    return f"did you mean {words[close[0]]!r}?" if close else f"known: {', '.join(words.values())}"


def summarise_names(names: Sequence[object], shown: int = 3) -> str:
    """Return the first names and how many more there are.

    Examples:
        >>> summarise_names(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more


def jobs_at_once(numbers: Iterable[float]) -> str:
    """Return how many jobs ran at once while speeds were measured; empty if that is not known.

    Examples:
        >>> jobs_at_once([1, 2, float("nan")])
        '1 to 2 jobs at once'
    """
    known = sorted({int(number) for number in numbers if number == number})
    if known in ([], [1]):
        return "1 job at a time" if known else ""
    return f"{' to '.join(map(str, dict.fromkeys((known[0], known[-1]))))} jobs at once"
