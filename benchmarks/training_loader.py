"""How long a training waits for its samples, with a stand-in for the GPU that needs a given time per pass.

python benchmarks/training_loader.py --tracker cutie --workers 4 --samples 4 --step 0.75

The data are JPEGs of 720p, enlarged from the 16 frames in ../shared/data/judo (or another folder in the layout of
DAVIS), each with the last mask there is. A pass blocks this process without using the CPU. Waiting before the first
pass, while the processes start, is not counted. `--upstream` also measures rf-cutie's own dataset, sample by sample.
"""

import argparse
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from vosarena.finetuning.cutie_samples import CutieSamples
from vosarena.finetuning.recipe import read_recipe
from vosarena.finetuning.sam2_samples import ClipSamples
from vosarena.finetuning.samples import passes, seeded
from vosarena.io.frames import available_cpus
from vosarena.io.masks import read_mask, write_mask


def enlarge(source: Path, target: Path, height: int, videos: int) -> None:
    """Write videos of that height, with a mask for every frame."""
    for folder in sorted((source / "JPEGImages").iterdir()):
        for number in range(videos):
            mask, name = None, f"{folder.name}-{number}"
            for kind in ("JPEGImages", "Annotations"):
                (target / kind / name).mkdir(parents=True)
            for path in sorted(folder.iterdir()):
                image = Image.open(path).convert("RGB")
                size = (round(image.width * height / image.height / 2) * 2, height)
                truth = source / "Annotations" / folder.name / f"{path.stem}.png"
                if truth.is_file():
                    mask = cv2.resize(read_mask(truth), size, interpolation=cv2.INTER_NEAREST)
                if mask is None:
                    continue
                image.resize(size, Image.Resampling.BICUBIC).save(
                    target / "JPEGImages" / name / f"{path.stem}.jpg", quality=96
                )
                write_mask(target / "Annotations" / name / f"{path.stem}.png", mask)


def cpu_seconds() -> float:
    """Return user and system time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def upstream_seconds(folder: Path, recipe, samples) -> float:
    """Return the CPU seconds per sample of rf-cutie's dataset, for the same samples."""
    os.environ["LOCAL_RANK"] = "0"
    from cutie.dataset.vos_dataset import VOSMergeTrainDataset

    config = {"im_root": folder / "JPEGImages", "gt_root": folder / "Annotations", "max_skip": 5, "subset": None}
    config |= {"empty_masks": None, "multiplier": 1}
    theirs = VOSMergeTrainDataset({"a/train": config}, recipe.frames, recipe.objects, recipe.crop, 0.5)
    began = cpu_seconds()
    for number in range(samples):
        with seeded(recipe.seed, 1, number):
            theirs[number % len(theirs)]
    return (cpu_seconds() - began) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracker", default="cutie", choices=["cutie", "sam2"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/judo"))
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4, help="samples per pass")
    parser.add_argument("--step", type=float, default=0.75, help="seconds of a pass on the GPU")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--cache-gb", type=float, default=0.0)
    parser.add_argument("--upstream", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        enlarge(arguments.data, folder, arguments.height, videos=2)
        recipe = read_recipe(
            {"batch": arguments.samples, "iterations": arguments.passes, "workers": arguments.workers}
            | {"cache_gb": arguments.cache_gb},
            tracker=arguments.tracker,
        )
        folders = {"a/train": folder}
        samples = CutieSamples(folders, recipe) if arguments.tracker == "cutie" else ClipSamples(folders, recipe, 1024)
        samples[0]  # compiled loops are made
        if arguments.upstream:
            print(f"rf-cutie's dataset: {upstream_seconds(folder, recipe, 16):.3f} CPU s per sample")
        before, waits = cpu_seconds(), []
        last = time.perf_counter()
        for _ in passes(samples, recipe, 0, 0, 1, arguments.samples):
            waits.append(time.perf_counter() - last)
            threading.Event().wait(arguments.step)
            last = time.perf_counter()
        per_sample = (cpu_seconds() - before) / (arguments.samples * arguments.passes)
        waiting = float(np.sum(waits[1:]))
        share = waiting / (waiting + arguments.step * (arguments.passes - 1))
        cpus = per_sample * arguments.samples / arguments.step
        print(
            f"{arguments.tracker}, {arguments.height}p, {arguments.workers} workers, cache {arguments.cache_gb} GB, "
            f"{arguments.samples} samples per pass of {arguments.step} s, {available_cpus()} CPUs here:\n"
            f"{share:.1%} of the time waits for data; {per_sample:.3f} CPU s per sample, so that {cpus:.2f} CPUs are "
            f"busy ({cpus / max(1, arguments.workers):.0%} of {arguments.workers}); the start took {waits[0]:.1f} s"
        )


if __name__ == "__main__":
    main()
