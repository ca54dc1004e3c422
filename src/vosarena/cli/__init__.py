"""The command `vosarena`: the whole workflow, and every stage of it on its own, without Snakemake.

Each command has its own module with a function `add_parser(commands)`. Only the module of the command that the user
typed is imported, and a module imports what is slow to load in its `run`, so that `vosarena --help` is quick.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from vosarena.base.errors import VosarenaError
from vosarena.base.names import expand_home
from vosarena.base.version import __version__

# Names and summaries, in the order of the help text.
COMMANDS = {
    "run": "run a study: fetch data, track, score, and write tables and the report",
    "init": "write a config for the videos in a folder",
    "plan": "show what a study needs and would run, before anything runs",
    "track": "track objects through videos with one model",
    "check": "test whether a tracker does what the workflow expects",
    "evaluate": "score predicted masks against ground truth",
    "fetch": "download and prepare splits of datasets, or download weights",
    "datasets": "list the datasets of the catalog and their state on this machine",
    "models": "list the models of the catalog and the state of their weights",
    "finetune": "fine-tune Cutie or SAM 2 on videos with masks",
    "leaderboard": "write and print the tables of all scores",
    "explain": "show why published numbers of a model differ from the score measured here",
    "report": "write the HTML page with all results",
    "video": "write videos with the masks of several models side by side",
    "bundle": "write counts and provenance of a study into one file to share",
    "merge": "verify bundles and merge them into one leaderboard",
    "site": "write a static site from bundles",
    "cite": "print the BibTeX entries of everything that a study uses",
    "submission": "make or check an archive for an evaluation server",
    "synthesize": "draw the generated videos of the demo",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `vosarena`; by default those of this process.

    Returns:
        The exit code: 1 after an error, which is printed as one message, and 130 after Ctrl-C.
    """
    try:
        args = _parse(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        if warning := other_library(Path.cwd()):
            print(f"warning: {warning}", file=sys.stderr)
        return args.run(args) or 0
    except VosarenaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once, without a traceback
        print("interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments with the parser of their command; the other commands are only listed."""
    parser = argparse.ArgumentParser(
        prog="vosarena",
        description="Benchmark semi-supervised video object segmentation. `vosarena run` runs a study; "
        "each other command does one stage of it, without Snakemake.",
        epilog="`vosarena COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    typed = arguments[0] if arguments else ""
    for name, summary in COMMANDS.items():
        if name == typed:
            import_module(f"vosarena.cli.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser.parse_args([_expand_home(argument) for argument in arguments])


def _expand_home(argument: str) -> str:
    """Expand `~` also in `--output=~/masks`: shells expand it only at the start of a word."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{expand_home(value)}"


def other_library(folder: Path) -> str:
    """Return a warning if `folder` is in a checkout whose library differs from this one, else an empty string."""
    installed = Path(__file__).parents[1]
    for checkout in (folder, *folder.parents):
        local = checkout / "src" / "vosarena"
        if (local / "cli" / "__init__.py").is_file():
            if local.samefile(installed):
                return ""
            names = {file.relative_to(root) for root in (local, installed) for file in root.rglob("*.py")}
            if all(_content(local / name) == _content(installed / name) for name in names):
                return ""
            return f"using vosarena from {installed}, not from this checkout: pip install -e {checkout}"
    return ""


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
