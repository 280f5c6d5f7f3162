"""Files at URLs: what is read and written there by the commands, over HTTP to a server of the S3 kind."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from PIL import Image

from sap_ros.places import Existing, check_output, fetched, is_url, place, write_whole, written

pytest.importorskip("upath", reason="universal-pathlib is not installed")


def sap(*arguments, **environment):
    command = [sys.executable, "-m", "sap_ros.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def bucket(monkeypatch):
    """The URL of an empty bucket, on a server in this process."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # s3fs keeps its connections by the options that it was given, and the tests' servers come and go.
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    urlopen(f"{settings['AWS_ENDPOINT_URL']}/moto-api/reset", b"").close()  # of all servers here
    import boto3

    boto3.client("s3").create_bucket(Bucket="panoramas")
    yield "s3://panoramas"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, one of them in a folder of its own, with a disk ahead; and their prompts."""
    folder = tmp_path / "pictures"
    (folder / "night").mkdir(parents=True)
    image = np.full((256, 512, 3), 200, np.uint8)
    cv2.circle(image, (256, 128), 30, (220, 60, 30), -1)
    for name in ("a.png", "b.jpg", "night/c.png"):
        Image.fromarray(image).save(folder / name)
    disk = cv2.circle(np.zeros((256, 512), np.uint8), (256, 128), 30, 255, -1)
    Image.fromarray(disk).save(folder / "disk.png")
    (folder / "prompts.csv").write_text(
        "picture,id,u,v,mask\na.png,1,256,128,\nb.jpg,2,,,disk.png\nnight/c.png,3,256,128,\n"
    )
    return folder


def uploaded(folder, url):
    for path in folder.rglob("*"):
        if path.is_file():
            write_whole(place(f"{url}/{path.relative_to(folder).as_posix()}"), path.read_bytes())
    return url


def names(folder):
    start = str(folder).rstrip("/") + "/"
    return sorted(str(p).removeprefix(start) for p in place(folder).rglob("*") if p.is_file())


def contents(folder):
    """By name, without the record of what was done, which is in the order in which it was done."""
    there = [name for name in names(folder) if name != "done.jsonl"]
    return {name: place(f"{folder}/{name}").read_bytes() for name in there}


def test_paths_of_a_disk_are_what_they_were():
    assert place("a/b.png") == Path("a/b.png")
    assert place(Path("/a")) == Path("/a")
    assert place("C:/a") == Path("C:/a")
    assert not is_url(place("s3:/a"))
    assert is_url(place("memory://a/b"))
    check_output(Path("/nowhere"))  # no question of this module


def test_a_file_is_never_seen_incomplete(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"one")
    with pytest.raises(TypeError):
        write_whole(path, "text")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_renamed_or_copied_with_its_last_file_last(tmp_path):
    for folder in (tmp_path / "out", place("memory://folder/out")):
        with suppress(RuntimeError), written(folder, "last.txt") as part:
            part.mkdir()
            (part / "last.txt").write_text("")
            raise RuntimeError("the power is cut")
        assert not (folder / "last.txt").exists()
        with written(folder, "last.txt") as part:
            (part / "deep").mkdir(parents=True)
            (part / "last.txt").write_text("2")
            (part / "deep" / "z.txt").write_text("1")
        assert (folder / "deep" / "z.txt").read_text() == "1"
        assert ("deep/z.txt" in Existing(folder), "z.txt" in Existing(folder)) == (True, False)
        with fetched(folder) as copy:
            assert (copy / "deep" / "z.txt").read_text() == "1"
            assert isinstance(copy, Path)
    with (
        pytest.raises(ValueError, match="there is nothing at memory://"),
        fetched(place("memory://folder/none")),
    ):
        pass


def test_a_bucket_is_segmented_as_a_folder_is(bucket, pictures, tmp_path):
    there = uploaded(pictures, f"{bucket}/in")
    done = sap("segment", pictures, "--prompts", pictures / "prompts.csv", "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    command = ("segment", there, "--prompts", f"{there}/prompts.csv", "--out", f"{bucket}/out")
    done = sap(*command, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    local = contents(tmp_path / "o")
    assert contents(f"{bucket}/out") == local
    assert len(local) == 6
    # The same command does what is missing, and nothing else.
    place(f"{bucket}/out/objects/b.jpg.json").unlink()
    place(f"{bucket}/in/a.png").unlink()
    done = sap(*command)
    assert done.returncode == 0, done.stderr
    assert "1 segmented, 2 were there: s3://panoramas/out/masks/" in done.stdout
    assert contents(f"{bucket}/out") == local


def test_pictures_are_read_from_a_web_server(pictures, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(pictures))
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = sap(
            "segment",
            url,
            "--prompts",
            f"{url}/prompts.csv",
            "--out",
            tmp_path / "out",
            "--jobs",
            1,
        )
        wrong = sap("segment", url, "--prompts", f"{url}/prompts.csv", "--out", f"{url}/out")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "objects" / "night" / "c.png.json").exists()
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "/out cannot be written to" in wrong.stderr


def test_what_is_wrong_with_a_url_is_one_line(bucket, pictures, tmp_path):
    prompts = ("--prompts", pictures / "prompts.csv")
    for arguments, environment, named in (
        ((pictures, *prompts, "--out", "s3://gone/out"), {}, "bucket does not exist"),
        (("s3://gone/in", *prompts, "--out", tmp_path / "o"), {}, "nothing at this URL"),
        ((f"{bucket}/none", *prompts, "--out", tmp_path / "o"), {}, "nothing at this URL"),
        ((pictures, *prompts, "--out", "s4://a/out"), {}, "s4"),
        (
            (pictures, "--prompts", f"{bucket}/none.csv", "--out", tmp_path / "o"),
            {},
            "none.csv",
        ),
        (
            (pictures, *prompts, "--out", f"{bucket}/out"),
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
            "Could not connect",
        ),
        (
            (pictures, *prompts, "--out", f"{bucket}/out"),
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "credentials",
        ),
    ):
        done = sap("segment", *arguments, **environment)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert named in done.stderr


def test_wrong_credentials_are_said(bucket):
    server = os.environ["AWS_ENDPOINT_URL"]

    def check_from_now_on(requests):
        """Credentials are checked after this number of requests, in this process."""
        kind = {"Content-Type": "text/plain"}
        urlopen(Request(f"{server}/moto-api/reset-auth", requests, kind)).close()

    check_from_now_on(b"0")
    try:
        with pytest.raises(ValueError, match="access is denied, see the credentials"):
            check_output(place(f"{bucket}/out"))
    finally:
        check_from_now_on(b"inf")


def test_a_missing_package_is_named():
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from sap_ros.places import place\n"
        "try:\n    place('s3://panoramas/in')\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'pip install ".[remote]"' in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


def test_a_picture_takes_two_requests_to_read_and_two_to_write(bucket, pictures, monkeypatch):
    from werkzeug.serving import WSGIRequestHandler

    there, requests = uploaded(pictures, f"{bucket}/in"), []

    def noted(self, *_):
        requests.append((self.command, self.path.partition("?")[0]))

    monkeypatch.setattr(WSGIRequestHandler, "log_request", noted)
    done = sap("segment", there, "--prompts", pictures / "prompts.csv", "--out", f"{bucket}/out")
    assert done.returncode == 0, done.stderr
    of_a = [(method, path) for method, path in requests if "a.png" in path]
    assert of_a == [
        ("HEAD", "/panoramas/in/a.png"),
        ("GET", "/panoramas/in/a.png"),
        ("PUT", "/panoramas/out/masks/a.png.png"),
        ("PUT", "/panoramas/out/objects/a.png.json"),
    ]


def test_videos_are_made_evaluated_and_replayed_in_a_bucket(bucket, tmp_path):
    pytest.importorskip("rosbags")
    drive, made = f"{bucket}/drive", ("--count", 2, "--width", 512, "--frames", 3)
    for folder in (drive, tmp_path / "drive"):
        done = sap("synth", "moving", "--out", folder, *made)
        assert done.returncode == 0, done.stderr
    assert contents(drive) == contents(tmp_path / "drive")

    scored = ("eval", "video", drive, "--prompt", "clicks", "--out", f"{bucket}/scores")
    done = sap(*scored, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    tracks = place(f"{bucket}/scores/tracks.jsonl").read_text().split("\n\n")
    assert {json.loads(line)[0]["video"] for line in tracks} == {"00000000", "00000001"}
    before = place(f"{bucket}/scores/tracks.jsonl").read_text()
    assert sap(*scored).returncode == 0  # there is nothing left to do
    assert place(f"{bucket}/scores/tracks.jsonl").read_text() == before

    stills = ("eval", drive, "--strategy", "direct", "--limit", 1, "--out", f"{bucket}/stills")
    done = sap(*stills)
    assert done.returncode == 0, done.stderr
    assert {"report.html", "results.json", "scores.jsonl"} <= {*names(f"{bucket}/stills")}

    bags, local = [], []
    for name in ("00000000", "00000001"):
        local.append(tmp_path / "bags" / name)
        done = sap("bag", tmp_path / "drive" / "JPEGImages" / name, "--out", local[-1], "--rate", 4)
        assert done.returncode == 0, done.stderr
        bags.append(uploaded(local[-1], f"{bucket}/bags/{name}"))
    point = ("--point", "256,150")
    done = sap("replay", *local, *point, "--out", tmp_path / "replayed")
    assert done.returncode == 0, done.stderr
    done = sap("replay", *bags, *point, "--out", f"{bucket}/replayed")
    assert done.returncode == 0, done.stderr
    here, there = contents(tmp_path / "replayed"), contents(f"{bucket}/replayed")
    assert here.keys() == there.keys()
    masks = [name for name in here if name.endswith(".mcap")]
    assert len(masks) == 2
    assert all(here[name] == there[name] for name in masks)
    assert {"report.html", "summary.csv"} <= here.keys()
