"""Downloads from a real server that breaks in every way it can: success after retries, or one sentence."""

import gzip
import io
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import md5, sha256
from multiprocessing import get_context
from pathlib import Path

import pytest
import requests
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.loopback import PAGE, Server
from tests.support.miniature import zip_of
from vosarena.base.errors import DataError, VosarenaError
from vosarena.base.notes import checksum, read_note
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import FileEntry, UrlSource, shown
from vosarena.fetching.verified import LOCK_FILE, RemoteFile, _locked_hashes, fetch_file

POLICY = RetryPolicy(attempts=3, timeout=10, wait=0.01)
IMPATIENT = RetryPolicy(attempts=3, timeout=0.5, wait=0.01)  # for servers that stop answering
BODY = zip_of({"JPEGImages/a/00000.jpg": random.Random(1).randbytes(3_000_000)})
OTHER = zip_of({"JPEGImages/a/00000.jpg": random.Random(2).randbytes(3_000_000)})
HASH = sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with Server({"a.zip": BODY}) as server:
        yield server


def remote(name: str, *sources: dict[str, str], **hashes: str) -> RemoteFile:
    return RemoteFile(name, FileEntry.model_validate({"sources": sources, **hashes}))


def get(server: Server, resources: Path, *, policy: RetryPolicy = POLICY, sources=(), **known) -> Path:
    sources = sources or ({"url": server.url("a.zip")},)
    place = resources / "archives" / "set" / "a.zip"
    return fetch_file(remote("set/a.zip", *sources, **known), place, resources, policy)


def error_of(call, *arguments, **options) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert all(line.startswith(("  tried: ", "  by hand: ")) for line in text.splitlines()[1:])
    assert "Traceback" not in text
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
    assert get(server, tmp_path, policy=IMPATIENT).read_bytes() == BODY
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
        target=get, args=(server, tmp_path), kwargs={"policy": RetryPolicy(3, 60, 0.01)}, daemon=True
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
    assert "invalid URL" in error_of(get, None, tmp_path, sources=[{"url": "http://[::1/a.zip"}])


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
    wanted = remote("set/a.zip", {"url": url})
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
            done = pool.submit(get, None, tmp_path / "resources", sources=[source], policy=RetryPolicy(200, 5, 0.05))
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
        "import sys; from pathlib import Path; from vosarena.fetching.verified import *;"
        "from vosarena.fetching.sources import *;"
        "r = Path(sys.argv[1]); s = ({'huggingface': 'FudanCVL/MOSE', 'file': 'valid.tar.gz'},);"
        "wanted = RemoteFile('mose/valid.tar.gz', FileEntry(sources=s, sha256=sys.argv[2]));"
        "fetch_file(wanted, r / 'valid.tar.gz', r, RetryPolicy(2, 5, 0.01))"
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
        monkeypatch.setattr("vosarena.fetching.sources._DRIVE", drive.url("uc"))
        server.faults = ["truncate"]
        assert get(server, tmp_path, sources=[{"drive": "ID"}], sha256=HASH).read_bytes() == BODY
        drive.files["uc"] = b'<html><p class="uc-error-subcaption">Too many users have viewed this file</p></html>'
        text = error_of(get, server, tmp_path / "quota", sources=[{"drive": "ID"}])
    assert "refuses connections" in error_of(get, server, tmp_path / "gone", sources=[{"drive": "ID"}])
    assert "Too many users" in text and "https://drive.google.com/file/d/ID/view" in text


SECRETS = "http://me:PassWord@127.0.0.1:9/dir/a.zip?id=7&token=PassWord&sig=Pass%20Word#PassWord"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a.zip", "https://example.org/a.zip"),
        ("https://example.org:8080/x@y/a.zip?id=3&download=1", "https://example.org:8080/x@y/a.zip?id=3&download=1"),
        ("https://me:pass@example.org/a.zip", "https://***@example.org/a.zip"),
        ("https://token@example.org/a.zip", "https://***@example.org/a.zip"),
        ("https://me:pa/ss@example.org/a.zip", "https://***@example.org/a.zip"),
        ("https://me:p@ss@example.org/a.zip", "https://***@example.org/a.zip"),
        ("https://h/a.zip?X-Amz-Signature=x&Expires=1&y", "https://h/a.zip?X-Amz-Signature=***&Expires=***&***"),
        ("https://h/a.zip#key", "https://h/a.zip"),
        ("http://me:pass@[::1/a.zip", "http://***@[::1/a.zip"),
    ],
)
def test_addresses_are_shown_without_secrets(url, expected):
    assert shown(url) == expected and UrlSource(url=url).describe() == expected


def test_passwords_are_in_no_note_log_or_error(server, tmp_path, caplog):
    caplog.set_level("DEBUG", logger="vosarena")
    url = server.url("a.zip").replace("//", "//me:PassWord@") + "?token=PassWord"
    server.faults = ["truncate", "500"]
    get(server, tmp_path, sources=[{"url": url}])
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".json", ".yaml")]
    assert len(texts) == 2
    for source in ({"url": SECRETS}, {"url": "http://me:PassWord@[::1/a.zip?PassWord"},
                   {"page": "https://me:PassWord@h/a?key=PassWord"}):  # fmt: skip
        texts.append(error_of(get, None, tmp_path / "no", sources=[source], policy=RetryPolicy(1, 0.5, 0)))
    server.files["b.zip"] = PAGE
    texts.append(error_of(get, server, tmp_path / "b", sources=[{"url": url.replace("a.zip", "b.zip")}]))
    assert "PassWord" not in caplog.text + "".join(texts)


def test_addresses_that_differ_in_what_is_hidden_are_different_sources(server, tmp_path):
    get(server, tmp_path, sources=[{"url": server.url("a.zip?item=1")}])
    assert "is no source of" in error_of(get, server, tmp_path, sources=[{"url": server.url("a.zip?item=2")}])


def test_the_error_says_what_was_tried_and_how_to_do_it_by_hand(server, tmp_path):
    sources = [{"url": server.url("gone.zip")}, {"page": "https://example.org/sign-up", "file": "set.zip"}]
    assert error_of(get, server, tmp_path, sources=sources).splitlines() == [
        "set/a.zip: could not be downloaded",
        f"  tried: {server.url('gone.zip')} (the server answered 404 Not Found)",
        f"  by hand: open https://example.org/sign-up, save set.zip as {tmp_path}/archives/set/a.zip, run again",
    ]


def test_a_name_that_cannot_be_resolved(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    text = error_of(get, None, tmp_path, sources=[{"url": "http://nowhere.example/a.zip"}], policy=RetryPolicy(1, 1, 0))
    assert text.splitlines() == [
        "is this machine offline? set/a.zip: could not be downloaded",
        "  tried: http://nowhere.example/a.zip (the server's name cannot be resolved, 1 times in a row)",
        f"  by hand: open http://nowhere.example/a.zip, save the file as {tmp_path}/archives/set/a.zip, run again",
    ]


MESSAGES = [
    (PAGE, "a web page (Please sign in)"),
    (b"\n<!-- x --><html>\x1b[31m", ""),
    (b"\xef\xbb\xbf<HTML><TITLE>No\n access</TITLE>", "a web page (No access)"),
    ("<html><title>Nein</title>".encode("utf-16"), "a web page (Nein)"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML message (AccessDenied)"),
    (b'{"error": "quota"}', 'a JSON message ({"error": "quota"})'),
    (b' [{"a": 1}]', "a JSON message"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    (b"\x7b\x01\0\0\0\0\0\0{}", ""),  # the length in front of a safetensors header
    (b"\x80\x02", ""),
    (b"hello", ""),
]


@pytest.mark.parametrize(("body", "words"), MESSAGES)
@pytest.mark.parametrize("name", ["w.pth", "a.zip"])
def test_messages_of_servers_are_not_files(tmp_path, body, words, name):
    """Downloaded or saved from a browser; the next source is asked."""
    place = tmp_path / "archives/set" / name
    good = BODY if name == "a.zip" else b"weights"
    with Server({"bad": body, "good": good}) as server:
        sources = ({"url": server.url("bad")}, {"url": server.url("good")})
        fetch_file(remote(f"set/{name}", *sources), place, tmp_path, POLICY)
    assert place.read_bytes() == (good if words or name == "a.zip" else body)
    if words:
        (tmp_path / LOCK_FILE).unlink()
        place.write_bytes(body)
        assert words in error_of(
            fetch_file, remote(f"set/{name}", {"page": "https://example.org"}), place, tmp_path, POLICY
        )


def test_json_files_may_be_json(tmp_path):
    with Server({"meta.json": b'{"videos": {}}'}) as server:
        wanted = remote("set/meta.json", {"url": server.url("meta.json")})
        assert fetch_file(wanted, tmp_path / "meta.json", tmp_path, POLICY).read_bytes() == b'{"videos": {}}'


@contextmanager
def raw_server(answer):
    """A server that calls `answer(connection)` for every request, or sends these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=work, args=(connection,), daemon=True).start()

        def work(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                connection.recv(65536)
                connection.sendall(answer) if isinstance(answer, bytes) else answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"
        listener.shutdown(socket.SHUT_RDWR)


HEADERS = [
    "Location: http://[::1",
    "Location: http://127.0.0.1/\xfc",
    "Location: file:///etc/passwd",
    "Location: //",
    "Location: http://127.0.0.1:99999/",
    "Location: javascript:alert(1)",
    "Content-Length: \xb2",
    "Content-Length: -5",
    "Content-Length: 999999999999999999999999",
    "Content-Length: 5, 7",
    f"Content-Length: {'9' * 5000}",
    "Retry-After: \xb2",
    "Retry-After: -1",
    f"Retry-After: {'9' * 5000}",
    "Content-Range: bytes \xb2-4/5",
    "Content-Range: bytes 0-4/*",
    'ETag: "\xff\x01"\r\n more',
    "Last-Modified: \x1b[31m",
    "Transfer-Encoding: chunked",
    "no colon",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("status", ["200 OK", "206 Partial", "302 Found", "503 No", "\xb2\xb3 \x1b[31m"])
def test_odd_headers_lead_to_the_next_source_or_the_file(server, tmp_path, header, status):
    head = f"HTTP/1.1 {status}\r\n{header}\r\nConnection: close\r\n\r\n".encode("latin-1")
    with raw_server(head + BODY[:5]) as url:
        sources = [{"url": url}, {"url": server.url("a.zip")}]
        assert get(server, tmp_path, sources=sources, policy=RetryPolicy(1, 0.5, 0)).read_bytes() == BODY


@pytest.mark.timeout(60)
@given(head=st.binary(max_size=200), lines=st.lists(st.sampled_from(HEADERS), max_size=3))
@settings(max_examples=25, deadline=None)
def test_any_answer_leads_to_the_next_source_or_the_file(head, lines):
    answer = b"HTTP/1.1 200 OK\r\n" + "\r\n".join(lines).encode("latin-1") + head
    with Server({"a.zip": BODY}) as server, raw_server(answer) as url, tempfile.TemporaryDirectory() as folder:
        sources = [{"url": url}, {"url": server.url("a.zip")}]
        assert get(server, Path(folder), sources=sources, policy=RetryPolicy(1, 0.5, 0)).read_bytes() == BODY


def drip(start: bytes, piece: bytes):
    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return answer


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "answer",
    [
        drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\nPK", b"x"),
        drip(b"HTTP/1.1 200 OK\r\n\r\nPK", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 9000000\r\n\r\nPK',
    ],
)
def test_a_server_that_drips_bytes_for_ever(server, tmp_path, answer, monkeypatch):
    monkeypatch.setattr("vosarena.fetching.http._patience", lambda policy: 1.0)
    with raw_server(answer) as url:
        sources = [{"url": url}, {"url": server.url("a.zip")}]
        assert get(server, tmp_path, sources=sources, policy=RetryPolicy(2, 0.3, 0)).read_bytes() == BODY


@pytest.mark.parametrize("content", [b"", b"\n", bytes(99), b"- a\n", b"\xff", b"3", b"{}", b"[" * 100_000, b"x: 'y"])
def test_a_damaged_lock_file_is_never_one_without_entries(server, tmp_path, content):
    get(server, tmp_path)
    (tmp_path / "archives/set/a.zip").unlink()
    (tmp_path / LOCK_FILE).write_bytes(content)
    text = error_of(get, server, tmp_path)
    assert f"{tmp_path / LOCK_FILE}: damaged" in text and "restore it" in text
    assert not (tmp_path / "archives/set/a.zip").exists()


@pytest.mark.timeout(60)
@given(place=st.integers(0), bit=st.integers(0, 7), cut=st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_damage_of_the_lock_file_is_noticed(place, bit, cut, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "lock.yaml"
    entries = {name: {"sha256": HASH, "bytes": 5, "source": "x", "date": "2026-01-01"} for name in ("a/b", "c")}
    whole = {name: {**entry, "checksum": checksum([name, entry])} for name, entry in entries.items()}
    data = bytearray((yaml.safe_dump(whole) + "# end\n").encode())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    file.write_bytes(data)
    try:
        found = _locked_hashes(file)
    except DataError:
        return
    assert found == whole and not cut


def test_an_entry_of_the_lock_file_may_be_removed_by_hand(server, tmp_path):
    get(server, tmp_path)
    file = tmp_path / LOCK_FILE
    file.write_text("# end\n")
    (tmp_path / "archives/set/a.zip").unlink()
    server.files["a.zip"] = OTHER
    assert get(server, tmp_path).read_bytes() == OTHER


@pytest.mark.parametrize(
    "note", [b"", b"[]", b'{"path": 3}', b'{"path": "a.zip"}', b'{"path": "\\u0000"}', b"\xff", b"{"]
)
def test_a_damaged_note_is_written_again(server, tmp_path, note):
    path = get(server, tmp_path)
    whole = Path(f"{path}.json").read_bytes()
    Path(f"{path}.json").write_bytes(note)
    assert get(server, tmp_path) == path and len(server.requests) == 1
    assert Path(f"{path}.json").read_bytes().replace(b"put there by hand", b"") != note
    assert len(whole) > 99 and "sha256" in read_note(Path(f"{path}.json"))
    for kind in (b"", b"[]", b'{"size": "x", "source": 3}'):
        path.with_name("a.zip.part").write_bytes(BODY[:99])
        path.with_name("a.zip.part.json").write_bytes(kind)
        path.unlink(missing_ok=True)
        assert get(server, tmp_path).read_bytes() == BODY


def test_a_place_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / "archives").write_text("no folder")
    with pytest.raises(VosarenaError, match="cannot be written to"):
        get(server, tmp_path)


def test_a_server_that_compresses_unasked(server, tmp_path):
    """A page is seen through the compression, and a file is what it was before."""
    encoded = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    with raw_server(encoded + gzip.compress(PAGE)) as url:
        sources = [{"url": url}, {"url": server.url("a.zip")}]
        assert get(server, tmp_path / "page", sources=sources).read_bytes() == BODY
        assert len(server.requests) == 1
    with raw_server(encoded + gzip.compress(BODY)) as url:
        assert get(server, tmp_path / "file", sources=[{"url": url}]).read_bytes() == BODY
    packed = gzip.compress(b"packed")
    with raw_server(encoded + packed) as url:
        wanted = remote("set/w.bin.gz", {"url": url}, sha256=sha256(packed).hexdigest())
        assert fetch_file(wanted, tmp_path / "w.bin.gz", tmp_path, POLICY).read_bytes() == packed


def test_no_way_from_an_encrypted_address_to_one_that_is_not(server, tmp_path, monkeypatch):
    class Redirect(requests.adapters.HTTPAdapter):
        def send(self, request, **_):
            answer = requests.Response()
            answer.status_code, answer.request, answer.url, answer.raw = 302, request, request.url, io.BytesIO()
            answer.headers["Location"] = server.url("a.zip")
            return answer

    @contextmanager
    def session():
        with requests.Session() as made:
            made.mount("https://", Redirect())
            yield made

    monkeypatch.setattr("vosarena.fetching.http.new_session", session)
    sources = [{"url": "https://example.org/a.zip"}]
    assert "without encryption" in error_of(get, server, tmp_path, sources=sources)
    assert get(server, tmp_path, sources=sources, sha256=HASH).read_bytes() == BODY
