"""Validation of config and catalog entries against the JSON Schemas, in one sentence per mistake."""

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


def validate(instance: Any, schema: str, where: str) -> None:
    """Raise ConfigError for the first mistake, naming the key's path and the nearest valid choice.

    schema: `config`, `dataset` or `model`. where: the file or place that the user knows.
    """
    errors = sorted(_validator(schema).iter_errors(instance), key=lambda e: list(map(str, e.absolute_path)))
    if errors:
        raise ConfigError(f"{where}: {_sentence(errors[0])}")


def _sentence(error: ValidationError) -> str:
    path = ".".join(map(str, error.absolute_path))
    prefix = f"{path}: " if path else ""
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in error.instance if key not in known)
        return f"{prefix}unknown key {unknown!r}; {nearest(unknown, known)}"
    if error.validator == "enum":
        return f"{prefix}{error.instance!r} is not allowed; {nearest(error.instance, error.validator_value)}"
    if error.validator == "oneOf":
        return f"{prefix}{error.instance!r} has the wrong form; see {error.schema.get('description', 'the reference')}"
    return prefix + error.message
