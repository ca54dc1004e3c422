"""`vosarena check`: sound trackers pass, and each fault is named."""

import pytest

from vosarena.cli import main

FAULTS = {
    "frames[index][:5] = 0": "frames are not changed  the tracker writes into frame",
    "labels = labels.astype(int)": "the tracker gave int64, 96 x 160, expected uint8",
    "labels = labels.T": "the tracker gave uint8, 160 x 96, expected uint8, 96 x 160",
    "labels = np.where(labels == 1, 7, labels).astype(np.uint8)": "object 7, but the prompts",
    "labels = np.where(labels == 1, 2, labels).astype(np.uint8)": "object 1 of frame 0 has an IoU of 0.00",
    "labels = labels[:, ::-1]": "has an IoU of 0.",
    "labels = labels if index < 9 else np.ones_like(labels)": "late objects            object 2 never appears",
    "labels[0, 0] = 2": "object 2 is there before its prompt",
    "labels[0, self.calls] = 1": "pixels differ when a clip is tracked again",
    "if index == 3: return": "the tracker gave 3 masks for 24 frames",
    "if index == 3: sys.exit(0)": "SystemExit: 0",
    "if index == 3: raise KeyError('memory')": "KeyError: 'memory'",
    "self.kept.append(frame)": "200 frames are still held",
    "self.kept.append(np.ones(600_000))": "memory grows by 4.",
    "index or list(frames[i] for i in range(len(frames)))": "200 of 200 frames are read before the first mask",
}
TRACKER = """
import sys

import numpy as np


class Mine:
    packages = ()

    def __init__(self, device, precision):
        self.kept, self.calls = [], 0

    def track(self, frames, prompts):
        labels = np.zeros(frames[0].shape[:2], np.uint8)
        self.calls += 1
        for index, frame in enumerate(frames):
            if index in prompts:
                labels = np.where(prompts[index] > 0, prompts[index], labels)
            kept = labels.copy()
            {fault}
            yield labels
            labels = kept
"""


@pytest.mark.parametrize("name", ["static", "flow"])
def test_sound_models_pass(name, capsys):
    assert main(["check", name]) == 0
    printed = capsys.readouterr().out
    assert "FIX" not in printed and f"{name}: ready" in printed and printed.count("ok ") == 9


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(fault, tmp_path, capsys):
    tracker = tmp_path / "mine.py"
    tracker.write_text(TRACKER.format(fault=fault))
    assert main(["check", f"{tracker}:Mine"]) == 1
    printed = capsys.readouterr().out
    (found,) = [line for line in printed.splitlines() if FAULTS[fault] in line]
    assert found.startswith("FIX") and "to fix" in printed.splitlines()[-1]


def test_a_model_without_its_weights_says_how_to_get_them(tmp_path, capsys):
    assert main(["check", "cutie-base", "--resources", str(tmp_path)]) == 1
    assert "cutie-base: its weights are not there; run `vosarena fetch cutie-base`" in capsys.readouterr().err
