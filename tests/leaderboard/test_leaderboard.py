"""Tables of the leaderboard: golden text, ranks, incomplete runs, published and server rows, the same bytes twice."""

import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support.records import task_of
from vosarena.base.errors import DataError
from vosarena.base.files import write_json
from vosarena.cli import main
from vosarena.config.catalogs import Split
from vosarena.config.paths import Paths
from vosarena.config.study import load_study
from vosarena.config.titles import BY_NAME, Titles
from vosarena.datasets.sequences import META
from vosarena.datasets.table import index_split
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.masks import write_mask
from vosarena.leaderboard.attributes import FailureKind
from vosarena.leaderboard.build import _references, build_leaderboard, read_leaderboard, write_parquet
from vosarena.leaderboard.columns import TABLES
from vosarena.leaderboard.comparison import Comparison, Reference
from vosarena.leaderboard.inputs import local_runs, server_runs
from vosarena.leaderboard.latex import latex
from vosarena.leaderboard.partial import partial_leaderboard
from vosarena.leaderboard.statistics import EXACT, MIN_SEQUENCES, Bootstrap
from vosarena.leaderboard.tables import empty_note, gains, markdown, unscored_note
from vosarena.metrics.measure_split import measure_predictions
from vosarena.metrics.pairs import MeasureError
from vosarena.metrics.read import read_metadata
from vosarena.orchestration.failures import COLUMNS as FAILED
from vosarena.orchestration.failures import write_failures
from vosarena.predictions.store import Store
from vosarena.report.page import build_report

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def run(dataset: Path, tmp_path: Path):
    """A study of two baselines on the tiny dataset, its paths, and what tracks and measures a model."""
    split = Split(dataset="squares", name="all", path=str(dataset), sequences=None)
    paths = Paths("config", tmp_path / "results", tmp_path / "resources", scores=tmp_path / "scores")
    table = paths.sequences(split)
    table.parent.mkdir(parents=True)
    for name in ("JPEGImages", "Annotations"):
        shutil.copytree(dataset / name, table.parent / name)
    index_split(table.parent, table, split)
    study = load_study({"datasets": [{"path": str(dataset)}], "models": ["static", "flow"], "protocols": ["davis2017"]})

    def track(model: str, names=NAMES) -> None:
        job = Job(study.models[model].definition())
        root = table.parent
        outcome = track_sequences(task_of(root, names, job, Store(paths.predictions(split, model))))
        assert not outcome.failed

    def measure(model: str, protocols=("davis2017",)) -> None:
        status = paths.predictions(split, model) / ".shards" / "all.json"
        status.parent.mkdir(exist_ok=True)
        write_json(status, {"masks": dict.fromkeys(NAMES)})
        labels = {"dataset": "squares", "split": "all", "model": model}
        options = {"protocols": protocols, "resize": "never", "jobs": 1}
        measure_predictions(
            table, paths.predictions(split, model), [status], paths.metrics(split, model), **labels, **options
        )

    return study, paths, track, measure


def test_two_models_ranked_with_paired_differences_and_the_same_bytes(run, tmp_path):
    study, paths, track, measure = run
    for model in study.models:
        track(model)
        measure(model)
    tables = build_leaderboard(local_runs(study, paths), tmp_path / "one")
    board = tables["leaderboard"].set_index("model")
    best, other = board.sort_values("rank").index
    assert board.loc[best, "rank"] == 1 and pd.isna(board.loc[best, "p_vs_best"])
    difference = board.loc[best, "j_and_f"] - board.loc[other, "j_and_f"]
    assert board.loc[other, "behind_best"] == pytest.approx(difference)
    assert tables["comparisons"]["difference"].notna().all()
    for table in ("leaderboard", "attributes", "comparisons"):  # of three sequences nobody can tell chance from merit
        shown = tables[table].filter(["ci_low", "ci_high", "p_value", "p_vs_best"])
        assert shown.isna().all(axis=None), table
    assert (board["n_sequences"] == 3).all() and (board["status"] == "complete").all()
    assert (board["seen"] == "zero-shot").all() and "| zero-shot " in (tmp_path / "one/leaderboard.md").read_text()
    assert {"j_recall", "j_decay", "j_and_f_empty"} <= set(board.columns)
    assert (board["n_objects"] == 5).all() and (board["n_objects_all"] == 6).all()
    note = "davis2017 ignores the 1 of 6 objects that appears after the first frame. To score it use sa-v, lvos, "
    for form in ("md", "tex"):
        assert note in (tmp_path / f"one/leaderboard.{form}").read_text()
    assert "| 5/6 " in (tmp_path / "one/leaderboard.md").read_text()
    build_leaderboard(local_runs(study, paths), tmp_path / "two")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 2 * len(TABLES) + 4
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert read_leaderboard(tmp_path / "one").keys() == TABLES.keys()


@pytest.mark.parametrize("sequences", [1, MIN_SEQUENCES - 1, MIN_SEQUENCES])
def test_an_interval_and_a_p_value_need_some_sequences(sequences):
    sums, other = np.linspace(60, 80, sequences)[:, None], np.full((sequences, 1), 50.0)
    draws = Bootstrap(np.ones((sequences, 1), np.int64))
    found = draws.interval(sums), draws.difference(sums, other)
    assert [item.value for item in found] == pytest.approx([sums.mean(), sums.mean() - 50])
    if sequences < MIN_SEQUENCES:
        assert np.isnan([found[0].low, found[0].high, found[1].low, found[1].high, found[1].p_value]).all()
    else:
        assert all(item.low < item.value < item.high for item in found)
        assert found[1].p_value == 2 / 2**MIN_SEQUENCES, "of all exchanges, only none and all are as far apart"


def test_a_fine_tuned_model_is_compared_with_its_origin_by_attribute(run, tmp_path):
    names = [f"{kind}{number}" for kind in ("dark", "calm") for number in range(MIN_SEQUENCES)]
    before = np.linspace(60, 80, len(names))
    after = before + np.append(np.linspace(5, 10, MIN_SEQUENCES), np.linspace(-4, 1, MIN_SEQUENCES))
    scored = {
        model: pd.DataFrame({"sequence": names, "j_and_f": values, "protocol": "davis2017"})
        for model, values in {"best": before + 20, "origin": before, "tuned": after}.items()
    }
    comparison = Comparison(
        scored, {name: ["dark"] if "dark" in name else ["few"] * (name == "calm0") for name in names}
    )
    others = {"origin": ("best", Reference.BEST), "tuned": ("origin", Reference.ORIGIN)}
    table = pd.DataFrame([asdict(row) for row in comparison.attributes(others)]).set_index(["attribute", "model"])
    pairs = {(pair.attribute, pair.model, pair.other): pair for pair in comparison.differences()}
    dark, pair = table.loc["dark", "tuned"], pairs["dark", "origin", "tuned"]
    assert dark[["compared_with", "compared_as"]].tolist() == ["origin", "origin"]
    assert dark[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
        [-pair.difference, -pair.ci_high, -pair.ci_low]
    )
    assert (
        dark[["difference", "rest"]].tolist() == pytest.approx([7.5, -1.5])
        and dark["rest_low"] < -1.5 < dark["rest_high"]
    )
    assert table.loc[("few", "tuned"), ["difference", "difference_low"]].isna().tolist() == [False, True]
    assert table.loc["all", "origin"][["compared_as", "difference"]].tolist() == ["best", pytest.approx(-20)]
    assert np.isnan(table.loc["all", "tuned"]["rest"]) and table.loc["all", "best"]["compared_with"] == ""

    (sentence,) = gains(table.reset_index())
    low, high, rest_low, rest_high = dark[["difference_low", "difference_high", "rest_high", "rest_low"]]
    assert sentence == (
        f"On dark (6 sequences) tuned is 7.5 [{low:.1f}, {high:.1f}] above origin, from which it was trained; "
        f"on the other sequences it is 1.5 [{-rest_low:z.1f}, {-rest_high:.1f}] below."
    )
    (unclear,) = gains(table.assign(difference_low=-1.0, difference_high=99.0).reset_index())
    assert unclear == (
        "On all sequences tuned is 3.0 [-1.0, 99.0] above origin, from which it was trained, and on no attribute is "
        "the difference clear."
    )

    study, paths, _, _ = run
    runs = [
        replace(item, origin={"flow": "static", "static": "elsewhere"}[item.model]) for item in local_runs(study, paths)
    ]
    assert _references(runs, "flow") == {"flow": ("static", Reference.ORIGIN), "static": ("flow", Reference.BEST)}
    assert _references(runs, "") == {"flow": ("static", Reference.ORIGIN)}
    demo = load_study({"datasets": ["demo/val"], "models": ["cutie-demo", "cutie-demo-finetuned"]})
    assert [item.origin for item in local_runs(demo, paths)] == ["", "cutie-demo"]


@pytest.mark.parametrize("sequences", [9, 40])
def test_p_values_are_those_of_scipys_paired_permutation_test(sequences):
    scipy = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(sequences)
    sizes = rng.integers(1, 5, (sequences, 2))  # objects of seen and of unseen categories
    sums = rng.normal(70, 9, sizes.shape) * sizes
    other = sums - rng.normal(1, 8, sizes.shape) * sizes
    parts = [(item / sizes.sum(axis=0)).sum(axis=1) for item in (sums, other)]
    wanted = scipy.permutation_test(
        parts, lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", vectorized=True, rng=rng
    )
    found = Bootstrap(sizes).difference(sums, other).p_value
    assert found == pytest.approx(wanted.pvalue, abs=1e-12 if sequences <= EXACT else 0.01) and 0.005 < found < 0.9


def test_objects_that_a_protocol_does_not_score_are_explained():
    row = {"kind": "measured", "protocol": "lvos", "n_objects": 3}
    assert unscored_note(pd.DataFrame([row | {"n_objects_all": 3}])) == ""
    half, published = row | {"n_objects": 2, "n_objects_all": 2}, {"kind": "published", "protocol": "lvos"}
    found = unscored_note(pd.DataFrame([half, published, row | {"n_objects_all": 5}]))
    assert found == "lvos ignores the 2 of 5 objects that are in none of the frames that it scores."


def test_how_long_objects_are_followed(run, tmp_path):
    study, paths, track, measure = run
    track("static")
    measure("static")
    (static,) = (item for item in local_runs(study, paths) if item.model == "static")
    tables = build_leaderboard([static], tmp_path)
    objects, counts = tables["objects"], pd.read_parquet(static.metrics)
    for item in objects.itertuples():
        rows = counts[(counts["sequence"] == item.sequence) & (counts["object_id"] == item.object_id)]
        j = rows.sort_values("frame_index")["j"].to_numpy()[1:]  # all scored objects are in the first frame
        failed = np.flatnonzero(j <= 0.5)
        assert item.survived == pytest.approx(100 * failed[0] / len(j) if len(failed) else 100)
        assert bool(item.failure) == bool(len(failed))
    assert set(objects["failure"]) <= {"", *FailureKind} and (objects["failure"] != "").any()
    curve = tables["survival"].set_index("part")["share"]
    assert list(curve.index) == list(range(0, 101, 5)) and curve[0] == 100 and curve.is_monotonic_decreasing
    assert curve[100] == pytest.approx(100 * (objects["failure"] == "").mean())


@pytest.mark.parametrize(
    ("low", "empty", "warned"),
    [(60.0, 59.9, False), (60.0, 60.0, True), (60.0, 90.0, True), (np.nan, 69.9, False), (np.nan, 70.1, True)],
)
def test_a_warning_where_predicting_nothing_is_as_good_as_a_model(low, empty, warned):
    row = {"model": "m", "rank": 1, "j_and_f": 70.0, "ci_low": low, "j_and_f_empty": empty}
    baseline = {"model": "e", "rank": 2, "j_and_f": empty, "ci_low": 1.0, "j_and_f_empty": empty}
    published = row | {"model": "p", "rank": None, "j_and_f_empty": np.nan}
    note = empty_note(pd.DataFrame([row, baseline, published]))
    wanted = f"Warning: an empty prediction gets J&F {empty:.1f}, within or above the interval of m: "
    assert note.startswith(wanted) if warned else not note


def test_what_is_finished_is_shown_as_incomplete_and_nothing_else_is_touched(run):
    study, paths, track, _ = run
    with pytest.raises(DataError, match="nothing is finished yet"):
        partial_leaderboard(study, paths)
    track("static", ("alpha", "beta"))
    track("flow")
    before = {path: path.stat().st_mtime_ns for path in paths.results.rglob("*") if path.is_file()}
    partial_leaderboard(study, paths)
    folder = paths.partial / "leaderboard"
    board = pd.read_csv(folder / "leaderboard.csv").set_index("model")
    assert list(board.loc["static", ["n_sequences", "n_expected", "status"]]) == [2, 3, "incomplete"]
    assert pd.isna(board.loc["static", "rank"]) and board.loc["flow", "rank"] == 1
    assert "2/3 incomplete" in (folder / "leaderboard.md").read_text()
    partial = paths.partial
    after = {
        path: path.stat().st_mtime_ns
        for path in paths.results.rglob("*")
        if path.is_file() and not path.is_relative_to(partial)
    }
    assert before == after


def test_the_page_of_an_unfinished_run_says_what_failed(run, dataset, tmp_path, capsys):
    study, paths, track, _ = run
    track("static", ("alpha", "beta"))
    split = next(iter(study.splits.values()))
    Store(paths.predictions(split, "static")).fail("gamma", DataError("frame 00004 is <damaged>"))
    config = tmp_path / "config.yaml"
    later = {"name": "later", "splits": {"all": {"path": str(dataset), "protocol": "lvos"}}}
    config.write_text(yaml.safe_dump({"datasets": [{"path": str(dataset)}, later], "models": ["static"]}))
    folders = ["--config", str(config), "--results", str(paths.results), "--resources", str(paths.resources)]
    assert main(["report", "--partial", *folders]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == paths.partial / "report" / "index.html"
    text = page.read_text()
    assert "frame 00004 is &lt;damaged&gt;" in text
    assert "No complete score on squares/all yet: 1 run is unfinished" in text
    assert "squares/all (2 sequences, davis2017)" in text and "later/all (nothing finished, lvos)" in text
    rows = [dict.fromkeys(FAILED, "") | {"dataset": "squares", "split": "all", "model": "static", "sequence": "gamma"}]
    command = f"snakemake --directory {Path.cwd()} -- x/gamma.json"
    rows[0] |= {"reason": "an older one", "log": f"{Path.cwd()}/logs/gamma.log", "rerun": command}
    write_failures(rows, paths.failures)
    for damaged in paths.predictions(split, "static").glob("*alpha*.json"):
        damaged.with_name(damaged.name.replace("alpha", "beta").replace(".json", ".failed.json")).write_bytes(b"")
    assert main(["report", "--partial", *folders]) == 0
    text = page.read_text()
    assert "<td>logs/gamma.log</td><td><code>snakemake --directory . -- x/gamma.json</code>" in text
    assert "frame 00004 is &lt;damaged&gt;" in text and "an older one" not in text
    assert str(tmp_path) not in text, "a path of this machine is published"
    assert main(["report", *folders]) == 1
    assert "has no leaderboard" in capsys.readouterr().err


def test_the_page_shows_masks_that_are_numbered_otherwise_than_the_frames(run):
    study, paths, track, _ = run
    for mask in paths.resources.glob("datasets/squares/all/Annotations/alpha/*.png"):
        mask.rename(mask.with_name(f"{int(mask.stem)}.png"))
    track("static")
    report = paths.partial / "report"
    build_report(study, paths, report, runs=partial_leaderboard(study, paths))
    assert '"at":[0,1,2,3,4,5]' in (report / "media/squares/all/alpha/data.js").read_text()


def test_models_stand_beside_splits_on_the_page(run):
    study, paths, track, measure = run
    folder, page = paths.leaderboard, paths.report / "index.html"
    for model in study.models:
        track(model)
        measure(model)
    build_leaderboard(local_runs(study, paths), folder)
    build_report(study, paths, page.parent)
    assert "Models and splits" not in page.read_text()
    board = pd.read_parquet(folder / "leaderboard.parquet")
    board = pd.concat([board, board.iloc[:1].assign(dataset="second", status="incomplete")])
    write_parquet(board, folder / "leaderboard.parquet")
    build_report(study, paths, page.parent)
    text = page.read_text()
    section = text[text.index('<section id="matrix"') : text.index('<section id="hard"')]
    assert '<th colspan="3" scope="colgroup">second/all, davis2017</th>' in section
    assert f'<td class="number">{board.iloc[0]["j_and_f"]:.1f}*</td>' in section and "a part of the split" in section


def test_a_broken_or_foreign_prediction_is_left_out_of_the_partial_leaderboard(run):
    study, paths, track, _ = run
    track("static")
    store = next(paths.results.glob("predictions/squares/all/static"))
    write_mask(store / "beta" / "00002.png", np.zeros((48, 64), np.uint8))  # not what was vouched for
    manifest = store / "gamma.json"
    manifest.write_text(manifest.read_text().replace('"revision": 1', '"revision": 9'))
    partial_leaderboard(study, paths)
    folder = paths.partial / "leaderboard"
    assert pd.read_csv(folder / "leaderboard.csv")["n_sequences"].tolist() == [1]
    assert (store / "beta.json").exists(), "partial must not discard what the main run holds"


def test_the_meta_file_of_a_dataset_decides_what_is_scored_also_of_an_unfinished_run(run):
    study, paths, track, measure = run
    split = next(iter(study.splits.values()))
    objects = {"1": {"frame_range": {"start": 1, "end": 4}}}
    write_json(paths.sequences(split).with_name(META), {"videos": {name: {"objects": objects} for name in NAMES}})
    track("static")
    measure("static")
    (scored,) = partial_leaderboard(study, paths)
    assert read_metadata(scored.metrics).sequences["alpha"].ranges == {1: (1, 3)}  # `end` is exclusive
    assert scored.metrics.read_bytes() == paths.metrics(split, "static").read_bytes()


def test_a_prediction_that_no_manifest_vouches_for_is_tracked_again(run):
    study, paths, track, measure = run
    track("static")
    store = paths.predictions(next(iter(study.splits.values())), "static")
    (store / "beta.json").unlink()
    with pytest.raises(MeasureError, match="sequence beta: the predicted masks are not those that were written"):
        measure("static")
    assert not (store / "beta").exists() and not (store / ".shards" / "all.json").exists()


def test_sequences_that_the_catalog_expects_but_the_disk_lacks_make_a_run_incomplete(run, tmp_path):
    study, paths, track, measure = run
    split = next(iter(study.splits.values()))
    table = paths.sequences(split)
    index_split(table.parent, table, Split(dataset="squares", name="all", sequences=5))
    track("static")
    measure("static")
    board = build_leaderboard(local_runs(study, paths)[:1], tmp_path / "out")["leaderboard"]
    assert list(board[["n_sequences", "n_expected", "status"]].iloc[0]) == [3, 5, "incomplete"]


@pytest.fixture
def hidden(run, tmp_path):
    """The same sequences as the validation split of lsvos2024, which a server scores."""
    _, paths, *_ = run
    study = load_study({"datasets": ["lsvos2024/val"], "models": ["cutie-base-plus", "sam2-l"]})
    target = paths.sequences(study.splits["lsvos2024/val"])
    target.parent.mkdir(parents=True)
    shutil.copy(paths.resources / "datasets/squares/all/sequences.parquet", target)
    return study, paths


def _flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"PAR1", lambda data: data[:-100], _flip])
def test_damaged_tables_are_named_with_what_to_do(run, tmp_path, damage):
    study, paths, track, _ = run
    track("static")
    runs = partial_leaderboard(study, paths)
    file = paths.partial / "leaderboard/objects.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"objects\.parquet is missing or damaged; remove .* and run again"):
        build_report(study, paths, paths.partial / "report", runs=runs)


def test_an_output_that_cannot_be_written_is_reported_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/out: cannot be written to"):
        build_leaderboard([], tmp_path / "file" / "out")


def test_names_with_marks_are_shown_as_they_are():
    board = _board()
    board["leaderboard"]["model"] = ["a|b", "[red]x", "`c` <b>", "*d*"]
    shown, text = markdown(board), latex(board, BY_NAME)
    assert all(f"| {name} " in shown for name in ("a\\|b", "\\[red\\]x", "\\`c\\` \\<b>", "\\*d*"))
    assert "\n{}[red]x & " in text and "\n{}*d* & " in text, "they would be arguments of the line above"


def test_the_command_names_what_is_missing(run, dataset, tmp_path, capsys):
    _, paths, *_ = run
    config = tmp_path / "config.yaml"
    for name, missing in (({"path": str(dataset)}, "static.parquet"), ("lsvos2024/val", "sequences.parquet")):
        config.write_text(yaml.safe_dump({"datasets": [name], "models": ["static"]}))
        folders = ["--config", str(config), "--results", str(paths.results), "--resources", str(paths.resources)]
        assert main(["leaderboard", *folders]) == 1
        assert f"{missing}; run the workflow first, or add --partial" in capsys.readouterr().err


def test_a_hidden_split_waits_for_its_server_and_is_then_compared_with_the_paper(hidden, tmp_path):
    study, paths = hidden
    archive = paths.submission(study.splits["lsvos2024/val"], "sam2-l")
    archive.parent.mkdir(parents=True)
    archive.touch()
    tables = build_leaderboard([], tmp_path / "out", server_runs(study, paths))
    board = tables["leaderboard"].set_index("model")
    assert board.loc["sam2-l", "status"] == "packed, awaiting server score"
    assert board.loc["cutie-base-plus", "status"] == "not packed yet"
    paper = board[board["kind"] == "published"]
    assert paper["j_and_f"].tolist() == [73.89, 72.88, 71.90] and paper["rank"].isna().all()
    assert tables["reproduction"]["difference"].isna().all()

    scores = paths.scores / "lsvos2024" / "val" / "sam2-l.txt"
    scores.parent.mkdir(parents=True)
    scores.write_text("J&F: 74.00\nJ: 70.30\nF: 77.70\n")
    tables = build_leaderboard([], tmp_path / "out", server_runs(study, paths))
    row = tables["leaderboard"].set_index("model").loc["sam2-l"]
    assert (row["kind"], row["status"], row["rank"], row["source"]) == ("server", "complete", 1, "sam2-l.txt")
    found = tables["reproduction"].set_index("model")["difference"]
    assert found["sam2-l"] == pytest.approx(0.11) and pd.isna(found["cutie-base-plus"])
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "| SAM 2 (Hiera-L) | 73.89           | sam2-l          | 74.00 | +0.11" in text
    assert "arXiv 2408.10125 Table 1" in text


GOLDEN = r"""% needs \usepackage{booktabs}

\begin{table}[htbp]
\centering
\caption{a\_b val. Intervals: bootstrap over sequences}
\label{leaderboard:a-b-val-davis2017}
\begin{tabular}{@{}lrrr@{}}
\toprule
model & J\&F & J & F \\
\midrule
\textit{paper 100\%} & \textit{90.1} & \textit{89.1} & \textit{91.1} \\
Ours (tiny) & \textbf{80.0}\,{\scriptsize[70.0, 85.0]} & \textbf{79.0} & 81.0 \\
other & 78.0\,{\scriptsize[70.0, 85.0]} & 74.0 & \textbf{82.0} \\
half & 20.0\,{\scriptsize[10.0, 30.0]} & 19.0 & 21.0 \\
\bottomrule
\end{tabular}
\end{table}

\begin{table*}[htbp]
\centering
\caption{a\_b val. Intervals: bootstrap over sequences. p: paired permutation test against the best model}
\label{leaderboard-wide:a-b-val-davis2017}
\begin{tabular}{@{}llrrrrr@{}}
\toprule
model & kind & J\&F & J & F & p & sequences \\
\midrule
\textit{paper 100\%} & \textit{published} & \textit{90.1} & \textit{89.1} & \textit{91.1} &  &  \\
Ours (tiny) & measured & \textbf{80.0}\,{\scriptsize[70.0, 85.0]} & \textbf{79.0} & 81.0 &  & 3/3 \\
other & measured & 78.0\,{\scriptsize[70.0, 85.0]} & 74.0 & \textbf{82.0} & 0.600 & 3/3 \\
half & measured & 20.0\,{\scriptsize[10.0, 30.0]} & 19.0 & 21.0 & \textless{}0.001 & 2/3 incomplete \\
\bottomrule
\end{tabular}
\end{table*}

\begin{table}[htbp]
\centering
\caption{a\_b val: J\&F by attribute. Attributes are derived from the ground truth}
\label{attributes:a-b-val-davis2017}
\begin{tabular}{@{}lrrrr@{}}
\toprule
attribute & sequences & Ours (tiny) & other & half \\
\midrule
late & 2 & \underline{70.0} & \textbf{75.0} & 20.0 \\
small & 1 & \textbf{60.0} & \textbf{60.0} &  \\
\bottomrule
\end{tabular}
\end{table}
"""
TITLES = Titles({"a_b": "Ours (tiny)"})


def _board() -> dict[str, pd.DataFrame]:
    shared = {"dataset": "a_b", "split": "val", "protocol": "davis2017", "source": ""}
    rows = [
        {"model": "paper 100%", "kind": "published", "status": "published", "j_and_f": 90.1, "j": 89.1, "f": 91.1,
         "fps": 9.0, "rank": None},
        {"model": "a_b", "kind": "measured", "status": "complete", "j_and_f": 80.0, "j": 79.0, "f": 81.0,
         "ci_low": 70.0, "ci_high": 85.0, "n_sequences": 3, "n_expected": 3, "rank": 1},
        {"model": "other", "kind": "measured", "status": "complete", "j_and_f": 78.0, "j": 74.0, "f": 82.0,
         "ci_low": 70.0, "ci_high": 85.0, "n_sequences": 3, "n_expected": 3, "rank": 2, "p_vs_best": 0.6},
        {"model": "half", "kind": "measured", "status": "incomplete", "j_and_f": 20.0, "j": 19.0, "f": 21.0,
         "ci_low": 10.0, "ci_high": 30.0, "n_sequences": 2, "n_expected": 3, "fps": 1.0, "p_vs_best": 0.0002},
    ]  # fmt: skip
    board = pd.DataFrame([shared | {"n_objects": None, "n_objects_all": None, "note": ""} | row for row in rows])
    board = board.astype(dict.fromkeys(["n_sequences", "n_expected", "n_objects", "n_objects_all"], "Int64"))
    scores = [
        *[("all", 3, "a_b", 80.0), ("all", 3, "other", 78.0)],
        *[("late", 2, "a_b", 70.0), ("late", 2, "other", 75.0), ("late", 1, "half", 20.0)],
        *[("small", 1, "a_b", 60.0), ("small", 1, "other", 60.0)],
    ]
    attributes = pd.DataFrame(scores, columns=["attribute", "n_sequences", "model", "j_and_f"])
    attributes = attributes.assign(dataset="a_b", split="val", protocol="davis2017", derived=True)
    attributes = attributes.assign(compared_as="", compared_with="")
    reproduction = pd.DataFrame(columns=TABLES["reproduction"])
    return {"leaderboard": board, "attributes": attributes, "reproduction": reproduction}


def test_latex_is_what_it_was():
    assert latex(_board(), TITLES) == GOLDEN
    own = _board() | {"leaderboard": _board()["leaderboard"].query("kind == 'measured'")}
    text = latex(own, BY_NAME)
    assert "model & J\\&F & J & F & p" in text and "kind" not in text + markdown(own), "one kind tells nothing"


MATRIX = r"""
\multicolumn{2}{c}{} & \multicolumn{3}{c}{a\_b val, davis2017} & \multicolumn{3}{c}{lvos val, lvos} & mean \\
\cmidrule(lr){3-5} \cmidrule(lr){6-8} \cmidrule(lr){9-9}
model & kind & J\&F & J & F & J\&F & J & F & J\&F \\
\midrule
other &  & 78.0 & 74.0 & \textbf{82.0} & \textbf{88.0} & \textbf{84.0} & \textbf{92.0} & \textbf{83.0} \\
half &  & 20.0* & 19.0* & 21.0* & 30.0* & 29.0* & 31.0* &  \\
\textit{paper 100\%} & \textit{published} & \textit{90.1} & \textit{89.1} & \textit{91.1} &  &  &  &  \\
a\_b &  & \textbf{80.0} & \textbf{79.0} & 81.0 &  &  &  &  \\
\bottomrule
"""


def _two_splits() -> dict[str, pd.DataFrame]:
    """The models that are on the second split, too, have ten more there."""
    first = _board()["leaderboard"]
    second = first[first["model"].isin(["other", "half"])].assign(dataset="lvos", protocol="lvos")
    second[["j_and_f", "j", "f"]] += 10
    return _board() | {"leaderboard": pd.concat([first, second], ignore_index=True)}


def test_models_stand_beside_splits():
    text = latex(_two_splits(), BY_NAME)
    assert MATRIX in text
    assert text.index("cmidrule") < text.index("leaderboard:a-b-val"), "the main table comes first"
    shown = markdown(_two_splits())
    assert " 20.0* " in shown
    assert "\\* a part of the split" in shown
    assert "Models and splits" not in markdown(_board()), "one split needs no such table"


def test_a_model_that_one_server_and_this_run_scored_is_one_row():
    tables = _two_splits()
    board = tables["leaderboard"]
    board.loc[board["dataset"] == "lvos", ["kind", "source"]] = ["server", "upload 12345"]
    assert MATRIX in latex(tables, BY_NAME)


def test_several_protocols_have_a_table_each_where_models_stand_beside_splits():
    tables = _two_splits()
    own = tables["leaderboard"]
    tables["leaderboard"] = pd.concat([own.assign(protocol=name) for name in ("davis2017", "sa-v")])
    titles = [line for line in markdown(tables).splitlines() if line.startswith("## Models")]
    assert titles == [f"## Models and splits, protocol {name}" for name in ("davis2017", "sa-v")]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed (texlive-latex-recommended)")
def test_latex_compiles(tmp_path):
    (tmp_path / "leaderboard.tex").write_text(latex(_two_splits(), BY_NAME))
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{leaderboard.tex}\end{document}"
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
