"""The config reference, written from the schemas so that it cannot drift: `python -m vosarena.config.reference`."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from vosarena.config.schema import SCHEMAS

_INTRODUCTION = """# Config reference

Written from `src/vosarena/config/schemas/` by `make docs`; do not edit.
Unknown keys, wrong types and unknown names stop a run before it starts, with the nearest valid choice.
"""


def reference() -> str:
    """Markdown with one table of keys for the config, for a dataset and for a model."""
    parts = [_INTRODUCTION]
    for name in ("config", "dataset", "model"):
        schema = yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())
        rows = [f"| `{key}` | {kind} | {text} |" for key, kind, text in _rows(schema)]
        parts += [f"## {schema['title']}\n\n{schema['description']}\n"]
        parts += ["\n".join(["| key | values | meaning |", "|---|---|---|", *rows]) + "\n"]
    return "\n".join(parts)


def _rows(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for key, value in schema.get("properties", {}).items():
        required = "**required**. " if key in schema.get("required", ()) else ""
        yield prefix + key, _kind(value), required + " ".join(value.get("description", "").split())
        yield from _rows(value, f"{prefix}{key}.")
        yield from _rows(value.get("items", {}), f"{prefix}{key}.")
        if isinstance(value.get("additionalProperties"), dict):
            yield from _rows(value["additionalProperties"], f"{prefix}{key}.NAME.")
    known: set[str] = set()
    for choice in schema.get("oneOf", ()):
        rows = [row for row in _rows({**choice, "required": ()}, prefix) if row[0] not in known]
        known.update(key for key, _, _ in rows)
        yield from rows


def _kind(value: Mapping[str, Any]) -> str:
    if "enum" in value:
        kinds = ", ".join(f"`{choice}`" for choice in value["enum"])
    elif value.get("type") == "array":
        kinds = f"list of {_kind(value.get('items', {}))}"
    elif "oneOf" in value:
        kinds = " or ".join(dict.fromkeys(_kind(choice) for choice in value["oneOf"]))
    else:
        kinds = {"object": "mapping", "string": "text"}.get(value.get("type", ""), value.get("type", "any"))
    return f"{kinds}; default `{value['default']}`" if "default" in value else kinds


if __name__ == "__main__":
    print(reference(), end="")
