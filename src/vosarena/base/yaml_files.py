"""YAML files of users, read strictly."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from vosarena.base.errors import ConfigError


class _NoRepeatedKeys(yaml.constructor.SafeConstructor):
    """A repeated key is an error: PyYAML silently takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _Loader(_NoRepeatedKeys, yaml.SafeLoader):
    """In Python: its errors say best what is wrong."""


class _FastLoader(_NoRepeatedKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C, where PyYAML was built with libyaml: every process of a run reads the whole catalog."""


def line_of(file: Path, path: str) -> int | None:
    """Return the line of a key or list item in a YAML file, or of the innermost part of its path that is there.

    Args:
        file: The file.
        path: Keys and indices, separated by dots, such as `models.1.options.size`. Keys may contain dots themselves.

    Returns:
        The line, counted from 1; None if the file cannot be read or has nothing of the path.
    """
    try:
        node = yaml.compose(file.read_bytes(), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    line = None
    while path:
        parts: list[tuple[str, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            parts = [(str(key.value), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            parts = [(str(index), item, item) for index, item in enumerate(node.value)]
        found = [part for part in parts if path == part[0] or path.startswith(f"{part[0]}.")]
        if not found:
            break
        name, place, node = max(found, key=lambda part: len(part[0]))
        line, path = place.start_mark.line + 1, path[len(name) + 1 :]
    return line


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ConfigError: The file is missing, not valid YAML (the error names the line) or not a mapping.
    """
    try:
        content = _load(file.read_bytes())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(file)
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # bytes that are not text; a date such as 2024-13-45
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping of keys to values")
    return content


def _load(text: bytes) -> Any:
    with suppress(yaml.YAMLError, ValueError):
        return yaml.load(text, Loader=_FastLoader)
    return yaml.load(text, Loader=_Loader)
