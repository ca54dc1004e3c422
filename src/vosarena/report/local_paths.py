"""Texts without paths of this machine."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class LocalPaths:
    """Remove absolute paths of this machine from texts, because the page may be published.

    Args:
        folders: Folders of the study. Paths inside them become relative to them, and other paths are shortened to their
            last part.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        known = {str(form) for folder in folders for form in (folder.expanduser().absolute(), folder.resolve())} - {"/"}
        longest_first = "|".join(re.escape(folder) for folder in sorted(known, key=len, reverse=True))
        before, end = r"(?<![\w.~/-])", r"(?![^\s:,;'\"<>|)\]])"
        self._inside = re.compile(rf"{before}(?:{longest_first})(?:/+(?=[^\s/])|/?{end})")
        homes = rf"{re.escape(str(Path.home()))}|/(?:home|Users)/[^\s/:,;'\"<>|]+"
        self._home = re.compile(rf"{before}(?:{homes})(?={end}|/)")
        self._others = re.compile(rf"{before}(?:~/|/(?!/)|(?<!:)//+)(?:[^\s/:,;'\"<>|]+/+)*(?=[^\s/:,;'\"<>|])")

    def hide(self, value: Any) -> Any:
        """Return a text, or a mapping or list of texts, without such paths. Keys of mappings are not changed."""
        if isinstance(value, Mapping):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return self._without(value) if isinstance(value, str) else value

    def _without(self, text: str) -> str:
        text = re.sub(r"(://)[^/@\s]+@", r"\1", text.replace("file://", ""))  # also remove names and passwords in URLs
        text = self._inside.sub(lambda found: "" if found[0].endswith("/") else ".", text)
        return self._others.sub(".../", self._home.sub("~", text))
