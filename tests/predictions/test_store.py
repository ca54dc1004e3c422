import numpy as np
import pytest

from tests.support.records import make_manifest
from vosarena.base.errors import DataError
from vosarena.base.hashing import digest_of
from vosarena.io.masks import masks_digest, write_mask
from vosarena.predictions.store import Store


def put(store: Store, sequence: str, fingerprint: str, stems: list[str]) -> None:
    with store.writing(sequence) as folder:
        for stem in stems:
            write_mask(folder / f"{stem}.png", np.full((2, 2), int(stem), np.uint8))
        digest = masks_digest((stem, folder / f"{stem}.png") for stem in stems)
        store.commit(folder, make_manifest(sequence, fingerprint, digest, stems))


def test_holds_only_what_was_committed_with_the_same_fingerprint(tmp_path):
    store = Store(tmp_path / "model")
    assert not store.holds("a", "f1", ["0"])
    put(store, "a", "f1", ["0", "1"])
    assert store.holds("a", "f1", ["0", "1"])
    assert not store.holds("a", "f2", ["0", "1"])
    assert not store.holds("a", "f1", ["0", "1", "2"])
    (store.masks("a") / "1.png").unlink()
    assert not store.holds("a", "f1", ["0", "1"])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_prediction_stays_until_the_new_one_is_whole(tmp_path, error):
    store = Store(tmp_path / "model")
    put(store, "a", "f1", ["0"])
    with pytest.raises(error), store.writing("a") as folder:
        (folder / "0.png").write_bytes(b"half")
        raise error
    assert store.holds("a", "f1", ["0"])
    assert sorted(path.name for path in store.folder.iterdir()) == ["a", "a.json"]
    put(store, "a", "f2", ["0", "1"])
    assert store.holds("a", "f2", ["0", "1"]) and not store.holds("a", "f1", ["0"])


def test_failures_count_attempts_and_go_away_with_success(tmp_path):
    store = Store(tmp_path / "model")
    store.fail("a", DataError("frame 3 is damaged"))
    store.fail("a", ValueError("odd"))
    failed = (store.folder / ".a.failed.json").read_text()
    assert '"attempts": 2' in failed and "ValueError: odd" in failed
    put(store, "a", "f", ["0"])
    assert not (store.folder / ".a.failed.json").exists()


def test_digest_of_ignores_the_order_of_keys():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 2, "b": 1})
