"""Validation of config and catalog entries against the JSON Schemas, in one sentence per mistake."""

from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from vosarena.errors import ConfigError

SCHEMAS = (Path(__file__).parents[1] / "schemas").resolve()  # in a checkout a link, in a wheel the files


def nearest(word: str, known) -> str:
    """`; did you mean 'x'?` for the closest of the known words, else the list of them."""
    known = sorted(map(str, known))
    close = get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


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
    errors = sorted(_validator(schema).iter_errors(instance), key=lambda e: list(map(str, e.absolute_path)))
    if errors:
        path = ".".join([at] * bool(at) + [str(part) for part in errors[0].absolute_path])
        raise ConfigError(": ".join(part for part in (where, path, _sentence(errors[0])) if part))


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
        case "type":
            return f"{error.instance!r} is not {_KINDS[error.validator_value]}{_hint(error)}"
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


def _hint(error: ValidationError) -> str:
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
        return f"{error.instance!r} is not {' or '.join(_KINDS[kind] for kind in kinds)}"
    known = {key: value for choice in error.validator_value for key, value in choice.get("properties", {}).items()}
    if known and not set(error.instance) <= set(known):
        return _unknown_key(error.instance, known)
    deepest = max(error.context or [], key=lambda e: len(e.path))
    if deepest.path:
        return f"{deepest.path[-1]}: {_sentence(deepest)}"
    return f"{', '.join(error.instance) or 'nothing'} alone is no complete entry; see docs/config.md"


def typed(value: Any, schema: str) -> Any:
    """The value with numbers and booleans where the schema wants them or leaves it open.

    Snakemake gives what is nested in a value of the command line (`--config inference={sequences_per_job: 16}`) as
    text.
    """
    return _typed(value, _validator(schema).schema)


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    if "oneOf" in schema or "enum" in schema:
        return value
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties") or {}
        return {key: _typed(item, known.get(key, others)) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    if isinstance(value, str) and schema.get("type") in (None, "integer", "number", "boolean"):
        if value in ("true", "false"):
            return value == "true"
        for number in (int, float):
            with suppress(ValueError):
                return number(value)
    return value
