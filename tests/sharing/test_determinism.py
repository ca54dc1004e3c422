"""The same study under two settings gives the same bytes, except for the files that have times."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY, write_sequence

SETTINGS = {
    "one": {"jobs": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
    "two": {
        **{"jobs": "2", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu"},
        **{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},  # text is ASCII there by default
    },
}


def test_the_same_study_under_two_settings_gives_the_same_bytes(tmp_path):
    write_sequence(tmp_path / "clips", "alpha")
    write_sequence(tmp_path / "clips", "beta", frames=7, late=3)
    for name, settings in SETTINGS.items():
        command = [sys.executable, "-m", "tests.support.small_study", str(tmp_path / name), settings["jobs"]]
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | settings, check=True)
    one, two = (shared_files(tmp_path / name) for name in SETTINGS)
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    kinds = {Path(name).suffix for name in one}
    assert kinds >= {".csv", ".html", ".js", ".jpg", ".md", ".mp4", ".parquet", ".pdf", ".png", ".svg", ".tex", ".zip"}


def shared_files(root: Path) -> dict[str, bytes]:
    """All files but those with times: `speed*`, the times next to the bundle, manifests, and unfinished members."""
    folders = [root / name for name in ("small.zip", "results/metrics", "results/studies")]
    files = [file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder])]
    files += (root / "results/predictions").rglob("*.png")
    return {
        str(file.relative_to(root)): file.read_bytes()
        for file in files
        if file.is_file() and not file.name.startswith("speed")
    }
