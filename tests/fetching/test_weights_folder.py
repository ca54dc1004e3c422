"""Weights that are a folder: fetched from a hub or from this machine, verified file by file, behind a licence."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.loopback import Server
from vosarena.base.errors import ConfigError, DataError, TrackerError
from vosarena.cli import main
from vosarena.config.paths import Paths
from vosarena.config.study import load_study
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import WeightsEntry
from vosarena.fetching.weights import fetch_weights, local_files, local_weights, place_of, weights_path
from vosarena.inference.job import Job
from vosarena.orchestration.checks import check_access
from vosarena.predictions.manifest import ModelDefinition

CONFIG, TENSORS = b'{"model_type": "sam2_video"}', b"\x10" + bytes(7) + b"tensors"
FILES = {"config.json": CONFIG, "model.safetensors": TENSORS}
HASHES = {name: sha256(content).hexdigest() for name, content in FILES.items()}


def entry(*sources, **keys) -> WeightsEntry:
    return WeightsEntry.model_validate({"sources": list(sources), **keys})


def write(folder: Path) -> Path:
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_folder_of_this_machine(tmp_path):
    own, resources = write(tmp_path / "own"), tmp_path / "resources"
    weights = entry({"local": str(own)}, files=HASHES)
    output = weights_path(weights, "sam2.1-t", resources)
    assert output == resources / "weights" / "sam2.1-t"
    assert local_files(weights) == [str(own / name) for name in FILES]
    assert local_weights(weights, "sam2.1-t", resources) == own
    fetch_weights(weights, output, RetryPolicy())
    assert content(output) == FILES
    assert local_weights(weights, "sam2.1-t", resources) == output
    (own / "config.json").write_bytes(b"{}")
    with pytest.raises(DataError, match=r"config.json.* sha256 is .*, expected"):
        fetch_weights(weights, output, RetryPolicy())


def test_a_folder_that_was_saved_by_hand(tmp_path):
    weights = entry({"huggingface": "facebook/sam3", "gated": True})
    place = place_of(weights, "sam3", tmp_path)
    assert place == tmp_path / "archives" / "weights" / "sam3"
    place.parent.mkdir(parents=True)
    write(place)
    fetch_weights(weights, weights_path(weights, "sam3", tmp_path), RetryPolicy())
    assert content(tmp_path / "weights" / "sam3") == FILES


def test_a_repository_on_a_hub(tmp_path):
    """Both files are downloaded once, locked, and seen to change."""
    catalog = tmp_path / "catalog" / "models"
    catalog.mkdir(parents=True)
    written = {"tracker": "transformers", "weights": {"sources": [{"huggingface": "some/model"}]}}
    (catalog / "own.yaml").write_text(json.dumps({"one": written, "two": written}))
    command = [sys.executable, "-m", "vosarena", "fetch", "--catalog", str(catalog.parent), "--resources", "resources"]
    options = ["--attempts", "2", "--timeout", "5"]
    with Server({f"some/model/resolve/main/{name}": body for name, body in FILES.items()}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.root, "HF_HUB_DISABLE_TELEMETRY": "1"}

        def fetch(*names):
            done = [*command, *names, *options]
            return subprocess.run(done, env=environment, cwd=tmp_path, capture_output=True, text=True)

        done = fetch("one", "two")
        assert done.returncode == 0, done.stderr
        for name in ("one", "two"):
            assert content(tmp_path / "resources" / "weights" / name) == FILES
        assert len(hub.requests) == 2
        locked = (tmp_path / "resources" / "hashes.lock.yaml").read_text()
        assert "weights/model/config.json" in locked and HASHES["model.safetensors"] in locked
        (tmp_path / "resources/archives/weights/model/config.json").unlink()
        hub.files["some/model/resolve/main/config.json"] = b'{"model_type": "other"}'
        done = fetch("one")
        assert done.returncode == 1 and "at its first use" in done.stderr


def test_hashes_of_a_folder_are_those_of_its_files():
    with pytest.raises(ValidationError, match="give the hashes of its files as `files`"):
        entry({"huggingface": "some/model"}, sha256="0" * 64)
    with pytest.raises(ValidationError):
        entry({"huggingface": "some/model"}, files={"pytorch_model.bin": "0" * 64})


def test_the_fingerprint_has_both_files(tmp_path):
    folder = write(tmp_path / "own")

    def identity():
        return Job(ModelDefinition("static", {}), folder).identity()

    before = identity()
    assert before.weights == HASHES["model.safetensors"] and before.files == (HASHES["config.json"],)
    (folder / "config.json").write_bytes(b"{}")
    assert identity().to_json() != before.to_json()
    (folder / "config.json").unlink()
    with pytest.raises(TrackerError, match=r"there is no weights file .*config.json"):
        identity()


def gated_study(tmp_path, monkeypatch, token):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    return load_study({"study": "s", "datasets": ["demo/val"], "models": ["sam3", "static"]}, where="config")


def test_a_study_without_access_stops_with_one_sentence(tmp_path, monkeypatch):
    study, paths = gated_study(tmp_path, monkeypatch, ""), Paths("s", resources=tmp_path / "resources")
    with pytest.raises(ConfigError) as caught:
        check_access(study, paths)
    for words in ("models: sam3", "SAM License", "https://huggingface.co/facebook/sam3", "hf auth login"):
        assert words in str(caught.value)
    place = tmp_path / "resources" / "archives" / "weights" / "sam3"
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)
    place.parent.mkdir(parents=True)
    write(place)
    check_access(study, paths)  # saved by hand


@pytest.mark.parametrize(("answer", "denied"), [("401", True), ("403", True), ("", False)])
def test_an_account_has_access_or_not(tmp_path, monkeypatch, answer, denied):
    study, paths = gated_study(tmp_path, monkeypatch, "hf_xyz"), Paths("s", resources=tmp_path / "resources")
    with Server({"api/models/facebook/sam3/auth-check": b"{}"}) as hub:
        hub.faults = [answer] if answer else []
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.root)
        if denied:
            with pytest.raises(ConfigError, match="ask for access"):
                check_access(study, paths)
        else:
            check_access(study, paths)
        assert len(hub.requests) == 1


def test_models_shows_licence_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["models", "--resources", str(tmp_path)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sam3 ")]
    assert "SAM License" in row and "https://huggingface.co/facebook/sam3" in row and "absent" in row
