"""Downloads against a server of our own: resumed, checked, refused, and never unpacked outside."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tagmask.data.datasets import download as module
from tagmask.data.datasets.download import RELEASES, Archive, download, fetch, unpack
from tagmask.errors import DataError


class _Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    breaks: int
    ranges: bool


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self):
        span = self.headers.get("Range")
        self.server.asked.append((self.path, span))
        content = self.server.files.get(self.path.rsplit("/", 1)[-1])
        if content is None:
            self.send_error(404)
            return
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with _Server(("127.0.0.1", 0), _Handler) as running:
        running.files, running.asked, running.breaks, running.ranges = {}, [], 0, True
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _archive(server, name, content, makes):
    server.files[name] = content
    url = f"http://127.0.0.1:{server.server_port}/official/{name}"
    return Archive(url, len(content), hashlib.sha256(content).hexdigest(), makes)


def _everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_official_releases_are_complete():
    assert set(RELEASES) == {"voc2012", "sbd", "coco2014"}
    for archives in RELEASES.values():
        for archive in archives:
            assert len(archive.sha256) == 64
            assert archive.size > 10**8
    with pytest.raises(DataError, match="Did you mean 'voc2012'"):
        download("voc2021", "nowhere")


def test_download_unpacks_and_does_nothing_the_second_time(server, tmp_path, monkeypatch):
    tar = _archive(
        server, "a.tgz", _tar({"kit/VOC/JPEGImages/1.jpg": b"one", "kit/VOC/x.txt": b"two"}), "kit/VOC"
    )
    packed = _archive(
        server, "b.zip", _zip({"annotations/i.json": "{}", "__MACOSX/junk": "x"}), "annotations"
    )
    monkeypatch.setitem(RELEASES, "voc2012", (tar, packed))
    seen = []
    download("voc2012", tmp_path / "data", progress=lambda *step: seen.append(step))
    assert _everything(tmp_path / "data") == [
        "annotations",
        "annotations/i.json",
        "kit",
        "kit/VOC",
        "kit/VOC/JPEGImages",
        "kit/VOC/JPEGImages/1.jpg",
        "kit/VOC/x.txt",
    ]
    assert seen[-1] == ("b.zip", packed.size, packed.size)
    asked = len(server.asked)
    download("voc2012", tmp_path / "data")
    assert len(server.asked) == asked


def test_a_mirror_is_used_instead_and_archives_can_stay(server, tmp_path, monkeypatch):
    archive = _archive(server, "a.tgz", _tar({"kit/x": b"1"}), "kit")
    elsewhere = Archive("http://nowhere.invalid/a.tgz", archive.size, archive.sha256, "kit")
    monkeypatch.setitem(RELEASES, "sbd", (elsewhere,))
    mirror = f"http://127.0.0.1:{server.server_port}/mirror/"
    download("sbd", tmp_path, mirror=mirror, keep_archives=True)
    assert server.asked == [("/mirror/a.tgz", None)]
    assert _everything(tmp_path) == ["a.tgz", "kit", "kit/x"]


def test_a_broken_connection_is_resumed(server, tmp_path):
    archive = _archive(server, "a.tgz", bytes(range(256)) * 400, "kit")
    server.breaks = 2
    assert fetch(archive, tmp_path).read_bytes() == server.files["a.tgz"]
    assert [span for _, span in server.asked] == [None, "bytes=51200-", "bytes=76800-"]


def test_a_later_run_goes_on_where_the_first_stopped(server, tmp_path):
    archive = _archive(server, "a.tgz", bytes(range(256)) * 400, "kit")
    server.breaks = 4
    with pytest.raises(DataError, match=r"96,000 of 102,400 bytes .*Repeat the command"):
        fetch(archive, tmp_path)
    assert _everything(tmp_path) == ["a.tgz.part"]
    fetch(archive, tmp_path)
    assert server.asked[-1][1] == "bytes=96000-"
    assert _everything(tmp_path) == ["a.tgz"]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    archive = _archive(server, "a.tgz", bytes(range(256)) * 400, "kit")
    server.ranges, server.breaks = False, 1
    assert fetch(archive, tmp_path).read_bytes() == server.files["a.tgz"]


def test_other_content_is_refused_and_deleted(server, tmp_path):
    archive = _archive(server, "a.tgz", b"x" * 1000, "kit")
    server.files["a.tgz"] = b"y" * 1000
    with pytest.raises(DataError, match=r"not a.tgz as published"):
        fetch(archive, tmp_path)
    assert _everything(tmp_path) == []
    server.files["a.tgz"] = b"y" * 5000
    with pytest.raises(DataError, match="sends more than was published"):
        fetch(archive, tmp_path)


def test_unreachable_servers_say_what_to_do(server, tmp_path):
    archive = _archive(server, "a.tgz", b"x", "kit")
    del server.files["a.tgz"]
    with pytest.raises(DataError, match="answers 404"):
        fetch(archive, tmp_path)
    gone = Archive("http://127.0.0.1:9/a.tgz", 5, "0" * 64, "kit")
    with pytest.raises(DataError, match=r"0 of 5 bytes .*name a mirror"):
        fetch(gone, tmp_path)


def test_a_full_disk_is_noticed_before_the_first_byte(server, tmp_path, monkeypatch):
    archive = _archive(server, "a.tgz", _tar({"kit/x": b"1"}), "kit")
    monkeypatch.setitem(RELEASES, "sbd", (archive,))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DataError, match="GiB free"):
        download("sbd", tmp_path / "new")
    assert server.asked == []


@pytest.mark.parametrize(
    "members",
    [
        {"../outside.txt": b"x", "kit/x": b"1"},
        {"/outside.txt": b"x", "kit/x": b"1", "kit/../../outside.txt": b"x"},
        {"kit/link": "../..", "kit/x": b"1"},
        {"kit/link": "/etc", "kit/link/outside.txt": b"x"},
    ],
)
def test_tar_members_cannot_leave_the_folder(tmp_path, members):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.tgz"
    path.write_bytes(_tar(members))
    with pytest.raises(DataError, match="refused"):
        unpack(path, tmp_path / "in" / "root", "kit")
    assert _everything(tmp_path) == ["in", "in/a.tgz", "in/root"]


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/abs.txt", "kit/../../outside.txt", "..\\outside.txt", "C:\\x.txt"]
)
def test_zip_members_cannot_leave_the_folder(tmp_path, name):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.zip"
    path.write_bytes(_zip({"kit/x": "1", name: "x"}))
    with pytest.raises(DataError, match="outside the folder"):
        unpack(path, tmp_path / "in" / "root", "kit")
    assert _everything(tmp_path) == ["in", "in/a.zip", "in/root"]


def test_damaged_or_other_archives_leave_nothing(tmp_path):
    whole = _tar({"kit/x": bytes(5000)})
    for content, says in (
        (whole[:40], "cannot unpack"),
        (b"text", "cannot unpack"),
        (whole, "does not hold"),
    ):
        path = tmp_path / "a.tgz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=says):
            unpack(path, tmp_path / "root", "other")
        assert _everything(tmp_path / "root") == []
