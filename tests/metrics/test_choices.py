"""The choices of protocols: together they are the protocol, and their points add up."""

from itertools import permutations

import numpy as np
import pytest

from tests.metrics.test_protocols import Bench, bench, random_clip  # noqa: F401 - a fixture
from vosarena.metrics.choices import CHOICES, choice_score, steps
from vosarena.metrics.meta import LVOS_UNSEEN
from vosarena.metrics.pairs import ObjectInfo
from vosarena.metrics.protocols import PROTOCOLS
from vosarena.metrics.read import Metrics, read_metrics
from vosarena.metrics.scores import score, summarise


@pytest.fixture
def metrics(bench: Bench) -> Metrics:  # noqa: F811
    """Clips with late, absent, missing and unseen objects, label 255, and ranges of a meta file."""
    meta = {}
    for seed, name in enumerate(["a", "b", "c", sorted(LVOS_UNSEEN)[0]]):
        gt, pred = random_clip(seed, 11, highest=4)
        gt = [np.kron(labels, np.ones((2, 2), np.uint8)) for labels in gt]
        pred = [np.kron(labels, np.ones((2, 2), np.uint8)) for labels in pred]
        gt[0][gt[0] == 2] = 0
        for index in (4, 5):
            gt[index][gt[index] == 1] = 0
        gt[3][:8, :8] = 255
        if seed == 2:
            gt = [np.where(labels == 3, 0, labels).astype(np.uint8) for labels in gt]
        bench.clip(name, gt, pred)
        visible = {int(i) for labels in gt for i in np.unique(labels)} - {0, 255}
        meta[name] = {i: ObjectInfo(1, 9, unseen=None) for i in visible}
    bench.score("davis2017", meta=meta)
    return read_metrics(bench.counts)[0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_choices_of_a_protocol_give_its_score(metrics: Metrics, bench: Bench, protocol: str) -> None:  # noqa: F811
    wanted = summarise(score(bench.counts, protocol)).iloc[0]["j_and_f"]
    assert choice_score(metrics, CHOICES[protocol]) == pytest.approx(wanted, rel=1e-12)


def test_the_points_of_the_steps_add_up(metrics: Metrics) -> None:
    for here, there in permutations(CHOICES, 2):
        found = steps(metrics, here, there)
        difference = choice_score(metrics, CHOICES[there]) - choice_score(metrics, CHOICES[here])
        assert sum(step.points for step in found) == pytest.approx(difference, abs=1e-9)
        assert all(step.before != step.after for step in found)
    assert any(abs(step.points) > 1 for step in steps(metrics, "davis2017", "sa-v"))
    assert steps(metrics, "vos-benchmark", "sa-v-official") == []
