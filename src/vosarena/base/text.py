"""Small pieces of text for messages."""

from difflib import get_close_matches


def nearest(word: str, known) -> str:
    """`; did you mean 'x'?` for the closest of the known words, else the list of them."""
    known = sorted(map(str, known))
    alike = {name.lower(): name for name in known}
    close = get_close_matches(str(word).lower(), alike, n=1, cutoff=0.5)
    return f"did you mean {alike[close[0]]!r}?" if close else f"known: {', '.join(known)}"
