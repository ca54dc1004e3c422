"""The base class of everything that users write in YAML: immutable, and without unknown keys.

The types here are stricter than pydantic's own: `true` is not a number, and text is one only where the source of the
value has no types (see `Reading`).
"""

import math
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from vosarena.base.names import expand_home
from vosarena.base.text import nearest


@dataclass(frozen=True)
class Reading:
    """How values are read.

    Attributes:
        folder: Relative paths are relative to this folder. None leaves them relative to the working directory.
        text_numbers: Accept text for numbers and booleans. Snakemake gives everything that is nested in `--config` as
            text.
    """

    folder: Path | None = None
    text_numbers: bool = False


class Null:
    """The value of a key without a value: never valid, while None is what an optional field holds by default."""

    def __repr__(self) -> str:
        return "null"


NULL = Null()


class Entry(BaseModel):
    """A mapping in a config or catalog file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_mapping(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse unknown keys and, in what users wrote, keys without a value."""
        if not isinstance(value, Mapping):
            return value
        check_keys(value, cls.keys())
        if not isinstance(info.context, Reading):
            return value
        return {key: NULL if item is None else item for key, item in value.items()}

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys as users write them."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    def given(self) -> dict[str, Any]:
        """Return the values that were given, by field name and without defaults."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    def merged(self, changes: Self) -> Self:
        """Return a copy in which the values that `changes` gives replace these."""
        return self.model_copy(update=changes.given())


def check_keys(value: Mapping[Any, Any], known: Collection[str]) -> None:
    """Raise a validation error for the first key that is not known."""
    for key in value:
        if key not in known:
            raise wrong(f"unknown key {key!r}; {nearest(key, known)}")


def wrong(sentence: str) -> PydanticCustomError:
    """Return a validation error with a sentence for users."""
    return PydanticCustomError("wrong", "{sentence}", {"sentence": sentence})


def number_of(text: str) -> int | float | str:
    """Return the finite number that a text shows, or the text."""
    if not re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", text):
        return text
    for kind in (int, float):
        with suppress(ValueError):
            number = kind(text)
            return number if math.isfinite(number) else text
    return text


def _number(value: Any, info: ValidationInfo) -> Any:
    return number_of(value) if isinstance(value, str) and _reading(info).text_numbers else value


def _boolean(value: Any, info: ValidationInfo) -> Any:
    if value in ("true", "false") and _reading(info).text_numbers:
        return value == "true"
    return value


def _location(value: str, info: ValidationInfo) -> str:
    folder = _reading(info).folder
    return str((folder / expand_home(value)).resolve()) if folder else str(Path(expand_home(value)))


def _interpreter(value: str, info: ValidationInfo) -> str:
    """Make the path absolute without following links: the interpreter of a virtual environment is a link."""
    path: str = os.path.abspath((_reading(info).folder or Path()) / expand_home(value))  # noqa: PTH100
    return path


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise wrong(f"{value!r} is in the list twice; leave one out")
    return values


def _reading(info: ValidationInfo) -> Reading:
    return info.context if isinstance(info.context, Reading) else Reading()


NAME = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
Int = Annotated[int, Field(strict=True), BeforeValidator(_number)]
Float = Annotated[float, Field(strict=True, allow_inf_nan=False), BeforeValidator(_number)]
Bool = Annotated[bool, Field(strict=True), BeforeValidator(_boolean)]
NonEmpty = Annotated[str, Field(pattern=".")]
HomeText = Annotated[str, AfterValidator(expand_home)]  # text in which `~` is the home folder
Location = Annotated[NonEmpty, AfterValidator(_location)]  # a path; in a catalog file relative to that file
Interpreter = Annotated[NonEmpty, AfterValidator(_interpreter)]  # the path of a Python interpreter
Url = Annotated[str, Field(pattern="^https?://")]
Folder = Annotated[str, Field(pattern="^[^{}]*$"), AfterValidator(expand_home)]  # of Snakemake's output
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileSize = Annotated[str, Field(pattern="^[0-9]+([.][0-9]+)? [kMGT]?B$")]  # in powers of 1000
Md5 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Name = Annotated[str, Field(pattern=NAME)]
NameWithPlus = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Unique = AfterValidator(_unique)
