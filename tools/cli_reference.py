"""Write docs/reference/cli.md from the commands themselves: `python tools/cli_reference.py docs/reference/cli.md`."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest import mock

from vosarena.cli import main

INTRODUCTION = """\
# Command line

<!-- Written by `make docs` from the commands themselves. Do not edit. -->

`vosarena COMMAND --help` shows the same text. `vosarena run` and `snakemake` run the whole workflow;
see [Your first study](../tutorial/first-study.md).
"""


def parser_of(*arguments: str) -> argparse.ArgumentParser:
    """Return the parser whose help `vosarena ARGUMENTS --help` prints."""
    found: list[argparse.ArgumentParser] = []
    record = mock.patch.object(argparse.ArgumentParser, "print_help", lambda self, file=None: found.append(self))
    with record, suppress(SystemExit):
        main([*arguments, "--help"])
    return found[0]


def commands() -> dict[str, str]:
    """Return the help line of every command."""
    actions = parser_of()._actions
    subparsers = next(action for action in actions if isinstance(action, argparse._SubParsersAction))
    return {choice.dest: choice.help or "" for choice in subparsers._choices_actions}


def reference() -> str:
    """Return the page: a table of the commands, and a table of options for each."""
    lines = [INTRODUCTION, "| command | purpose |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {text} |" for name, text in commands().items()]
    for name in commands():
        parser = parser_of(name)
        lines += ["", f"## {name}", "", _escape(parser.description or ""), ""]
        lines += ["| argument | meaning |", "|---|---|", *_rows(parser)]
    return "\n".join(lines) + "\n"


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        metavar = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
        if action.choices is not None:
            metavar = "{" + ",".join(map(str, action.choices)) + "}"
        names = ", ".join(f"{option} {metavar}".strip() for option in action.option_strings) or str(metavar)
        required = "**required**. " if action.required and action.option_strings else ""
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        yield f"| `{names}` | {required}{_escape(text)} |"


def _escape(text: str) -> str:
    """Write text such that Markdown shows it as it is."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
