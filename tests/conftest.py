"""Fixtures shared by the tests."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from platformdirs import user_cache_path

from vosarena.io.masks import write_mask

REPOSITORY = Path(__file__).parents[1]
# Also for tests that change HOME: compiling the loops takes ten seconds.
os.environ.setdefault("NUMBA_CACHE_DIR", str(user_cache_path("vosarena")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first: at the end, one process would wait for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real frames and masks next to the checkout; tests that need them skip where they are absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real test data are not in {folder}")
    return folder


def write_sequence(root: Path, name: str, frames: int = 6, size: tuple[int, int] = (48, 64), late: int = 0) -> None:
    """Two textured squares that move over noise; object 2 first appears at frame `late`."""
    rng = np.random.default_rng(sum(map(ord, name)))
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)

    def texture(height: int, width: int) -> np.ndarray:
        coarse = rng.integers(0, 255, (height // 4, width // 4, 3), np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    background, textures = texture(*size), {1: texture(16, 16), 2: texture(16, 16)}
    for index in range(frames):
        frame, labels = background.copy(), np.zeros(size, np.uint8)
        for number, y in ((1, 4), (2, 28)):
            if number == 1 or index >= late:
                x = 4 + (index * number) % (size[1] - 24)
                frame[y : y + 16, x : x + 16] = textures[number]
                labels[y : y + 16, x : x + 16] = number
        cv2.imwrite(str(images / f"{index:05d}.jpg"), frame[..., ::-1])
        write_mask(masks / f"{index:05d}.png", labels)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset folder in DAVIS layout: sequences `alpha`, `beta` and `gamma` (object 2 of gamma is late)."""
    root = tmp_path / "squares"
    write_sequence(root, "alpha")
    write_sequence(root, "beta", frames=8)
    write_sequence(root, "gamma", late=3)
    return root


@pytest.fixture
def snakemake(tmp_path: Path):
    """Run the workflow in a fresh directory: `snakemake("-n", config={...})` gives the finished process."""

    def run(*arguments: str, config: dict | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = workflow_command(tmp_path, config, *arguments)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done

    return run


def workflow_command(directory: Path, config: dict | None, *arguments: str) -> list[str]:
    """Command that runs the workflow in `directory`; a config given here is written to config.yaml there."""
    import yaml

    if config is not None:
        (directory / "config.yaml").write_text(yaml.safe_dump(config))
    executable = shutil.which("snakemake", path=str(Path(sys.executable).parent))
    assert executable, "snakemake is not installed next to this Python"
    common = ["--configfile", str(directory / "config.yaml"), "--snakefile", str(REPOSITORY / "Snakefile")]
    return [executable, *common, "--directory", str(directory), "--cores", "2", *arguments]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Return as soon as the condition is true; fail if it is not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"nothing happened in {seconds} seconds"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def one_torch_thread():
    """Small networks are fastest with one thread, and several would fight over the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
