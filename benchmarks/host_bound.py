"""How busy the host keeps a GPU: real readers, trackers and writers around a network that takes X milliseconds.

    python benchmarks/host_bound.py [--trackers sam2 cutie] [--sizes 1080p] [--objects 3] [--cores 2] [--ms 16 25 40]
        [--launch 12] [--spin] [--sam2-script vos_inference.py] [--cutie-checkout Cutie]

No GPU is needed: torch's `meta` device takes its place, where an operation computes nothing. The network's calls append
X milliseconds to a queue, `--launch` milliseconds of CPU start their kernels, and what copies from the device waits for
the queue, asleep, or with `--spin` busy as CUDA's waits are by default (ours use blocking events). Each run is a
process of its own that may use `--cores` CPUs; with a script and a checkout, upstream's ways run next to ours.

Printed: frames per second, their share of the ideal 1000 / X, the time that the device is idle between two sequences,
and the host's CPU time (user + system) per frame without launching and waiting, as a whole and by stage. Where others
use the machine too, trust the CPU time. Not simulated: the PCI bus, shared memory bandwidth, and the driver apart from
launching.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from vosarena.demo.synthesize import make_clip
from vosarena.io.masks import write_mask

SIZES = {"480p": (480, 854), "720p": (720, 1280), "1080p": (1080, 1920)}
MEASURED = "clip"
LENGTHS = {"a-warm-up": 4, MEASURED: 60} | {f"next-{number}": 12 for number in range(5)}  # frames of the sequences

KEPT: dict[Any, Iterator[torch.Tensor]] = {}

Options = dict[str, Any]


class Gpu:
    """A device that works through a queue."""

    def __init__(self, options: Options, labels: list[np.ndarray]) -> None:
        self.seconds, self.launching, self.spin = options["ms"] / 1000, options["launch"] / 1000, options["spin"]
        self.free, self.spent = 0.0, 0.0  # when the queue is empty; CPU seconds of launching and waiting
        self.starts, self.idle = False, []  # whether a sequence starts with the next frame; idle seconds before those
        self._labels = itertools.cycle(labels)

    def network(self) -> None:
        """Hand the work of one frame to the device."""
        now = time.monotonic()
        if self.starts:
            self.starts = False
            self.idle.append(max(0.0, now - self.free))
        self.free = max(now, self.free) + self.seconds
        with self._no_work_of_the_host():
            started, small = time.thread_time(), torch.zeros(8)
            while time.thread_time() - started < self.launching:
                small.add_(1)

    def wait(self, until: float, spin: bool) -> None:
        with self._no_work_of_the_host():
            large = torch.zeros(1 << 15)
            while spin and time.monotonic() < until:
                large.add_(1)  # without the GIL
            time.sleep(max(0.0, until - time.monotonic()))

    @contextlib.contextmanager
    def _no_work_of_the_host(self) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.spent += time.thread_time() - started

    def fetch(self, result: torch.Tensor) -> Callable[[], np.ndarray]:
        """In place of `streaming.fetch`: a copy by the device in the background and a blocking event."""
        until = self.free

        def wait() -> np.ndarray:
            self.wait(until, spin=False)
            return next(self._labels)

        return wait

    def install(self) -> None:
        """Let torch's own copies between host and device wait for the queue."""
        real_to, real_cpu, real_interpolate = torch.Tensor.to, torch.Tensor.cpu, torch.nn.functional.interpolate

        def to(tensor: torch.Tensor, *arguments: Any, **keywords: Any) -> torch.Tensor:
            target = str(arguments[0] if arguments else keywords.get("device"))
            if tensor.device.type == "meta" or target not in ("meta", "cuda"):
                return real_to(tensor, *arguments, **keywords)
            if not keywords.get("non_blocking"):  # through the driver's own pinned memory
                tensor.clone()
                self.wait(self.free, self.spin)
            return real_to(tensor, "meta")

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.device.type != "meta":
                return real_cpu(tensor)
            self.wait(self.free, self.spin)
            labels = next(self._labels)
            if tensor.dtype == torch.bool:  # a mask of each object, for upstream
                return torch.from_numpy(np.stack([labels == number + 1 for number in range(len(tensor))])[:, None])
            return torch.from_numpy(labels).to(tensor.dtype, copy=True)

        def interpolate(tensor: torch.Tensor, size: Any = None, **keywords: Any) -> torch.Tensor:
            if tensor.device.type != "meta":
                return real_interpolate(tensor, size, **keywords)
            return torch.empty((*tensor.shape[:2], *size), device="meta")  # torch's own takes milliseconds there

        torch.Tensor.to, torch.Tensor.cpu, torch.nn.functional.interpolate = to, cpu, interpolate
        torch.Tensor.cuda = lambda tensor: tensor.to("cuda")
        torch.nn.Module.cuda = lambda module: module.to("meta")
        torch.cuda.synchronize, torch.cuda.Event = lambda: self.wait(self.free, self.spin), MagicMock()
        torch.cuda.max_memory_allocated = lambda: 0


class Clock:
    """Times of the measured sequence."""

    def __init__(self, gpu: Gpu, frames: int) -> None:
        self.gpu, self.frames, self.result = gpu, frames, {}
        self._stages: Counter[str] = Counter()
        self._inside = threading.local()

    def stage(self, name: str, owner: Any, function: str) -> None:
        """Sum up the CPU time of a function over all threads, without that of measured functions that it calls."""
        real = getattr(owner, function)

        def measured(*arguments: Any, **keywords: Any) -> Any:
            before, started = getattr(self._inside, "time", 0.0), time.thread_time()
            self._inside.time = 0.0
            try:
                return real(*arguments, **keywords)
            finally:
                taken = time.thread_time() - started
                self._stages[name] += taken - self._inside.time
                self._inside.time = before + taken

        setattr(owner, function, measured)

    @contextlib.contextmanager
    def running(self, sequence: str) -> Iterator[None]:
        self._stages.clear()
        self.gpu.starts = True
        self.gpu.spent, cpu, main, started = 0.0, _cpu(), time.thread_time(), time.perf_counter()
        yield
        rate = self.frames / (time.perf_counter() - started)
        stages = {"main thread": time.thread_time() - main - self.gpu.spent, **self._stages}
        if sequence == MEASURED:
            self.result = {"fps": rate, "share": rate * self.gpu.seconds, "host": _cpu() - cpu - self.gpu.spent}
            self.result["host"] *= 1000 / self.frames
            self.result["stages"] = {name: 1000 * spent / self.frames for name, spent in stages.items()}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def stub_sam2(gpu: Gpu) -> None:
    """Replace the network of SAM 2; what upstream's and our code do around it stays."""
    from sam2.sam2_video_predictor import SAM2VideoPredictor as Predictor

    def forward_image(predictor: Any, batch: torch.Tensor) -> dict[str, Any]:
        gpu.network()
        levels = [empty(len(batch), 1, 4, 4)] * predictor.num_feature_levels
        return {"backbone_fpn": levels, "vision_pos_enc": levels}

    def run_frame(predictor: Any, inference_state: Any, frame_idx: int, batch_size: int, **_: Any) -> tuple[Any, Any]:
        features = inference_state["cached_features"].get(frame_idx)
        if features is None:  # upstream's: it encodes a frame once and keeps it
            image = inference_state["images"][frame_idx].to("meta").unsqueeze(0)
            inference_state["cached_features"] = {frame_idx: (image, predictor.forward_image(image))}
        output = dict.fromkeys(("maskmem_features", "obj_ptr", "object_score_logits"), empty(batch_size, 1))
        masks = empty(batch_size, 1, 256, 256)
        return output | {"maskmem_pos_enc": [empty(batch_size, 1)], "pred_masks": masks}, masks

    Predictor.forward_image, Predictor._run_single_frame_inference = forward_image, run_frame
    Predictor._run_memory_encoder = lambda *_, **__: (empty(1, 1), [empty(1, 1)])

    def full_size(predictor: Any, state: Any, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return masks, empty(len(masks), 1, state["video_height"], state["video_width"])

    Predictor._get_orig_video_res_output = full_size


def stub_cutie(gpu: Gpu) -> None:
    from cutie.inference.inference_core import InferenceCore

    def step(core: Any, image: torch.Tensor, mask: Any = None, objects: Any = None, **_: Any) -> torch.Tensor:
        gpu.network()
        if mask is not None:
            core.object_manager.add_new_objects(objects)
        return empty(1 + core.object_manager.num_obj, *image.shape[-2:])

    InferenceCore.step = step


def ours(gpu: Gpu, folder: Path, options: Options, clock: Clock) -> None:
    """The steps of a job of the workflow, from frames on disk to masks and a manifest in the store."""
    from vosarena.inference import run, writing
    from vosarena.inference.job import Job, ShardTask
    from vosarena.io import frames
    from vosarena.predictions.manifest import ModelDefinition
    from vosarena.trackers import cutie, cutie_network, objects, sam2_stream, streaming
    from vosarena.trackers.sam2_network import import_sam2, instantiate_network

    weights, model = folder / "weights.pth", {"config": "sam2_demo", "image_size": 1024}
    # To normalise frames and to find labels is work of the device, whose launches are in --launch; `meta` would spend
    # milliseconds of Python.
    if options["tracker"] == "sam2":
        import_sam2()
        stub_sam2(gpu)
        torch.save({"model": instantiate_network(**model).state_dict()}, weights)
        objects.label_map = lambda scores, size, threshold: torch.empty(size, dtype=torch.uint8, device="meta")
        sam2_stream.Sam2Stream.encode = lambda stream, images: (
            empty(len(images), 3, 1, 1),
            stream.predictor.forward_image(empty(len(images), 3, 1, 1)),
        )
        clock.stage("prepare", sam2_stream.Sam2Stream, "prepare")
    else:
        stub_cutie(gpu)
        model = {"model": "tiny"}
        torch.save(cutie_network.build_network(cutie_network.cutie_config("tiny")).state_dict(), weights)
        cutie.Cutie.upload = lambda tracker, image: empty(
            3, *(image.shape[:2] if image.dtype == torch.uint8 else image.shape[1:])
        )
        cutie.Cutie._labels = lambda tracker, probability, ids: empty(*probability.shape[1:], dtype=torch.uint8)
        clock.stage("prepare", cutie.Cutie, "prepare")
    streaming.fetch, run.device_name = gpu.fetch, lambda _: "stand-in"
    # Uploads are from pinned memory, which torch keeps and reuses, to a CUDA device only: they do not wait.
    cutie.upload = sam2_stream.upload = lambda tensor, device: tensor.to(device, non_blocking=True)
    cutie.pinned_empty = sam2_stream.pinned_empty = kept_memory
    clock.stage("decode", frames, "read_frame")
    clock.stage("write", writing, "write_mask")
    clock.stage("digest", run, "sequence_digest")
    clock.stage("digest", writing, "hashed_bytes")
    begin = run._Run.manifest_of

    def manifest_of(self: Any, name: str, *more: Any) -> Any:
        with clock.running(name):
            return begin(self, name, *more)

    run._Run.manifest_of = manifest_of
    job = Job(ModelDefinition(options["tracker"], model), weights, "meta", threads=1)
    task = ShardTask(tuple(LENGTHS), folder / "images", folder / "masks", job, folder / "store")
    assert not (failed := run.track_sequences(task).failed), failed


def kept_memory(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """In place of `streaming.pinned_empty`."""
    kept = KEPT.setdefault((*shape, dtype), itertools.cycle([torch.empty(shape, dtype=dtype) for _ in range(8)]))
    return next(kept)


def upstream_sam2(gpu: Gpu, folder: Path, options: Options, clock: Clock) -> None:
    from sam2.build_sam import build_sam2_video_predictor

    stub_sam2(gpu)
    script = runpy.run_path(options["sam2_script"])
    predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", None, "meta")
    for name in LENGTHS:
        with clock.running(name):
            script["vos_inference"](predictor, f"{folder}/images", f"{folder}/masks", f"{folder}/out", name)


def upstream_cutie(gpu: Gpu, folder: Path, options: Options, clock: Clock) -> None:
    sys.path.insert(0, options["cutie_checkout"])
    from cutie.inference.utils.results_utils import ResultSaver
    from cutie.model.utils import resnet

    for builder in ("resnet18", "resnet50"):  # without downloads
        real = getattr(resnet, builder)
        setattr(resnet, builder, lambda extra_dim=0, real=real, **_: real(pretrained=False, extra_dim=extra_dim))
    stub_cutie(gpu)
    begin, end, measured = ResultSaver.__init__, ResultSaver.end, contextlib.ExitStack()

    def begin_video(saver: Any, output: str, name: str, **keywords: Any) -> None:
        begin(saver, output, name, **keywords)
        measured.enter_context(clock.running(name))

    def end_video(saver: Any) -> None:
        end(saver)
        measured.close()

    ResultSaver.__init__, ResultSaver.end = begin_video, end_video
    sys.argv = ["eval_vos.py", "dataset=generic", f"image_directory={folder}/images", f"mask_directory={folder}/masks"]
    sys.argv += ["size=480", "model=small", "weights=null", f"output_dir={folder}/out", f"hydra.run.dir={folder}/log"]
    runpy.run_path(f"{options['cutie_checkout']}/cutie/eval_vos.py", run_name="__main__")


def make_input(folder: Path, options: Options) -> list[np.ndarray]:
    """Write the sequences as JPEG files; return label maps of the frames."""
    size = SIZES[options["size"]]
    clip = make_clip(1, frames=20, size=size, objects=options["objects"])
    frames = list(clip.frames)
    if options["source"]:
        paths = sorted(Path(options["source"]).glob("*.jpg"))
        frames = [np.array(Image.open(path).convert("RGB").resize(size[::-1])) for path in paths]
    around = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]  # forwards and backwards
    for name, length in LENGTHS.items():
        (folder / "images" / name).mkdir(parents=True)
        (folder / "masks" / name).mkdir(parents=True)
        write_mask(folder / "masks" / name / "00000.png", clip.masks[0])
        for index in range(length):
            path = folder / "images" / name / f"{index:05d}.jpg"
            Image.fromarray(frames[around[index % len(around)]]).save(path, quality=92)
    return list(clip.masks)


def measure(options: Options) -> Options:
    """One run in this process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options["cores"]])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ways = {"sam2": upstream_sam2, "cutie": upstream_cutie} if options["way"] == "upstream" else {}
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as nowhere:
        gpu = Gpu(options, make_input(Path(name), options))
        gpu.install()
        clock = Clock(gpu, LENGTHS[MEASURED])
        with contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            ways.get(options["tracker"], ours)(gpu, Path(name), options, clock)
    return clock.result | {"idle": 1000 * float(np.median(gpu.idle[2:]))}  # before the sequences after the measured one


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trackers", nargs="+", choices=("sam2", "cutie"), default=["sam2", "cutie"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1080p"])
    parser.add_argument("--objects", nargs="+", type=int, default=[3])
    parser.add_argument("--cores", nargs="+", type=int, default=[2])
    parser.add_argument("--ms", nargs="+", type=float, default=[25], help="time of the network per frame")
    parser.add_argument("--launch", type=float, default=0, help="CPU milliseconds of launching kernels per frame")
    parser.add_argument("--spin", action="store_true", help="CUDA's waits keep a core busy, as they do by default")
    parser.add_argument("--source", help="folder of JPEG files to resize, instead of a procedural clip")
    parser.add_argument("--sam2-script", help="tools/vos_inference.py of facebookresearch/sam2")
    parser.add_argument("--cutie-checkout", help="checkout of hkchengrex/Cutie")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    if options["run"]:
        print(json.dumps(measure(json.loads(options["run"]))))
        return
    scripts = {"sam2": options["sam2_script"], "cutie": options["cutie_checkout"]}
    lists = [options.pop(name) for name in ("trackers", "sizes", "objects", "cores", "ms")]
    for tracker, size, objects, cores, ms in itertools.product(*lists):
        for way in ("ours", "upstream") if scripts[tracker] else ("ours",):
            run = {"way": way, "tracker": tracker, "size": size, "objects": objects, "cores": cores, "ms": ms}
            command = [sys.executable, __file__, "--run", json.dumps(options | run)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            stages = ", ".join(f"{name} {spent:.1f}" for name, spent in found["stages"].items())
            print(
                f"{way:8} {tracker:5} {size:5} {objects:2} objects, {cores} cores, {ms:g} ms: "
                f"{found['fps']:5.1f} frames/s, {found['share']:4.0%} of the ideal, "
                f"{found['idle']:.0f} ms idle between sequences, "
                f"{found['host']:5.1f} ms of CPU ({stages})",
                flush=True,
            )


if __name__ == "__main__":
    main()
