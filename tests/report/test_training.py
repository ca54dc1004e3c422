"""The curves of trainings on the page."""

from pathlib import Path

import numpy as np
import pandas as pd

from vosarena.config.paths import Paths
from vosarena.config.study import load_study
from vosarena.report.training import training_curves, waiting_shares


def test_curves_are_thinned_and_cover_the_training(tmp_path: Path) -> None:
    study = load_study({"datasets": ["demo/val"], "models": ["static", "cutie-demo-finetuned"]})
    paths = Paths("study", tmp_path, tmp_path)
    assert training_curves(study, paths) == waiting_shares(study, paths) == {}
    folder = paths.finetuned("cutie-demo-finetuned")
    folder.mkdir(parents=True)
    steps = np.arange(1, 451)
    pd.DataFrame(
        {"iteration": steps, "total_loss": steps / 10, "learning_rate": 1e-4, "seconds": 2.0, "waiting": 0.5}
    ).to_parquet(folder / "loss.parquet")
    (curves,) = training_curves(study, paths).values()
    assert curves["validation J&F"] == []
    assert curves["training loss"][:2] == [(3, 0.2), (6, 0.5)] and curves["training loss"][-1][0] == 450
    assert len(curves["training loss"]) == 150 and set(curves["learning rate"]) == {(at, 1e-4) for at in steps[2::3]}
    pd.DataFrame({"iteration": [0, 450], "j_and_f": [50.0, 61.26]}).to_parquet(folder / "validation.parquet")
    assert training_curves(study, paths)["cutie-demo-finetuned"]["validation J&F"] == [(0, 50.0), (450, 61.26)]
    assert waiting_shares(study, paths)["cutie-demo-finetuned"][0] == (3, 25.0)
