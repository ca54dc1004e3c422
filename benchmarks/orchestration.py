"""What planning costs at the scale of a cluster, and what share of a job is start-up.

    python benchmarks/orchestration.py [--scale 10000/16 100000/64] [--startup] [--device cuda]
    python benchmarks/orchestration.py --startup --tracker sam2 --option config=sam2_hiera_l --option weights=FILE

Planning: three models on a folder of that many sequences (empty folders and a table of sequences are enough) at
that many sequences per job: CPU time and peak memory of a dry run of everything, and of a run with nothing left to do.
Start-up: one process tracks 1 and then 5 clips; from the difference follow the seconds that a job needs before its
first frame, and their share of a job with 1, 16 and 64 sequences. A clip has --frames frames.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import yaml
from rich.console import Console
from rich.table import Table

from vosarena.base.sealed import SEAL, seal
from vosarena.datasets.table import SequenceCounts, SequenceRecord, read_table, write_table
from vosarena.demo.synthesize import make_clip
from vosarena.io.masks import write_mask
from vosarena.orchestration.shards import Workload, make_shards

REPOSITORY = Path(__file__).parents[1]
MODELS = ("one", "two", "three")
LIMITS = {"10000/16": (6, 300), "100000/64": (30, None)}  # seconds of CPU, MiB


def main() -> None:
    """Run what the arguments ask for and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", nargs="*", default=["10000/16"], metavar="SEQUENCES/PER_JOB")
    parser.add_argument("--startup", action="store_true", help="measure the start-up of a job too")
    parser.add_argument("--tracker", default="sam2")
    parser.add_argument("--option", action="append", help="option of the tracker (default: the demo network)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    if args.scale:
        plan(args.scale)
    if args.startup:
        weights = REPOSITORY / "src/vosarena/config/catalog/weights/sam2-demo.pth"
        startup(args.tracker, args.option or ["config=sam2_demo", f"weights={weights}"], args.device, args.frames)


def plan(scales: list[str]) -> None:
    """Measure dry run and no-op rerun at each scale."""
    table = Table("sequences x models", "per job", "run", "jobs", "CPU s", "wall s", "peak MiB", "limit")
    for scale in scales:
        count, per_job = map(int, scale.split("/"))
        limit = "{} s, {} MiB".format(*LIMITS[scale]) if scale in LIMITS else ""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            prepare(root, count, per_job)
            jobs = len(MODELS) * -(-count // per_job)
            for name, arguments in (("dry run", ["--dry-run"]), ("no-op rerun", [])):
                if name == "no-op rerun":
                    finish(root, per_job)
                seconds, wall, memory, output = measured(root, *arguments)
                if name == "dry run" and f"track {jobs}" not in " ".join(output.split()):
                    sys.exit(f"expected {jobs} jobs of the rule track, got:\n{output[-3000:]}")
                if name == "no-op rerun" and "Nothing to be done" not in output:
                    sys.exit(f"expected a run with nothing to do, got:\n{output[-3000:]}")
                shown = (f"{seconds:.1f}", f"{wall:.1f}", f"{memory:.0f}", limit)
                table.add_row(f"{count} x {len(MODELS)}", str(per_job), name, str(jobs), *shown)
    Console().print(table)


def prepare(root: Path, count: int, per_job: int) -> None:
    """A study of `count` sequences that is indexed, in `root`."""
    data, rng = root / "many", random.Random(count)
    records = []
    for index in range(count):
        name, objects = f"{index:06x}", rng.randint(1, 5)
        for kind in ("JPEGImages", "Annotations"):
            (data / kind / name).mkdir(parents=True)
        records.append(
            SequenceRecord(
                sequence=name,
                n_frames=rng.randint(30, 300),
                height=1080,
                width=1920,
                first_frame="00000",
                object_ids=tuple(range(1, objects + 1)),
                first_appearance=(0,) * objects,
                annotated_frames=1,
                has_ground_truth=True,
            )
        )
    prepared = root / "resources/datasets/many/all"
    prepared.mkdir(parents=True)
    (prepared / "prepared.txt").touch()
    write_table(records, prepared / "sequences.parquet", SequenceCounts(count, None))
    config = {
        "datasets": [{"path": str(data)}],
        "models": [{"name": name, "extends": "static"} for name in MODELS],
        "inference": {"sequences_per_job": per_job},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))


def finish(root: Path, per_job: int) -> None:
    """Make every file that the workflow would; the masks' folders and manifests are empty files."""
    table = read_table(root / "resources/datasets/many/all/sequences.parquet")
    work = {record.sequence: Workload.of(record) for record in table}
    stores = [root / "results/predictions/many/all" / model for model in MODELS]
    for store in stores:
        store.mkdir(parents=True)
        for name in work:
            (store / name).touch()
            (store / f"{name}.json").touch()
    one_shard = f"inference={{sequences_per_job: {len(work)}}}"  # which changes no other file, and is listed sooner
    call = command(root, "--summary", "--config", one_shard)
    summary = subprocess.run(call, cwd=root, capture_output=True, text=True, check=True).stdout
    paths = [root / line.split("\t")[0] for line in summary.splitlines()[1:] if "/.shards/" not in line]
    paths += [store / ".shards" / f"{name}.json" for store in stores for name in make_shards(work, per_job)]
    now = time.time()
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.is_relative_to(root / "results/metrics"):
            path.write_text(SEAL)
            seal(path)
        os.utime(path, (now, now))


def command(root: Path, *arguments: str) -> list[str]:
    """Snakemake on the study in `root`."""
    common = ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(root)]
    config = ["--configfile", str(root / "config.yaml"), "--cores", "2", "--quiet", "rules"]
    return [sys.executable, "-m", "snakemake", *common, *config, *arguments]


# Linux counts the memory of a process to the peak of the children that it starts, so a small process starts Snakemake.
RUN = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
open(sys.argv[1], "w").write(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
sys.exit(code)
"""


def measured(root: Path, *arguments: str) -> tuple[float, float, float, str]:
    """CPU seconds, wall seconds, peak MiB and output of one Snakemake."""
    usage = root / "usage.json"
    started = time.perf_counter()
    run = [sys.executable, "-S", "-c", RUN, str(usage), *command(root, *arguments)]
    done = subprocess.run(run, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    seconds, peak = json.loads(usage.read_text())
    return seconds, wall, peak, done.stdout


def startup(tracker: str, options: list[str], device: str, frames: int) -> None:
    """Measure how long a process needs before its first frame, and what share of a job that is."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"clip-{index}" for index in range(5)]
        for seed, name in enumerate(names):
            write_clip(root, name, seed, frames)

        def seconds(sequences: list[str]) -> float:
            given = [f"--sequence={name}" for name in sequences] + [f"--option={option}" for option in options]
            folders = ["--images", root / "JPEGImages", "--masks", root / "Annotations"]
            output = ["--output", root / f"out-{len(sequences)}", "--device", device]
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "vosarena", "track", "--tracker", tracker, *given, *folders, *output],
                check=True,
                capture_output=True,
            )
            return time.perf_counter() - started

        seconds(names[:1])  # files and compiled code into caches
        for left in root.glob("out-*"):
            shutil.rmtree(left)
        one, five = seconds(names[:1]), seconds(names)
    each = (five - one) / 4
    start = one - each
    table = Table("sequences per job", "start-up s", "tracking s", "share of start-up")
    for count in (1, 16, 64):
        table.add_row(str(count), f"{start:.1f}", f"{count * each:.1f}", f"{start / (start + count * each):.0%}")
    Console().print(f"{tracker} {' '.join(options)}, device {device}, clips of {frames} frames", table)


def write_clip(root: Path, name: str, seed: int, frames: int) -> None:
    """One procedural clip on disk: its frames and its first mask."""
    clip = make_clip(seed, frames=frames)
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / name).mkdir(parents=True)
    for index, frame in enumerate(clip.frames):
        cv2.imwrite(str(root / "JPEGImages" / name / f"{index:05d}.jpg"), frame[..., ::-1])
    write_mask(root / "Annotations" / name / "00000.png", clip.masks[0])


if __name__ == "__main__":
    main()
