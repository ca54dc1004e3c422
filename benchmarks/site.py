"""How long a site of many bundles takes to build, how large it is, and what a browser needs to show it.

python benchmarks/site.py --bundles 100 --splits 20

The bundles are made up: random counts of one model each. The browser is Chromium through playwright, if it is there.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from vosarena.datasets.table import SequenceCounts as Found
from vosarena.datasets.table import SequenceRecord, write_table
from vosarena.metrics.counts import Counts, boundary_f, jaccard
from vosarena.metrics.records import SequenceCounts, SequenceInfo
from vosarena.metrics.sequence import CountOptions
from vosarena.metrics.write import RunLabels, write_metrics
from vosarena.report.site import build_site
from vosarena.sharing.bundle import Bundle, write_member

SEQUENCES, FRAMES, SIZE = 20, 20, (480, 854)
NAMES = [f"sequence-{number:03d}" for number in range(SEQUENCES)]
STEMS = [f"{index:05d}" for index in range(FRAMES)]


def counted(rng: np.random.Generator) -> Iterator[SequenceCounts]:
    """Random counts of two objects in every sequence, with a quality of their own."""
    quality, n = rng.uniform(0.5, 0.95), 2 * FRAMES
    for name in NAMES:
        gt, gt_boundary, pred_boundary = rng.integers(2000, 9000, n), *rng.integers(200, 500, (2, n))
        share = np.clip(quality + rng.normal(0, 0.1, (3, n)), 0, 1)
        found = [
            (part * total).astype(np.int64) for part, total in zip(share, (gt, gt_boundary, pred_boundary), strict=True)
        ]
        pred = found[0] + rng.integers(0, 800, n)
        counts = Counts(found[0], gt, pred, gt_boundary, pred_boundary, found[1], found[2])
        indices, tolerance = np.tile(np.arange(FRAMES), 2), np.full(n, 8.0)
        info = SequenceInfo(FRAMES, *SIZE, objects=(1, 2))
        ids, j, f = np.repeat([1, 2], FRAMES), jaccard(counts), boundary_f(counts)
        yield SequenceCounts(name, ids, STEMS * 2, indices, counts, j, f, tolerance, None, info)


def make_bundle(number: int, splits: int, output: Path) -> None:
    """Write a bundle of one model on all splits."""
    rng, model = np.random.default_rng(number), f"model-{number:03d}"
    definition = {"tracker": "flow", "options": {"size": number}, "revision": 1}
    facts = {"description": "A model", "paper": "https://example.org", "code": "", "parameters": "38.9 M"}
    facts |= {"license": ("MIT", "Apache-2.0", "CC BY-NC 4.0")[number % 3], "open_weights": number % 2 == 0}
    facts |= {"trained_on": ["mose"], "citation": []}
    manifest = {"definition": definition, "precision": "auto", "weights": "0" * 64, "files": [], "masks": "0" * 40}
    manifest |= {"packages": {"torch": "2"}, "frames": STEMS, "saving_memory": {}, "vosarena": "0.1.0"}
    times = {
        "load": 1,
        "track": FRAMES / (5 + number % 50),
        "host_mb": 900,
        "gpu_mb": None,
        "device": "CPU",
        "python": "",
    }
    names = [f"dataset-{index:02d}/val" for index in range(splits)]
    training = {"seen": ("zero-shot", "related", "seen", "")[number % 4], "reasons": []}
    about = {"title": "", "prompts": "mask", "protocols": ["davis2017"]}
    about |= {"facts": {"homepage": "https://example.org", "license": "CC BY 4.0", "citation": []}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in names:
            for kind in ("sequences", "metrics"):
                (folder / kind / name).mkdir(parents=True)
            records = [SequenceRecord(item, FRAMES, *SIZE, STEMS[0], (1, 2), (0, 0), FRAMES, True) for item in NAMES]
            write_table(records, (folder / "sequences" / name).with_suffix(".parquet"), Found(SEQUENCES, None))
            (folder / "sequences" / name).rmdir()
            hashes = {item: {"frames": "0" * 40, "ground_truth": "0" * 64} for item in NAMES}
            write_member(folder / "fingerprints" / f"{name}.json", hashes)
            metrics = folder / "metrics" / name / f"{model}.parquet"
            write_metrics(counted(rng), metrics, RunLabels(*name.split("/"), model), CountOptions())
            write_member(folder / "manifests" / name / f"{model}.json", dict.fromkeys(NAMES, manifest))
        entry = {"title": "", "definition": definition, "training": dict.fromkeys(names, training), "facts": facts}
        timings = {f"{name}/{model}": dict.fromkeys(NAMES, times) for name in names}
        Bundle(folder, "made-up", {model: entry}, dict.fromkeys(names, about), timings).write(output)


def load(site: Path) -> None:
    """Print the CPU time of Chromium's main thread for the first board, another board and a filter."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def seconds() -> float:
            page.wait_for_timeout(1000)  # until everything is drawn
            found = {item["name"]: item["value"] for item in session.send("Performance.getMetrics")["metrics"]}
            return found["TaskDuration"]

        page.goto((site / "index.html").as_uri())
        page.locator("#board tbody tr").first.wait_for()
        spent = [0.0, seconds()]
        page.select_option("#split", index=1)
        spent.append(seconds())
        page.locator("#zero-shot").check()
        spent.append(seconds())
        shown = ", ".join(f"{after - before:.2f}" for before, after in pairwise(spent))
        print(f"Chromium: first board, another board, filter: {shown} s of CPU")


def main() -> None:
    """Make bundles, build the site, and load it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=int, default=10)
    parser.add_argument("--splits", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary, f"lab-{number:03d}.zip") for number in range(args.bundles)]
        for number, file in enumerate(files):
            make_bundle(number, args.splits, file)
        began, output = time.process_time(), Path(temporary, "site")
        build_site(files, output)
        seconds, size = time.process_time() - began, sum(file.stat().st_size for file in output.rglob("*"))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{args.bundles} bundles x {args.splits} splits: {seconds:.0f} s of CPU, {memory:.0f} MiB, ", end="")
        print(f"site {size / 1e6:.1f} MB, data.js {(output / 'data.js').stat().st_size / 1e6:.2f} MB")
        load(output)


if __name__ == "__main__":
    main()
