"""Validation of config and catalog entries against the JSON Schemas, in one sentence per mistake."""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from vosarena.base.errors import ConfigError
from vosarena.base.text import nearest

SCHEMAS = Path(__file__).with_name("schemas").resolve()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that is there twice is an error: PyYAML takes the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError naming the file and the line."""
    try:
        content = yaml.load(file.read_bytes(), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(file)
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # bytes that are no text; a date such as 2024-13-45
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping of keys to values")
    return content


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(yaml.safe_load((SCHEMAS / f"{schema}.schema.yaml").read_text()))


def properties(schema: str, key: str) -> Mapping[str, Any]:
    """The schemas of the keys under a top-level key of a schema."""
    return _validator(schema).schema["properties"][key]["properties"]


def validate(instance: Any, schema: str, where: str, at: str = "") -> None:
    """Raise ConfigError for the first mistake, naming the key's path and the nearest valid choice.

    schema: `config`, `dataset` or `model`. where: the file that the user knows. at: where in it the instance stands.
    """
    check_keys(instance, where, at)
    errors = sorted(_validator(schema).iter_errors(instance), key=lambda e: list(map(str, e.absolute_path)))
    if errors:
        path = ".".join([at] * bool(at) + [str(part) for part in errors[0].absolute_path])
        raise ConfigError(": ".join(part for part in (where, path, _sentence(errors[0])) if part))


def check_keys(instance: Any, where: str, at: str = "") -> None:
    """Raise ConfigError for a key that YAML does not read as text."""
    if isinstance(instance, Mapping):
        for key in instance:
            if not isinstance(key, str):
                raise ConfigError(
                    ": ".join(part for part in (where, at, f"the key {key} is not text{_QUOTES}") if part)
                )
        parts = list(instance.items())
    else:
        parts = list(enumerate(instance)) if isinstance(instance, list) else []
    for key, value in parts:
        check_keys(value, where, f"{at}.{key}" if at else str(key))


_QUOTES = "; put it in quotes as you mean it: without them YAML takes 0123, 1.10, no, on or a date for something else"
_KINDS = {
    "array": "a list",
    "object": "a mapping",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


_NAME = "is no name: use letters, digits, ., _ and -, and begin with a letter or digit"
_FORMS = {
    ".": "is empty",
    "^[^{}]*$": "has { or } in it, which Snakemake takes for a wildcard; choose another folder",
    "^https?://": "is no web address: it begins with http:// or https://",
    "^[0-9a-f]{32}$": "is no MD5: 32 hexadecimal digits in lower case",
    "^[0-9a-f]{64}$": "is no SHA-256: 64 hexadecimal digits in lower case",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": _NAME,
    "^[A-Za-z0-9][A-Za-z0-9._+-]*$": _NAME,
}


def _sentence(error: ValidationError) -> str:
    match error.validator:
        case "additionalProperties":
            return _unknown_key(error.instance, error.schema.get("properties", {}))
        case "enum":
            return f"{error.instance!r} is not allowed; {_choices(error.instance, error.validator_value)}"
        case "uniqueItems":
            twice = next(item for index, item in enumerate(error.instance) if item in error.instance[:index])
            return f"{twice!r} is in the list twice; leave one out"
        case "type":
            return f"{_shown(error.instance)} is not {_KINDS[error.validator_value]}{_hint(error)}"
        case "required":
            return f"the key {next(key for key in error.validator_value if key not in error.instance)!r} is missing"
        case "minItems":
            return "the list is empty"
        case "pattern":
            return f"{error.instance!r} {_FORMS[error.validator_value]}"
        case "oneOf":
            return _no_choice(error)
    return error.message


def _choices(word: Any, known: list[str]) -> str:
    """All of a few choices, the nearest of many."""
    return f"choose {', '.join(known[:-1])} or {known[-1]}" if 1 < len(known) < 5 else nearest(word, known)


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, date) else repr(value)


def _hint(error: ValidationError) -> str:
    if error.validator_value == "string" and not isinstance(error.instance, Mapping | list):
        return _QUOTES
    if error.validator_value == "array" and error.instance:
        return f"; write [{error.instance}]"
    if error.validator_value == "number" and isinstance(error.instance, str):
        with suppress(ValueError):
            return f"; YAML wants a point in it: {float(error.instance):.1e}"
    return ""


def _unknown_key(instance: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    unknown = next(key for key in instance if key not in known)
    return f"unknown key {unknown!r}; {nearest(unknown, known)}"


def _no_choice(error: ValidationError) -> str:
    """None of several forms fits: name the wrong key, or the wrong value of a right one."""
    kinds = {choice["type"]: choice for choice in error.validator_value}
    if not isinstance(error.instance, Mapping):
        quotes = _QUOTES if "string" in kinds and not isinstance(error.instance, list) else ""
        return f"{_shown(error.instance)} is not {' or '.join(_KINDS[kind] for kind in kinds)}{quotes}"
    known = {key: value for choice in error.validator_value for key, value in choice.get("properties", {}).items()}
    if known and not set(error.instance) <= set(known):
        return _unknown_key(error.instance, known)
    deepest = max(error.context or [], key=lambda e: len(e.path))
    if deepest.path:
        return f"{deepest.path[-1]}: {_sentence(deepest)}"
    return f"{', '.join(error.instance) or 'nothing'} alone is no complete entry; see docs/reference/config.md"


def typed(value: Any, schema: str, untyped: bool = False) -> Any:
    """The value with numbers and booleans where the schema wants them, also if they are given as text.

    untyped: the value is one of Snakemake's `--config`, where all that is nested is text; so text that a number has is
    one too where the schema leaves it open, as for options of trackers.
    """
    return _typed(value, _validator(schema).schema, untyped)


def _typed(value: Any, schema: Mapping[str, Any], untyped: bool) -> Any:
    if "oneOf" in schema or "enum" in schema:
        return value
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties") or {}
        return {key: _typed(item, known.get(key, others), untyped) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {}), untyped) for item in value]
    if not isinstance(value, str):
        return value
    kind = schema.get("type")
    if value in ("true", "false") and (kind == "boolean" or (kind is None and untyped)):
        return value == "true"
    if kind in ("integer", "number") or (kind is None and untyped):
        return _number(value, exactly=kind is None)
    return value


def _number(text: str, exactly: bool) -> Any:
    """The number in a text, or the text. exactly: only if the number is written like that: not 007 or 1.10."""
    if not re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", text):
        return text
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            return number if math.isfinite(number) and (not exactly or str(number) == text) else text
    return text
