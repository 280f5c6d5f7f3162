"""download: from a real server on this machine, which also truncates, corrupts and fails."""

import hashlib
import http.server
import threading
from dataclasses import dataclass, field

import pytest

from sap_ros.core.download import cache_folder, download

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Answers with CONTENT; ``cuts`` are the bytes after which it hangs up, an answer each."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    status: int = 200
    cuts: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server():
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else len(body)
            self.wfile.write(body[:cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_address[1]}/weights.pt"
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


def _get(server, path, **kwargs):
    return download(server.url, path, SHA256, len(CONTENT), **kwargs)


def test_a_file_arrives_whole_and_is_not_asked_for_again(server, tmp_path):
    seen = []
    path = _get(server, tmp_path / "deep" / "w.pt", progress=lambda *a: seen.append(a))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    _get(server, path)
    assert len(server.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["w.pt"]


def test_a_broken_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [300_000, 500_000]
    assert _get(server, tmp_path / "w.pt").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=800000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.cuts = [100_000]
    with pytest.raises(OSError, match=r"100,000 of 2,097,152 bytes.*curl -L -o"):
        _get(server, tmp_path / "w.pt", tries=1)
    assert not (tmp_path / "w.pt").exists()
    assert _get(server, tmp_path / "w.pt").read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_is_asked_for_all_of_it(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    assert _get(server, tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_corrupt_file_is_refused_and_not_kept(server, tmp_path):
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(ValueError, match=f"should be {SHA256}"):
        _get(server, tmp_path / "w.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 503])
def test_what_the_server_refuses_is_said(server, tmp_path, status):
    server.status = status
    with pytest.raises(OSError, match=f"{server.url}.*{status}"):
        _get(server, tmp_path / "w.pt")


def test_a_server_that_is_not_there_is_said(tmp_path):
    with pytest.raises(OSError, match="could not be downloaded"):
        download("http://127.0.0.1:1/w.pt", tmp_path / "w.pt", SHA256, 5)


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("SAP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SAP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sap_ros"
