"""Downloads from a real server that breaks in every way it can: success after retries, or one sentence."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml

from vosarena.data.fetch import LOCK_FILE, Wanted, fetch_file
from vosarena.data.sources import Policy
from vosarena.errors import DataError

from .loopback import PAGE, Server
from .miniature import zip_of

POLICY = Policy(attempts=3, timeout=0.5, wait=0.01)
BODY = zip_of({"JPEGImages/a/00000.jpg": random.Random(1).randbytes(3_000_000)})
OTHER = zip_of({"JPEGImages/a/00000.jpg": random.Random(2).randbytes(3_000_000)})
HASH = sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with Server({"a.zip": BODY}) as server:
        yield server


def get(server: Server, resources: Path, *, policy: Policy = POLICY, sources=(), **known) -> Path:
    sources = sources or ({"url": server.url("a.zip")},)
    place = resources / "archives" / "set" / "a.zip"
    return fetch_file(Wanted("set/a.zip", tuple(sources), **known), place, resources, policy)


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def nothing_accepted(resources: Path) -> bool:
    place = resources / "archives" / "set"
    return not (place / "a.zip").exists() and not (place / "a.zip.json").exists()


def test_a_file_is_fetched_once(server, tmp_path):
    path = get(server, tmp_path, sha256=HASH)
    assert path == tmp_path / "archives/set/a.zip" and path.read_bytes() == BODY
    assert get(server, tmp_path, sha256=HASH) == path
    assert len(server.requests) == 1
    assert not list(path.parent.glob("*.part*"))


@pytest.mark.parametrize("fault", ["truncate", "stall"])
def test_it_goes_on_where_it_broke(server, tmp_path, fault):
    server.faults = [fault, fault, fault, fault]
    assert get(server, tmp_path).read_bytes() == BODY
    offsets = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for _, asked in server.requests]
    assert offsets == sorted(offsets) and offsets[1] > 1_000_000  # half, three quarters, ...


def test_a_server_without_ranges(server, tmp_path):
    server.ranges = False
    server.faults = ["truncate", "truncate"]
    assert get(server, tmp_path, sha256=HASH).read_bytes() == BODY


def test_a_server_that_does_not_vouch_is_asked_for_everything_again(server, tmp_path):
    """Without ETag and date nobody knows whether two halves belong together, unless the hash is known."""
    server.vouch = False
    server.faults = ["truncate"]
    assert get(server, tmp_path).read_bytes() == BODY
    assert [asked for _, asked in server.requests] == ["", ""]
    server.faults = ["truncate"]
    assert get(server, tmp_path / "known", sha256=HASH).read_bytes() == BODY
    assert server.requests[-1][1].startswith("bytes=")


def test_ranges_shorter_than_asked(server, tmp_path):
    server.piece = 500_000
    server.faults = ["truncate"]
    assert get(server, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 5


@pytest.mark.parametrize(("vouch", "careless"), [(True, False), (True, True), (False, False)])
def test_a_file_that_changes_between_attempts(server, tmp_path, vouch, careless):
    """Halves of two versions never become one file, whatever the server says of them."""

    def change(server: Server) -> None:
        server.files["a.zip"] = OTHER if server.files["a.zip"] == BODY else BODY

    server.vouch, server.careless = vouch, careless
    server.faults = [change, change]
    known = {} if vouch else {"sha256": HASH}
    found = get(server, tmp_path, **known).read_bytes()
    assert found == BODY == server.files["a.zip"]


def test_a_killed_download_goes_on_in_the_next_process(server, tmp_path):
    server.faults = ["stall"]
    process = get_context("fork").Process(
        target=get, args=(server, tmp_path), kwargs={"policy": Policy(3, 60, 0.01)}, daemon=True
    )
    process.start()
    part = tmp_path / "archives/set/a.zip.part"
    deadline = time.monotonic() + 10
    while not (part.exists() and part.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert nothing_accepted(tmp_path)
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1][1].startswith("bytes=1")


@pytest.mark.parametrize("fault", ["404", "403", "410"])
def test_what_is_not_there_is_not_asked_for_again(server, tmp_path, fault):
    server.faults = [fault] * 9
    text = error_of(get, server, tmp_path)
    assert fault in text and server.url("a.zip") in text and str(tmp_path / "archives/set/a.zip") in text
    assert len(server.requests) == 1 and nothing_accepted(tmp_path)


@pytest.mark.parametrize("fault", ["500", "503", "429", "408"])
def test_a_server_in_trouble_gets_several_chances(server, tmp_path, fault):
    server.faults = [fault, fault]
    assert get(server, tmp_path).read_bytes() == BODY
    shutil.rmtree(tmp_path)
    server.faults = [fault] * 9
    assert "3 times in a row" in error_of(get, server, tmp_path)


def test_a_web_page_is_not_an_archive(server, tmp_path):
    server.faults = ["html", "html"]
    text = error_of(get, server, tmp_path)
    assert "web page (Please sign in)" in text and nothing_accepted(tmp_path)
    server.faults = ["truncate", "html"]  # a half and then a page: the half is kept
    assert get(server, tmp_path).read_bytes() == BODY
    server.files["a.zip"] = PAGE
    assert "web page" in error_of(get, server, tmp_path / "served as the file")


def test_an_answer_without_a_length_that_ends_early(server, tmp_path):
    """Nothing in HTTP tells this one; the archive itself does, before its hash is trusted."""
    server.length = False
    server.files["a.zip"] = BODY[: len(BODY) // 2]
    assert "not a whole zip" in error_of(get, server, tmp_path)
    assert nothing_accepted(tmp_path) and not (tmp_path / LOCK_FILE).exists()
    server.files["a.zip"] = BODY
    assert get(server, tmp_path).read_bytes() == BODY


def test_the_second_source_helps(server, tmp_path):
    sources = [{"local": str(tmp_path / "nowhere.zip")}, {"url": server.url("gone.zip")}, {"url": server.url("a.zip")}]
    assert get(server, tmp_path, sources=sources).read_bytes() == BODY


def test_a_host_that_is_not_there(tmp_path):
    with Server() as server:
        url = server.url("a.zip")
    text = error_of(get, server, tmp_path, sources=[{"url": url}])
    assert "refuses connections" in text and url in text
    assert "not an address" in error_of(get, None, tmp_path, sources=[{"url": "http://[::1/a.zip"}])


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_hash_names_both_and_touches_nothing_else(server, tmp_path, kind):
    expected = {"sha256": sha256, "md5": md5}[kind](BODY).hexdigest()
    get(server, tmp_path, **{kind: expected})
    other = tmp_path / "archives/set/other.zip"
    other.write_bytes(b"other")
    (tmp_path / "archives/set/a.zip").unlink()
    server.files["a.zip"] = OTHER
    text = error_of(get, server, tmp_path, **{kind: expected})
    assert expected in text and {"sha256": sha256, "md5": md5}[kind](OTHER).hexdigest() in text
    assert other.read_bytes() == b"other" and not (tmp_path / "archives/set/a.zip").exists()


def test_trust_on_first_use(server, tmp_path):
    get(server, tmp_path)
    entry = yaml.safe_load((tmp_path / LOCK_FILE).read_text())["set/a.zip"]
    assert entry["sha256"] == HASH and entry["bytes"] == len(BODY)
    (tmp_path / "archives/set/a.zip").unlink()
    server.files["a.zip"] = OTHER
    text = error_of(get, server, tmp_path)
    assert HASH in text and sha256(OTHER).hexdigest() in text and LOCK_FILE in text
    server.files["a.zip"] = BODY
    assert get(server, tmp_path).read_bytes() == BODY


def test_a_file_put_there_by_hand_is_verified(server, tmp_path):
    place = tmp_path / "archives/set/a.zip"
    place.parent.mkdir(parents=True)
    place.write_bytes(OTHER)
    text = error_of(get, server, tmp_path, sha256=HASH)
    assert HASH in text and place.read_bytes() == OTHER  # the user's file is left alone
    place.write_bytes(BODY)
    assert get(server, tmp_path, sha256=HASH) == place
    assert not server.requests


def test_a_gated_source_says_what_to_do(tmp_path):
    page = "https://example.org/sign-up"
    text = error_of(get, None, tmp_path, sources=[{"page": page, "file": "the_set.zip"}])
    assert page in text and "the_set.zip" in text and str(tmp_path / "archives/set/a.zip") in text
    (tmp_path / "archives/set/a.zip").write_bytes(BODY[:-100])
    assert "not a whole zip" in error_of(get, None, tmp_path, sources=[{"page": page}])
    (tmp_path / "archives/set/a.zip").write_bytes(BODY)
    assert get(None, tmp_path, sources=[{"page": page}]).read_bytes() == BODY


def test_a_file_that_was_replaced_after_it_was_verified(server, tmp_path):
    path = get(server, tmp_path)
    path.write_bytes(OTHER)
    assert "at its first use" in error_of(get, server, tmp_path)


def test_a_file_from_another_source_is_not_taken_for_this_one(server, tmp_path):
    """Two models may both call their weights `model.pth`; only a hash can say that they are the same."""
    path = get(server, tmp_path)
    server.files["b.zip"] = BODY
    other = ({"url": server.url("b.zip")},)
    text = error_of(get, server, tmp_path, sources=other)
    assert server.url("a.zip") in text and str(path) in text
    assert get(server, tmp_path, sources=other, sha256=HASH) == path
    Path(f"{path}.json").unlink()  # a person says that it is the right one
    assert get(server, tmp_path, sources=other) == path == get(server, tmp_path, sources=other)
    assert len(server.requests) == 1


def _fetch_quietly(url: str, resources: Path) -> None:
    wanted = Wanted("set/a.zip", ({"url": url},))
    fetch_file(wanted, resources / "archives/set/a.zip", resources, POLICY)


def test_four_processes_at_once(server, tmp_path):
    """One downloads, the others wait and find the file; the lock file holds together."""
    context = get_context("fork")
    processes = [context.Process(target=_fetch_quietly, args=(server.url("a.zip"), tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(server.requests) == 1
    assert list(yaml.safe_load((tmp_path / LOCK_FILE).read_text())) == ["set/a.zip"]


@pytest.fixture
def small_disk(tmp_path):
    """Two megabytes; needs the right to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder]).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("announced", [True, False])
def test_a_full_disk(server, small_disk, announced):
    """Known beforehand where the server says how much it is, else noticed; either way nothing is accepted."""
    server.length = announced
    text = error_of(get, server, small_disk)
    assert ("MB free" in text if announced else "disk is full" in text) and "make room" in text
    assert nothing_accepted(small_disk) and len(server.requests) == 1


def start_nginx(folder: Path, port: int, options: str = "") -> subprocess.Popen:
    """Debian's nginx, in the foreground, with nothing outside `folder`."""
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}
        http {{ access_log {folder}/access.log; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;
                fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
                server {{ listen 127.0.0.1:{port}; root {folder}/files; {options} }} }}"""
    )
    return subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)


NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("options", ["", "max_ranges 0;", "etag off;"])
def test_nginx_that_is_killed_and_comes_back(tmp_path, options):
    """A server of the real world: slow, killed in the middle of the file, later started again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.zip").write_bytes(BODY)
    source = {"url": f"http://127.0.0.1:{port}/a.zip"}
    server = start_nginx(tmp_path, port, options + "limit_rate 1m;")
    part = tmp_path / "resources/archives/set/a.zip.part"
    try:
        with ThreadPoolExecutor() as pool:
            done = pool.submit(get, None, tmp_path / "resources", sources=[source], policy=Policy(200, 5, 0.05))
            deadline = time.monotonic() + 20
            while not (part.exists() and part.stat().st_size > 300_000) and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill()
            server.wait()
            server = start_nginx(tmp_path, port, options)
            assert done.result(timeout=60).read_bytes() == BODY
    finally:
        server.kill()
        server.wait()
    answers = [line.split('"')[2].split()[0] for line in (tmp_path / "access.log").read_text().splitlines()]
    assert answers[-1] == ("200" if options == "max_ranges 0;" else "206")


def test_hugging_face(tmp_path):
    """The real client's addresses and headers, against a server that answers like the Hub, redirect included."""
    name = "datasets/FudanCVL/MOSE/resolve/main/valid.tar.gz"
    code = (
        "import sys; from pathlib import Path; from vosarena.data.fetch import *; from vosarena.data.sources import *;"
        "r = Path(sys.argv[1]); s = ({'huggingface': 'FudanCVL/MOSE', 'file': 'valid.tar.gz'},);"
        "fetch_file(Wanted('mose/valid.tar.gz', s, sha256=sys.argv[2]), r / 'valid.tar.gz', r, Policy(2, 5, 0.01))"
    )
    with Server({name: BODY}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.root, "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", code, tmp_path, HASH]
        hub.faults = ["truncate"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "valid.tar.gz").read_bytes() == BODY
        hub.faults = ["401"]
        (tmp_path / "valid.tar.gz").unlink()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert "401" in done.stderr and "https://huggingface.co/datasets/FudanCVL/MOSE" in done.stderr


def test_google_drive_asks_for_a_confirmation(server, tmp_path, monkeypatch):
    """The page in front of large files, as Drive sends it, leads to the file; a quota page is an error."""
    form = f"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
    <form id="download-form" action="{server.root}/a.zip" method="get"><input type="hidden" name="id" value="ID">
    <input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1-2"></form></body></html>"""

    class Drive(Server):
        def _send(self, handler, status, body, headers, fault=""):
            super()._send(handler, status, body, {**headers, "Content-Type": "text/html; charset=utf-8"}, fault)

    with Drive({"uc": " ".join(form.split()).encode()}) as drive:
        monkeypatch.setattr("vosarena.data.sources._DRIVE", drive.url("uc"))
        server.faults = ["truncate"]
        assert get(server, tmp_path, sources=[{"drive": "ID"}], sha256=HASH).read_bytes() == BODY
        drive.files["uc"] = b'<html><p class="uc-error-subcaption">Too many users have viewed this file</p></html>'
        text = error_of(get, server, tmp_path / "quota", sources=[{"drive": "ID"}])
    assert "refuses connections" in error_of(get, server, tmp_path / "gone", sources=[{"drive": "ID"}])
    assert "Too many users" in text and "https://drive.google.com/file/d/ID/view" in text
