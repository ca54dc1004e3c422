"""Names and paths as users write them, made safe for messages, files and Snakemake."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

SEQUENCE_TABLE = "sequences.parquet"  # in the folder of a prepared split: the table of its sequences
WEIGHTS_FOLDER = ("config.json", "model.safetensors")
"""The files of weights that are a folder, as `save_pretrained` of Hugging Face libraries writes it."""


def escape_unprintable(text: str | Path) -> str:
    r"""Write control characters and bytes that are not UTF-8 as `\xe9`, so that the text can be shown and stored."""
    if (found := str(text)).isascii() and found.isprintable():
        return found
    shown = os.fsencode(text).decode(errors="backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", shown)


def expand_home(value: Any) -> Any:
    """Expand `~/` and `~user/` at the start of text, also inside lists and mappings."""
    if isinstance(value, str):
        return os.path.expanduser(value)  # noqa: PTH111 (text of an unknown user stays as it is)
    if isinstance(value, Mapping):
        return {key: expand_home(item) for key, item in value.items()}
    return [expand_home(item) for item in value] if isinstance(value, list) else value


def safe_path_name(name: str) -> str:
    """Return a name as one part of a path that Snakemake accepts; ordinary names stay unchanged.

    Snakemake reads {x} as a wildcard and <x> as a path variable; its log separates files by commas and adds remarks in
    brackets; and it cannot keep bytes that are not text. These characters, and %, are percent-encoded as in web
    addresses (%7B), so that two names never become the same.
    """
    safe = (
        char if char.isprintable() and char not in "{}<>%,()\\" else quote(char, safe="", errors="surrogateescape")
        for char in name
    )
    return re.sub(r"^ | $", "%20", "".join(safe))
