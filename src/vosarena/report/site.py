"""The site: the results of many bundles as pages that need no server, ready for GitHub Pages.

index.html             boards, models and bundles
data.js                scores and facts
provenance/<n>.js      how the scores of the n-th bundle were made, loaded when somebody asks for it
libraries.js           the libraries of the report's page

Data files are scripts, because browsers do not let a local page fetch JSON.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from vosarena.base.errors import ConfigError
from vosarena.base.escaping import script_json
from vosarena.base.files import check_folder
from vosarena.base.hashing import digest_of, file_sha256
from vosarena.base.version import __version__
from vosarena.leaderboard.boards import board_keys, rows_of
from vosarena.leaderboard.build import scores_of
from vosarena.leaderboard.columns import LEADERBOARD, Shown, columns_for
from vosarena.report.page import records
from vosarena.sharing.bundle import Bundle
from vosarena.sharing.merge import Merged, merge_bundles, runs_of

REAL_TIME = 24  # frames per second, as most videos have
_PAGE = Path(__file__).with_name("page")
_COLUMNS = [
    column for column in columns_for(LEADERBOARD, Shown.PAGE) if column.name not in ("behind_best", "p_vs_best")
]
_MORE = ("ci_high", "n_expected", "seen_data", "status", "note")  # what rows have besides the values of columns
_IDENTITY = ("weights", "precision", "packages", "files", "vosarena", "saving_memory")
_MARK = ".vosarena-site"  # in folders that may be written over


def build_site(files: Sequence[Path], output: Path, address: str = "") -> None:
    """Write the site of bundles. The same bundles give the same bytes.

    Args:
        files: The bundles.
        output: The folder to write to.
        address: Address of the folder in which readers find the bundles; links to them are left out without it.

    Raises:
        DataError: A bundle was changed, or two bundles have different frames or ground truth under one name.
        ConfigError: The folder has other files in it.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / _MARK).is_file():
        raise ConfigError(f"{output} has other files in it; give an empty folder, or one with a site")
    with tempfile.TemporaryDirectory() as folder:
        merged = merge_bundles(files, Path(folder))
        runs = _runs(merged.bundle)
        check_folder(output)
        shutil.rmtree(output)
        (output / "provenance").mkdir(parents=True)
        (output / _MARK).touch()
        (output / ".nojekyll").touch()  # GitHub Pages publishes the files as they are
        content = {
            "version": __version__,
            "real_time": REAL_TIME,
            "address": address.rstrip("/"),
            "bundles": [_bundle(file, label) for file, label in zip(files, merged.labels, strict=True)],
            "models": merged.bundle.models,
            "splits": merged.bundle.splits,
            "columns": [
                {"key": column.name, "title": column.title, "words": column.words, "description": column.description}
                for column in _COLUMNS
            ],
            "boards": _boards(merged, runs),
        }
        (output / "data.js").write_text(f"window.siteData = {script_json(content)};\n", encoding="ascii")
        for number in range(len(files)):
            provenance = {place: run for place, run in runs.items() if number in merged.sources[place]}
            script = f"window.site.arrived({number}, {script_json(provenance)});\n"
            (output / "provenance" / f"{number}.js").write_text(script, encoding="ascii")
    shutil.copyfile(_PAGE / "vendor" / "libraries.min.js", output / "libraries.js")
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, trim_blocks=True)
    page = environment.get_template("site.html.j2").render(
        css=(_PAGE / "page.css").read_text(encoding="utf-8"),
        scripts=[(_PAGE / name).read_text(encoding="utf-8") for name in ("dom.js", "site.js")],
        version=__version__,
    )
    (output / "index.html").write_text(page, encoding="utf-8")


def _bundle(file: Path, label: str) -> dict[str, Any]:
    """Return what the site says about a bundle."""
    return {"label": label, "file": file.name, "bytes": file.stat().st_size, "sha256": file_sha256(file)}


def _boards(merged: Merged, runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return all boards with their rows. `from` of a measured row are the numbers of its bundles."""
    table = scores_of(runs_of(merged.bundle))
    columns = [name for name in (*(column.name for column in _COLUMNS), *_MORE) if name in table]
    boards = []
    for key in board_keys(table):
        rows = records(rows_of(table, key)[columns])
        for row in rows:
            if row["kind"] == "measured":
                place = f"{key.dataset}/{key.split}/{row['model']}"
                row |= {"from": merged.sources[place], "real_time": runs[place]["real_time"]}
        boards.append(
            {**key._asdict(), "rows": [{name: it for name, it in row.items() if it not in ("", None)} for row in rows]}
        )
    return boards


def _runs(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Return how every run was made, by `<dataset>/<split>/<model>`."""
    data: dict[str, dict[str, str]] = {}
    found = {}
    for dataset, split, model in bundle.runs:
        name = f"{dataset}/{split}"
        if name not in data:
            hashes = bundle.fingerprints(name)
            data[name] = {
                key: digest_of({sequence: it[key] for sequence, it in hashes.items()})
                for key in ("frames", "ground_truth")
            }
        found[f"{name}/{model}"] = {**data[name], **_run(bundle, dataset, split, model)}
    return found


def _run(bundle: Bundle, dataset: str, split: str, model: str) -> dict[str, Any]:
    """Return how the masks of a run were made. What differs between its sequences is listed once for each value."""
    manifests = bundle.manifests(dataset, split, model)
    made = {name: sorted({json.dumps(it[name], sort_keys=True) for it in manifests.values()}) for name in _IDENTITY}
    times = bundle.timings.get(f"{dataset}/{split}/{model}", {})
    in_time = [it.get("real_time") for it in manifests.values()]
    return {
        **{name: [json.loads(value) for value in values] for name, values in made.items()},
        "sequences": len(manifests),
        "python": sorted({it["python"] for it in times.values()}),
        "masks": digest_of({name: it["masks"] for name, it in manifests.items()}),
        "counts": file_sha256(bundle.metrics(dataset, split, model)),
        "has_masks": bundle.masks(dataset, split, model).is_file(),
        "real_time": min(it["fps"] for it in in_time) if in_time and all(in_time) else None,
        "late": sum(it["late"] for it in in_time if it),
    }
