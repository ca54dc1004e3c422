"""The BibTeX entries of a catalog."""

import re
from pathlib import Path

from vosarena.base.errors import ConfigError

FILE = "references.bib"
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),\n.*?^\}$", re.MULTILINE | re.DOTALL)


def read_references(folder: Path) -> dict[str, str]:
    """Return the entries of `references.bib` in a catalog folder, by key; none if there is no such file.

    Every entry begins with `@` and ends with `}` at the start of a line.

    Raises:
        ConfigError: Two entries have the same key.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    found: dict[str, str] = {}
    for entry in _ENTRY.finditer(file.read_text(encoding="utf-8")):
        if entry[1] in found:
            raise ConfigError(f"{file}: two entries have the key {entry[1]!r}; rename one of them")
        found[entry[1]] = entry[0]
    return found
