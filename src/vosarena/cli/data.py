"""The commands that look after data: `vosarena fetch`, `vosarena datasets` and `vosarena models`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where it is needed, so that `vosarena --help` is quick
    from rich.table import Table

    from vosarena.config.study import Catalog, Model, Split


def add_data_parsers(commands: Any) -> None:
    """Add the three commands to a parser."""
    _add_fetch(commands)
    _add_datasets(commands)
    _add_models(commands)


def _add_fetch(commands: Any) -> None:
    """`vosarena fetch DATASET/SPLIT ...`: exactly what the rules do."""
    parser = commands.add_parser(
        "fetch",
        help="download, verify, extract and index splits, or fetch a model's weights",
        description="Do what the workflow's rules do for a split (download, verify, extract, prepare, index) or for "
        "the weights of a model. A download that was broken off goes on where it was.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="<dataset>/<split>, or the name of a model")
    _add_places(parser)
    parser.add_argument("--attempts", type=int, default=5, help="that may bring nothing new, in a row (default: 5)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds without a byte (default: 20)")
    parser.add_argument("--remove-archives", action="store_true", help="remove archives once they are extracted")
    parser.set_defaults(run=_fetch)


def _add_datasets(commands: Any) -> None:
    """`vosarena datasets`: the catalog, and what of it is on this machine."""
    parser = commands.add_parser(
        "datasets",
        help="list datasets with their state and size on this machine",
        description="List the splits of the catalog, and how far each is on this machine.",
    )
    _add_places(parser)
    parser.set_defaults(run=_list_datasets)


def _add_models(commands: Any) -> None:
    """`vosarena models`: the catalog, and which weights are on this machine."""
    parser = commands.add_parser(
        "models",
        help="list models with the state and size of their weights",
        description="List the models of the catalog, and which weights are on this machine.",
    )
    _add_places(parser)
    parser.set_defaults(run=_list_models)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalog", type=Path, action="append", default=[], help="further catalog folder")
    parser.add_argument("--resources", type=Path, default=Path("resources"), help="default: %(default)s")


def _fetch(args: argparse.Namespace) -> None:
    from vosarena.config.study import load_catalog
    from vosarena.datasets.archives import collect_archives
    from vosarena.datasets.prepare import fetch_split
    from vosarena.fetching.sources import Policy
    from vosarena.fetching.weights import fetch_weights

    catalog = load_catalog(args.catalog)
    policy = Policy(attempts=args.attempts, timeout=args.timeout)
    for name in args.names:
        _check_name(name, catalog)
    for name in args.names:
        if "/" in name:
            collect_archives(catalog.splits(name.split("/")[0]).values())
            table = fetch_split(catalog.split(name), args.resources, policy, keep=not args.remove_archives)
            print(f"{name}: {_counted(table)} in {table}")
            continue
        model = catalog.model(name)
        if not model.weights:
            print(f"{name}: its weights are trained by the run" if model.finetune else f"{name}: needs no weights")
            continue
        output = args.resources / "weights" / f"{name}.pth"
        fetch_weights(model.weights, output, policy)
        print(f"{name}: {output}")


def _check_name(name: str, catalog: Catalog) -> None:
    """Raise ConfigError for what is neither a split nor a model, with the splits or the name that may be meant."""
    from vosarena.base.errors import ConfigError
    from vosarena.base.text import nearest

    if "/" in name:
        catalog.split(name)
    elif name not in catalog.models:
        splits = [str(split) for dataset in sorted(catalog.datasets) for split in catalog.splits(dataset).values()]
        meant = [split for split in splits if split.startswith(name.lower())]
        hint = f"write {' or '.join(meant)}" if meant else nearest(name, [*catalog.models, *catalog.datasets])
        raise ConfigError(f"{name!r} is neither a model nor a split, <dataset>/<split>; {hint}")


def _counted(table: Path) -> str:
    from vosarena.base.text import summarise_names
    from vosarena.datasets.table import read_counts, read_table

    records = read_table(table)
    found, expected = read_counts(table)
    problems = [record.sequence for record in records if record.problem]
    words = f"{len(records)} sequences" + ("" if expected in (None, found) else f" (expected {expected})")
    return words + (f", {len(problems)} with problems ({summarise_names(problems)})" if problems else "")


def _list_datasets(args: argparse.Namespace) -> None:
    from vosarena.base.escaping import console
    from vosarena.config.study import load_catalog

    catalog = load_catalog(args.catalog)
    table = _table("split", "title", "sequences", "state", "size", "layout", "protocol", "truth", "licence")
    for name in sorted(catalog.datasets):
        for split in catalog.splits(name).values():
            state, size = split_state(split, args.resources)
            entry = catalog.datasets[name]
            table.add_row(
                *(str(split), entry.get("title", name), _expected(split, args.resources), state, _size(size)),
                *(
                    split.layout,
                    split.protocol,
                    split.ground_truth.replace("_", " "),
                    entry.get("license", "not stated"),
                ),
            )
    console(pipe_width=240).print(table)


def split_state(split: Split, resources: Path) -> tuple[str, int]:
    """How far a split is on this machine, and the bytes of its archives.

    absent, partial, downloaded (not verified), verified, extracted or indexed; the least of its archives counts.
    """
    from vosarena.config.paths import Paths
    from vosarena.datasets.archives import archive_state, archives_of, size_on_disk

    archives = archives_of(split)
    size = sum(size_on_disk(archive, resources) for archive in archives)
    if Paths(resources=resources).sequences(split).is_file():
        return "indexed", size
    order = ("absent", "partial", "downloaded", "verified", "extracted")
    states = [archive_state(archive, resources) for archive in archives if not archive.optional]
    if not states:
        return ("on demand" if split.synthetic else "local" if Path(split.path or "").is_dir() else "absent"), size
    return min(states, key=order.index), size


def _expected(split: Split, resources: Path) -> str:
    from vosarena.config.paths import Paths
    from vosarena.datasets.table import read_counts

    table = Paths(resources=resources).sequences(split)
    part = "part of " if split.select or split.exclude or split.attributes or split.sample else ""
    if not table.is_file():
        return f"{part}{split.sequences or '?'}"
    found, expected = read_counts(table)
    return part + (str(found) if expected in (None, found) else f"{found} of {expected}")


def _list_models(args: argparse.Namespace) -> None:
    from vosarena.base.escaping import console
    from vosarena.config.study import load_catalog

    catalog = load_catalog(args.catalog)
    table = _table("model", "title", "tracker", "weights", "size", "description")
    for name in sorted(catalog.models):
        model = catalog.model(name)
        state, size = weights_state(model, args.resources)
        table.add_row(name, model.title or name, model.tracker, state, _size(size), model.description)
    console(pipe_width=240).print(table)


def weights_state(model: Model, resources: Path) -> tuple[str, int]:
    """How far the weights of a model are on this machine, and their bytes: none needed, absent, local ..."""
    from vosarena.base.notes import sidecar_path
    from vosarena.fetching.weights import local_files, place_of

    if model.finetune:
        return "trained by the run", 0
    if not model.weights:
        return "none needed", 0
    place = place_of(model.weights, model.name, resources)
    path = next((path for path in (resources / "weights" / f"{model.name}.pth", place) if path.is_file()), None)
    if path:
        return ("verified" if sidecar_path(place).is_file() else "downloaded"), path.stat().st_size
    local = local_files(model.weights)
    return ("local", Path(local[0]).stat().st_size) if local else ("absent", 0)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        prose = column in ("title", "licence", "description")
        table.add_column(column, overflow="fold" if prose else "ellipsis", no_wrap=not prose)
    return table


def _size(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size) if size else ""
