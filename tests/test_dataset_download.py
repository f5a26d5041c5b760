"""Downloads through a real HTTP server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from across.orchestrator.dataset_download import (
    MINI_IMAGENET_FILES,
    OMNIGLOT_FILES,
    DownloadError,
    RemoteFile,
    fetch_mini_imagenet,
    fetch_omniglot,
)


@dataclass
class Served:
    """What the server answers, and what it was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    """Files whose connection breaks off half-way."""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def served() -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            state.requests.append(name)
            if name not in state.files:
                self.send_error(404)
                return
            content = state.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if name in state.cut else content)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Served(f"http://127.0.0.1:{server.server_port}/python")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def remote(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name, name, "md5", hashlib.md5(content).hexdigest())


FIRST, SECOND = b"first" * 100_000, b"second" * 1000
FILES = (remote("first.zip", FIRST), remote("second.zip", SECOND))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_arrive_complete_and_only_once(served: Served, tmp_path: Path) -> None:
    served.files = {"first.zip": FIRST, "second.zip": SECOND}
    folder = tmp_path / "new" / "omniglot"
    download = fetch_omniglot(folder, base_url=served.url, files=FILES)
    assert [path.read_bytes() for path in download.files] == [FIRST, SECOND]
    assert names_in(folder) == ["first.zip", "second.zip"]
    assert str(folder) in download.message
    assert fetch_omniglot(folder, base_url=served.url, files=FILES) == download
    assert served.requests == ["first.zip", "second.zip"]


def test_what_failed_is_fetched_by_running_again(served: Served, tmp_path: Path) -> None:
    served.files = {"first.zip": FIRST, "second.zip": SECOND}
    served.cut = {"first.zip"}
    with pytest.raises(
        DownloadError, match=r"first.zip: the connection broke off, 250000 bytes before the end"
    ):
        fetch_omniglot(tmp_path, base_url=served.url, files=FILES)
    assert names_in(tmp_path) == ["second.zip"]
    served.cut = set()
    fetch_omniglot(tmp_path, base_url=served.url, files=FILES)
    assert served.requests == ["first.zip", "second.zip", "first.zip"]


def test_another_content_is_refused(served: Served, tmp_path: Path) -> None:
    served.files = {"first.zip": SECOND, "second.zip": SECOND}
    with pytest.raises(DownloadError, match=r"not the original \(md5 .*run the command again, or download"):
        fetch_omniglot(tmp_path, base_url=served.url, files=FILES)
    assert names_in(tmp_path) == ["second.zip"]


def test_a_users_own_file_is_never_overwritten(served: Served, tmp_path: Path) -> None:
    served.files = {"first.zip": FIRST, "second.zip": SECOND}
    (tmp_path / "first.zip").write_text("mine")
    with pytest.raises(DownloadError, match=r"first.zip: is there but is not the original .*move it away"):
        fetch_omniglot(tmp_path, base_url=served.url, files=FILES)
    assert (tmp_path / "first.zip").read_text() == "mine"


def test_every_failure_is_named_with_its_url(served: Served, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as error:
        fetch_omniglot(tmp_path, base_url=served.url, files=FILES)
    assert f"{served.url}/first.zip: the server answered 404" in str(error.value)
    assert f"{served.url}/second.zip: the server answered 404" in str(error.value)
    assert names_in(tmp_path) == []


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch_omniglot(tmp_path, base_url="http://127.0.0.1:9", files=FILES)


def test_a_folder_that_cannot_be_made_is_an_error(served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be made"):
        fetch_omniglot(tmp_path / "file" / "inside", base_url=served.url, files=FILES)


def test_the_class_lists_have_their_published_digests(
    served: Served, tmp_path: Path, shared_data: Path
) -> None:
    for file in MINI_IMAGENET_FILES:
        served.files[file.remote_name] = (shared_data / "mini_imagenet" / file.name).read_bytes()
    download = fetch_mini_imagenet(tmp_path, base_url=served.url)
    assert [path.name for path in download.files] == ["ravi_train.csv", "ravi_val.csv", "ravi_test.csv"]
    assert str(tmp_path / "images.zip") in download.message


def test_rebuilt_archives_are_not_taken_for_the_originals(
    served: Served, tmp_path: Path, shared_data: Path
) -> None:
    for file in OMNIGLOT_FILES:
        served.files[file.remote_name] = (shared_data / "omniglot" / file.name).read_bytes()
    with pytest.raises(DownloadError, match="not the original"):
        fetch_omniglot(tmp_path, base_url=served.url)
