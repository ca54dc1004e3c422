"""What a paper that uses a study should cite: the BibTeX entries of a catalog."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vosarena.base.errors import ConfigError
from vosarena.base.version import __version__

FILE = "references.bib"
_ENTRY = re.compile(r"^@\w+\{([^,\s]+),\n.*?^\}$", re.MULTILINE | re.DOTALL)

PROTOCOLS = {
    "davis2016": ["perazzi2016davis"],
    "davis2017": ["perazzi2016davis", "ponttuset2017davis"],
    "lvos": ["hong2025lvos"],
    "mosev2": ["ding2025mosev2"],
    "sa-v": ["ravi2024sam2"],
    "vost": ["tokmakov2023vost"],
    "youtube-vos": ["xu2018youtubevos"],
}
_SOFTWARE = f"""@software{{vosarena,
  title = {{vosarena: a reproducible benchmark of semi-supervised video object segmentation}},
  author = {{{{The vosarena developers}}}},
  version = {{{__version__}}},
  year = {{2026}}
}}"""


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


def bibliography(keys: Iterable[str], protocols: Iterable[str], entries: Mapping[str, str]) -> str:
    """Return BibTeX entries, each once: this software, the given keys, and the sources of protocols.

    Args:
        keys: Keys of entries.
        protocols: Names of protocols.
        entries: The entries by key.
    """
    sources = [next((name for name in PROTOCOLS if protocol.startswith(name)), "davis2017") for protocol in protocols]
    wanted = dict.fromkeys([*keys, *(key for name in sources for key in PROTOCOLS[name])])
    return "\n\n".join([_SOFTWARE, *(entries[key] for key in wanted)]) + "\n"
