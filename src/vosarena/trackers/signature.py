"""Options and packages of a tracker, read from its source without importing it.

A run is planned by many short processes. Importing a user's file that imports torch would take each of them seconds,
while parsing it takes milliseconds, so a misspelt option is found before the run and not when a job starts.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vosarena.base.errors import TrackerError
from vosarena.base.text import nearest
from vosarena.trackers.prompts import MASK_ONLY


@dataclass(frozen=True)
class TrackerSignature:
    """What the source of a tracker says.

    Attributes:
        options: Arguments of the constructor, and whether each is optional. None if the file alone does not say,
            because the constructor is inherited or takes any keyword.
        packages: Packages of the class, empty if they are inherited.
        prompt_kinds: Kinds of prompts that it takes. None if the file alone does not say.
        gives_logits: Whether it has a method `logits`; None if the file alone does not say.
    """

    options: Mapping[str, bool] | None
    packages: tuple[str, ...]
    prompt_kinds: tuple[str, ...] | None = None
    gives_logits: bool | None = None


def parse_signature(file: Path, name: str) -> TrackerSignature:
    """Read the signature of the class `name` in a file.

    Raises:
        TrackerError: The file is not Python, does not define the name, or defines something that is not a tracker.
    """
    try:
        text = file.read_text(encoding="utf-8")
        defined = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    except (SyntaxError, ValueError) as error:
        raise TrackerError(f"{file} is not valid Python: {error}") from None
    if name not in text:
        raise TrackerError(f"{file} defines no {name!r}; {nearest(name, defined)}")
    if name not in defined:
        return TrackerSignature(None, ())  # imported or assigned
    node = defined[name]
    parts = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    alone = isinstance(node, ast.ClassDef) and not node.bases and not node.decorator_list
    if isinstance(node, ast.FunctionDef) or (alone and not parts.keys() & {"track", "combine"}):
        raise TrackerError(f"{file}: {name} is not a tracker; write a class with a method `track`")
    packages = _strings(_assigned(node, "packages"))
    kinds = _assigned(node, "prompt_kinds")
    prompt_kinds = _strings(kinds) if kinds else MASK_ONLY if alone else None
    logits = True if "logits" in parts else False if alone else None
    constructor = parts.get("__init__")
    if constructor is None:
        return TrackerSignature({} if alone else None, packages, prompt_kinds, logits)
    options = None if constructor.args.kwarg else _arguments(constructor.args)
    return TrackerSignature(options, packages, prompt_kinds, logits)


def _assigned(node: ast.ClassDef, name: str) -> ast.expr | None:
    """Return what the body of a class assigns to a name."""
    for part in node.body:
        targets = (
            [part.target] if isinstance(part, ast.AnnAssign) else part.targets if isinstance(part, ast.Assign) else []
        )
        if any(ast.unparse(target) == name for target in targets):
            return part.value  # type: ignore[attr-defined,no-any-return]
    return None


def _strings(value: ast.expr | None) -> tuple[str, ...]:
    elements = value.elts if isinstance(value, ast.Tuple | ast.List) else ()
    return tuple(item.value for item in elements if isinstance(item, ast.Constant) and isinstance(item.value, str))


def _arguments(given: ast.arguments) -> dict[str, bool]:
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    known = {argument.arg: index >= required for index, argument in enumerate(positional) if index}  # without self
    only = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return known | {argument.arg: default is not None for argument, default in only}


def check_names(tracker: str, options: Iterable[str], known: Mapping[str, bool]) -> None:
    """Check the names of options.

    Args:
        tracker: Name of the tracker, for the message.
        options: Names of the options that were given.
        known: Names of all options, and whether each is optional.

    Raises:
        TrackerError: An option is unknown or missing.
    """
    if not {"device", "precision"} <= set(known):
        raise TrackerError(f"tracker {tracker!r}: its constructor must take the arguments `device` and `precision`")
    known = {name: optional for name, optional in known.items() if name not in ("device", "precision")}
    given = list(options)
    for name in given:
        if name not in known:
            raise TrackerError(
                f"tracker {tracker!r} has no option {name!r}; {nearest(name, known) if known else 'it has no options'}"
            )
    for name, optional in known.items():
        if not optional and name not in given:
            also = " (in a config: the checkpoint under `weights:`)" if name == "weights" else ""
            raise TrackerError(f"tracker {tracker!r} needs the option {name!r}{also}")
