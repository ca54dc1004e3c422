"""What `vosarena leaderboard`, `report` and `submission` share: the options that say where a study is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vosarena.base.errors import ConfigError

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from vosarena.config.paths import Paths
    from vosarena.config.study import Study


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, `--results`, `--resources` and `--scores`."""
    parser.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="config of the study (default: %(default)s)"
    )
    for name in ("results", "resources"):
        parser.add_argument(
            f"--{name}", type=Path, help=f"folder of {name} (default: pathvars.{name} of the config, or {name})"
        )
    parser.add_argument(
        "--scores", type=Path, default=Path("scores"), help="folder of the servers' scores (default: %(default)s)"
    )


def add_partial_options(parser: argparse.ArgumentParser) -> None:
    """Add `--partial` and `--jobs`."""
    parser.add_argument(
        "--partial", action="store_true", help="use only finished sequences, into results/studies/STUDY/partial/"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="sequences to measure at the same time (default: %(default)s)"
    )


def read_study(args: argparse.Namespace) -> Study:
    """Return the study of `--config`."""
    from vosarena.config import study

    if not args.config.is_file():
        raise ConfigError(f"{args.config}: no such file; give the config of the study with --config")
    return study.read_study(args.config)


def study_paths(args: argparse.Namespace) -> Paths:
    """Return the paths of the study."""
    from vosarena.config.paths import Paths
    from vosarena.config.schema import Pathvars

    study = read_study(args) if args.config.is_file() else None
    pathvars = study.pathvars if study else Pathvars()
    return Paths(
        study.name if study else args.config.stem,
        results=args.results or Path(pathvars.results),
        resources=args.resources or Path(pathvars.resources),
        scores=args.scores,
    )
