"""The option `compile: cuda-graphs`: the same kernels by another way. A CPU runs them, without recording."""

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from tests.support import sam2_upstream
from vosarena.base.errors import TrackerError
from vosarena.demo.clips import make_clip
from vosarena.trackers import cuda_graphs, sam2
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.transformers import Transformers


@pytest.mark.usefixtures("one_torch_thread")
def test_masks_are_the_same_and_results_are_copied(tmp_path, monkeypatch):
    """Every result is overwritten by the next one, as by CUDA."""
    runs = []

    def always_in_the_same_place(call, inputs):
        places = []

        def replay(inputs):
            results, structure = tree_flatten(call(inputs))
            runs.append(len(results))
            places[:] = places or [torch.empty_like(result) for result in results]
            return tree_unflatten(
                [place.copy_(result) for place, result in zip(places, results, strict=True)], structure
            )

        return replay

    weights = str(sam2_upstream.random_weights("sam2_demo", tmp_path / "weights.pth", 0, 64))
    clip = make_clip(5, frames=4, size=(48, 64), objects=1)
    expected = list(Sam2("sam2_demo", weights, 64).track(clip.frames, {0: clip.masks[0]}))
    monkeypatch.setattr(cuda_graphs, "record", always_in_the_same_place)
    monkeypatch.setattr(sam2, "check_compile", lambda *_: None)
    tracker = Sam2("sam2_demo", weights, 64, compile="cuda-graphs")
    np.testing.assert_array_equal(list(tracker.track(clip.frames, {0: clip.masks[0]})), expected)
    assert len(runs) > 2 * len(expected)


def test_what_cannot_be_recorded_runs_as_usual(monkeypatch, caplog):
    def fail(call, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "record", fail)
    layer = torch.nn.Linear(2, 2)
    image = torch.ones(3, 2)
    expected = layer(image)
    cuda_graphs.use_cuda_graphs([layer])
    for _ in range(4):
        assert torch.equal(layer(image), expected)
    assert [record.message for record in caplog.records] == [
        "Linear cannot be recorded as a CUDA graph: operation not permitted when stream is capturing"
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cuda-graphs", "compile: cuda-graphs needs a CUDA device, not cpu; leave it out"),
        ("max-autotune", "compile is 'max-autotune'; use true, false or cuda-graphs"),
    ],
)
def test_other_values_are_refused(value, message):
    with pytest.raises(TrackerError, match=message):
        Sam2("sam2_demo", "weights.pth", compile=value)
    with pytest.raises(TrackerError, match=message):
        Transformers("weights", compile=value)
