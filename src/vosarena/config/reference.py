"""The config reference and the JSON Schema for editors, written from the schemas next to it.

python -m vosarena.config.reference
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from vosarena.base.entry import Entry
from vosarena.config.dataset_schema import DatasetEntry, SplitDefaults
from vosarena.config.model_schema import ModelEntry
from vosarena.config.schema import Config
from vosarena.fetching.sources import SOURCES, Source

_INTRODUCTION = """\
# Config reference

<!-- Written by `python -m vosarena.config.reference` from the schemas in vosarena/config/. Do not edit. -->

Unknown keys, wrong types and unknown names stop a run before it starts, and the error names the nearest valid choice.
Editors with YAML support complete and check a config that begins with this line:

```yaml
# yaml-language-server: $schema=docs/reference/config.schema.json
```
"""
_SECTIONS: dict[type[Entry], str] = {Config: "Config file", DatasetEntry: "Dataset", ModelEntry: "Model"}
_HEADER = "| key | values | meaning |\n|---|---|---|"


def reference() -> str:
    """Return Markdown with an example and a table of keys for every mapping in a config or catalog file."""
    sections = [section for kind, title in _SECTIONS.items() for section in _sections(kind, f"## {title}")]
    return "\n".join([_INTRODUCTION, *sections, _source_section()])


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_null(Config.model_json_schema())}


def _without_null(schema: Any) -> Any:
    """Return a JSON Schema in which no key may be null: one is left out instead."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_null(value) for key, value in schema.items() if not (key == "default" and value is None)}
    choices = kept.get("anyOf", [])
    if {"type": "null"} in choices:
        choices.remove({"type": "null"})
        if len(choices) == 1:
            kept = {**kept.pop("anyOf")[0], **kept}
    return kept


def write_reference(folder: Path) -> None:
    """Write `config.md` and `config.schema.json` into a folder."""
    (folder / "config.md").write_text(reference(), encoding="utf-8")
    (folder / "config.schema.json").write_text(json.dumps(config_schema(), indent=2) + "\n", encoding="utf-8")


def nested_entries(kind: type[Entry]) -> Iterator[tuple[str, type[Entry]]]:
    """Yield path and class of the mappings below an entry, except for sources and what has a section of its own."""
    for name, field in kind.model_fields.items():
        for entry in _entries_in(field.annotation):
            own_section = entry in _SECTIONS or issubclass(entry, Source)
            if not own_section and not (kind is DatasetEntry and name in SplitDefaults.model_fields):
                path = f"{name}.NAME" if name == "splits" else field.alias or name
                yield path, entry
                yield from ((f"{path}.{deeper}", other) for deeper, other in nested_entries(entry))


def _entries_in(annotation: Any) -> list[type[Entry]]:
    """Return the entry classes in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Entry):
        return [annotation]
    return [entry for part in get_args(annotation) for entry in _entries_in(part)]


def _sections(kind: type[Entry], heading: str) -> Iterator[str]:
    yield _section(kind, heading)
    for path, entry in nested_entries(kind):
        yield _section(entry, f"### `{path}`")


def _section(kind: type[Entry], heading: str) -> str:
    example = getattr(kind, "example", "")
    block = f"```yaml\n{example}\n```\n" if example else ""
    return "\n".join(filter(None, [f"{heading}\n", _prose(kind) + "\n", block, "\n".join(_table(kind)) + "\n"]))


def _source_section() -> str:
    """Return the section about sources, which archives and weights share."""
    parts = ["## Source\n", "Where a file comes from; an item of `sources`. One of:\n"]
    for kind in SOURCES.values():
        parts += [_section(kind, f"### `{next(iter(kind.model_fields))}`")]
    return "\n".join(parts)


def _prose(kind: type[Entry]) -> str:
    return "\n".join(line.strip() for line in (kind.__doc__ or "").strip().splitlines())


def _table(kind: type[Entry]) -> Iterator[str]:
    yield _HEADER
    schema = kind.model_json_schema()
    fields = kind.model_fields
    for name in sorted(fields, key=lambda name: (not fields[name].is_required(), name not in kind.__annotations__)):
        key = fields[name].alias or name
        value = _without_null(schema["properties"][key])
        if kind is DatasetEntry and name in SplitDefaults.model_fields:
            description = f"Default for all splits; see `splits.NAME.{name}`."
            values = _values(value)
        else:
            required = "**required**. " if key in schema.get("required", ()) else ""
            description = required + (fields[name].description or "")
            values = _values(value) + _default(value)
        yield f"| `{key}` | {values} | {description} |"


def _values(value: Mapping[str, Any]) -> str:
    """Return the values that a key may have, in words."""
    if choices := value.get("anyOf", value.get("oneOf")):
        return " or ".join(dict.fromkeys(map(_values, choices)))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if value.get("type") == "array":
        return f"list of {_values(value.get('items', {}))}"
    words = {"string": "text", "object": "mapping", "boolean": "`true`, `false`"}
    return "mapping" if "$ref" in value else words.get(value.get("type", ""), value.get("type", "any"))


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, dict) or default in (None, "", []):
        return ""
    return f"; default `{default if isinstance(default, str) else json.dumps(default)}`"


if __name__ == "__main__":
    write_reference(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference"))
