from __future__ import annotations

import csv
import fcntl
import gzip
import hashlib
import io
import os
import random
import re
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from features import download, urbansound8k
from features.datasets import load_esc10, load_esc50, load_urbansound8k
from features.fetch import SOURCES, FetchError, Source, fetch_dataset

ESC10 = (
    "dog",
    "rain",
    "sea_waves",
    "crying_baby",
    "clock_tick",
    "sneezing",
    "helicopter",
    "chainsaw",
    "rooster",
    "crackling_fire",
)
LINE = re.compile(r"[^\n]+")


def noise(seed: int, size: int = 10_000) -> bytes:
    return random.Random(seed).randbytes(size)


def esc50_files() -> dict[str, bytes]:
    """ESC-50's layout with 50 classes in one fold; every fifth target is one of ESC-10's."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    files = {"README.md": b"ESC-50", "LICENSE": b"CC"}
    for target in range(50):
        ten = target % 5 == 0
        category = ESC10[target // 5] if ten else f"class_{target}"
        name = f"1-{1000 + target}-A-{target}.wav"
        rows.append(f"{name},1,{target},{category},{ten},{1000 + target},A")
        files[f"audio/{name}"] = noise(target)
    files["meta/esc50.csv"] = "\n".join(rows).encode() + b"\n"
    return files


def urbansound8k_files() -> dict[str, bytes]:
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    files = {"audio/fold1/.DS_Store": b"x"}
    for label, name in enumerate(urbansound8k.CLASSES):
        fold = label + 1
        rows.append(f"{100 + label}-{label}-0-0.wav,{100 + label},0,4,1,{fold},{label},{name}")
        files[f"audio/fold{fold}/{100 + label}-{label}-0-0.wav"] = noise(label)
    files["metadata/UrbanSound8K.csv"] = "\n".join(rows).encode()
    return files


def zipped(files: dict[str, bytes], folder: str = "ESC-50-abc") -> bytes:
    """The same bytes whenever it is called: of no date."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in {"": b"", **files}.items():
            info = zipfile.ZipInfo(f"{folder}/{name}")
            info.external_attr = (0o100600 if name else 0o40775) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def tarred(files: dict[str, bytes], folder: str = "UrbanSound8K") -> bytes:
    stream = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as zipped_stream,
        tarfile.open(fileobj=zipped_stream, mode="w") as archive,
    ):
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@dataclass
class Server:
    """What the server has and how it behaves.

    Attributes:
        content: of the one file.
        ranges: whether it continues a download.
        tag: the file's version.
        length: whether it says how long the file is.
        breaks: for each coming request the bytes after which the connection is closed, a status
            to answer with instead (negative), or None.
        asked: the Range header of each request so far.
    """

    address: str
    content: bytes = b""
    ranges: bool = True
    tag: str = '"1"'
    length: bool = True
    breaks: list[int | None] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


def handler_of(state: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            stop = state.breaks.pop(0) if state.breaks else None
            if stop is not None and stop < 0:
                self.send_error(-stop)
                return
            first = int(wanted[6:-1]) if wanted and state.ranges else 0
            if self.headers.get("If-Range", state.tag) != state.tag:
                first = 0
            if first and first >= len(state.content):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            if first:
                size = len(state.content)
                self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            if state.length:
                self.send_header("Content-Length", str(len(state.content) - first))
            if state.tag:
                self.send_header("ETag", state.tag)
            self.end_headers()
            self.wfile.write(state.content[first:][:stop])

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(download, "TIMEOUTS", (5.0, 1.0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    state = Server("")
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    state.address = f"http://127.0.0.1:{http.server_address[1]}/file"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def source_of(server: Server, name: str = "esc50", content: bytes = b"", **changes: object):
    """The real entry with the server's address and a small archive's properties."""
    if not content:
        tar = name == "urbansound8k"
        content = tarred(urbansound8k_files()) if tar else zipped(esc50_files())
    server.content = server.content or content
    source = replace(
        SOURCES[name],
        address=server.address,
        size=len(content),
        checksum=f"sha256:{hashlib.sha256(content).hexdigest()}",
        unpacked=600_000,
        inside="UrbanSound8K" if name == "urbansound8k" else "ESC-50-abc",
        clips=50 if name == "esc50" else 10,
    )
    return replace(source, **changes)  # type: ignore[arg-type]


class Fetch:
    """Calls `fetch_dataset` and keeps what it reports."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.lines: list[str] = []

    def __call__(self, source: Source, name: str = "esc50") -> Path:
        self.lines.clear()
        return fetch_dataset(name, self.target, self.lines.append, False, {name: source})

    def fails(self, source: Source, name: str = "esc50") -> str:
        with pytest.raises(FetchError) as error:
            self(source, name)
        message = str(error.value)
        assert LINE.fullmatch(message)
        return message

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.iterdir())


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    return Fetch(tmp_path / "data")


class TestWhole:
    def test_esc50(self, server: Server, fetch: Fetch):
        root = fetch(source_of(server))
        assert root == fetch.target / "ESC-50"
        assert len(load_esc50(root).clips) == 50
        assert (root / "audio" / "1-1007-A-7.wav").read_bytes() == noise(7)
        assert fetch.left == ["ESC-50"]
        assert any("CC BY-NC 3.0; cite K. J. Piczak" in line for line in fetch.lines)

    def test_esc10_is_the_part_of_esc50_that_esc10_is(self, server: Server, fetch: Fetch):
        root = fetch(source_of(server, "esc10"), "esc10")
        assert root == fetch.target / "ESC-10"
        dataset = load_esc10(root)
        assert [clip.source for clip in dataset.clips] == [str(1000 + t) for t in range(0, 50, 5)]
        assert len(list((root / "audio").iterdir())) == 10
        with (root / "meta" / "esc50.csv").open(newline="") as lines:
            assert [row["esc10"] for row in csv.DictReader(lines)] == ["True"] * 10
        assert (root / "LICENSE").is_file()

    def test_urbansound8k_from_a_tar(self, server: Server, fetch: Fetch):
        source = source_of(server, "urbansound8k")
        digest = hashlib.md5(server.content).hexdigest()
        root = fetch(replace(source, checksum=f"md5:{digest}"), "urbansound8k")
        assert len(load_urbansound8k(root).clips) == 10
        assert fetch.left == ["UrbanSound8K"]

    def test_a_second_call_downloads_nothing(self, server: Server, fetch: Fetch):
        source = source_of(server)
        root = fetch(source)
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        assert fetch(source) == root
        assert len(server.asked) == 1
        assert fetch.lines == [f"{root} is complete (50 clips): nothing to download"]
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    def test_no_length_and_a_redirect(self, server: Server, fetch: Fetch):
        server.length = False
        source = source_of(server)
        fetch(replace(source, address=server.address.replace("/file", "/moved")))
        assert fetch.left == ["ESC-50"]

    def test_a_relative_target(self, server: Server, tmp_path: Path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        root = Fetch(Path("here/data"))(source_of(server))
        assert root == tmp_path / "here" / "data" / "ESC-50"


class TestBrokenOff:
    def test_continues_within_the_call(self, server: Server, fetch: Fetch):
        source = source_of(server)
        server.breaks = [70_000]
        fetch(source)
        assert server.asked == [None, "bytes=65536-"]
        assert "continuing at 65.5 kB" in fetch.lines
        assert fetch.left == ["ESC-50"]

    def test_continues_in_a_later_call(self, server: Server, fetch: Fetch):
        source = source_of(server)
        server.breaks = [70_000, -503]
        message = fetch.fails(source)
        assert "the server answers 503 Service Unavailable" in message
        assert "65.5 kB are kept" in message
        assert fetch.left == [f"{source.file}.part", f"{source.file}.part.tag"]
        fetch(source)
        assert server.asked == [None, "bytes=65536-", "bytes=65536-"]
        assert fetch.left == ["ESC-50"]

    def test_gives_up_after_a_few_times_and_keeps_the_part(self, server: Server, fetch: Fetch):
        source = source_of(server)
        server.breaks = [70_000, 70_000, 70_000]
        message = fetch.fails(source)
        assert "broke off at 196.6 kB of " in message
        assert "the same command continues" in message
        fetch(source)
        assert server.asked[-1] == "bytes=196608-"

    def test_starts_over_where_the_server_does_not_continue(self, server: Server, fetch: Fetch):
        source = source_of(server)
        server.ranges = False
        server.breaks = [70_000]
        fetch(source)
        assert server.asked == [None, "bytes=65536-"]
        assert any("cannot continue the file" in line for line in fetch.lines)
        assert len(load_esc50(fetch.target / "ESC-50").clips) == 50

    def test_starts_over_where_the_file_has_changed(self, server: Server, fetch: Fetch):
        source = source_of(server)
        part = fetch.target / f"{source.file}.part"
        fetch.target.mkdir()
        part.write_bytes(b"x" * 50_000)
        part.with_name(f"{part.name}.tag").write_text('"0"')
        fetch(source)
        assert server.asked == ["bytes=50000-"]
        assert fetch.left == ["ESC-50"]

    def test_a_wrong_part_without_a_version_is_noticed_by_the_checksum(
        self, server: Server, fetch: Fetch
    ):
        server.tag = ""
        source = source_of(server)
        fetch.target.mkdir()
        (fetch.target / f"{source.file}.part").write_bytes(b"x" * 50_000)
        fetch(source)
        assert server.asked == ["bytes=50000-", None]
        assert "the checksum is wrong: downloading again from the start" in fetch.lines

    @pytest.mark.parametrize("more", [0, 1, 1000])
    def test_a_part_that_is_whole_or_too_long(self, server: Server, fetch: Fetch, more: int):
        source = source_of(server)
        fetch.target.mkdir()
        (fetch.target / f"{source.file}.part").write_bytes(server.content + b"x" * more)
        fetch(source)
        assert server.asked == ([None] if more else [])

    def test_a_whole_archive_is_not_downloaded_again_after_unpacking_failed(
        self, server: Server, fetch: Fetch
    ):
        source = source_of(server)
        assert "more than 2000 bytes" in fetch.fails(replace(source, unpacked=1000))
        assert fetch.left == [f"{source.file}.part"]
        fetch(source)
        assert len(server.asked) == 1


class TestAnotherFile:
    def test_wrong_checksum(self, server: Server, fetch: Fetch):
        source = source_of(server)
        message = fetch.fails(replace(source, checksum="sha256:" + "0" * 64))
        assert f"found the SHA256 {hashlib.sha256(server.content).hexdigest()}" in message
        assert "allowed 000" in message
        assert fetch.left == []
        assert len(server.asked) == 1

    def test_another_size_is_noticed_before_the_download(self, server: Server, fetch: Fetch):
        source = source_of(server)
        message = fetch.fails(replace(source, size=source.size - 1))
        assert f"found {source.size} bytes; allowed {source.size - 1}" in message

    def test_more_bytes_than_known_where_the_server_gives_no_length(
        self, server: Server, fetch: Fetch
    ):
        server.length = False
        source = source_of(server)
        message = fetch.fails(replace(source, size=source.size - 1))
        assert "found more bytes" in message

    @pytest.mark.parametrize("status", [403, 404, 429, 500])
    def test_a_refusal(self, server: Server, fetch: Fetch, status: int):
        server.breaks = [-status]
        message = fetch.fails(source_of(server))
        assert message.startswith(f"{server.address}: the server answers {status} ")
        assert f"put the file at {fetch.target / SOURCES['esc50'].file}" in message

    def test_fewer_clips_than_published(self, server: Server, fetch: Fetch):
        message = fetch.fails(source_of(server, clips=51))
        assert "found 50 clips; allowed 51 clips with meta/esc50.csv" in message
        assert "ESC-50" not in fetch.left

    def test_another_folder_in_the_archive(self, server: Server, fetch: Fetch):
        message = fetch.fails(source_of(server, content=zipped(esc50_files(), "other")))
        assert "found 0 clips and no meta/esc50.csv" in message


class TestByHand:
    def test_an_archive_put_there_is_taken_and_stays(self, server: Server, fetch: Fetch):
        source = source_of(server)
        fetch.target.mkdir()
        (fetch.target / source.file).write_bytes(server.content)
        fetch(source)
        assert server.asked == []
        assert fetch.left == [source.file, "ESC-50"] or fetch.left == ["ESC-50", source.file]

    def test_a_wrong_one_is_refused_and_stays(self, server: Server, fetch: Fetch):
        source = source_of(server)
        fetch.target.mkdir()
        (fetch.target / source.file).write_bytes(b"x" * source.size)
        message = fetch.fails(source)
        assert f"{fetch.target / source.file}: found the SHA256 " in message
        (fetch.target / source.file).write_bytes(b"x")
        assert f"found 1 bytes; allowed {source.size}" in fetch.fails(source)
        assert fetch.left == [source.file]
        assert server.asked == []


class TestOffline:
    def test_nobody_listens(self, fetch: Fetch, server: Server):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        source = source_of(server, address=f"http://127.0.0.1:{port}/file")
        message = fetch.fails(source)
        assert message.startswith(f"http://127.0.0.1:{port}/file: cannot be reached (connection re")
        assert f"put the file at {fetch.target / source.file}" in message
        assert fetch.left == []

    def test_no_such_name(self, fetch: Fetch, server: Server):
        message = fetch.fails(source_of(server, address="http://foldgrid.invalid/file"))
        assert "http://foldgrid.invalid/file: cannot be reached (the name cannot be re" in message

    def test_no_answer(self, fetch: Fetch, server: Server):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
            message = fetch.fails(source_of(server, address=address))
        assert "cannot be reached (no answer in time)" in message


class TestTarget:
    def test_another_name(self, tmp_path: Path):
        with pytest.raises(FetchError) as error:
            fetch_dataset("ESC50", tmp_path / "data", print)
        assert str(error.value) == (
            "NAME: found 'ESC50'; allowed esc10, esc50, urbansound8k (did you mean esc50?)"
        )
        assert not (tmp_path / "data").exists()

    def test_no_room(self, server: Server, fetch: Fetch):
        message = fetch.fails(source_of(server, unpacked=10**18))
        assert "of free disk space; allowed 1.0 EB or more" in message
        assert server.asked == []
        assert fetch.left == []

    def test_an_incomplete_data_set_is_not_touched(self, server: Server, fetch: Fetch):
        source = source_of(server)
        root = fetch(source)
        (root / "audio" / "1-1007-A-7.wav").unlink()
        message = fetch.fails(source)
        assert f"{root}: found 49 clips; allowed 50 clips" in message
        assert "remove it, or name another TARGET" in message
        assert len(server.asked) == 1
        assert len(list((root / "audio").iterdir())) == 49

    def test_a_file_in_the_way(self, server: Server, fetch: Fetch):
        fetch.target.write_text("a file")
        assert fetch.fails(source_of(server)).startswith(str(fetch.target))

    def test_leftovers_of_a_killed_unpacking_go(self, server: Server, fetch: Fetch):
        stale = fetch.target / ".ESC-50.unpacking" / "ESC-50-abc" / "audio"
        stale.mkdir(parents=True)
        (stale / "9-9-A-9.wav").write_bytes(b"x")
        fetch(source_of(server))
        assert fetch.left == ["ESC-50"]
        assert len(load_esc50(fetch.target / "ESC-50").clips) == 50

    def test_two_at_once(self, server: Server, fetch: Fetch):
        fetch.target.mkdir()
        holder = os.open(fetch.target, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert "another fetch is at work there" in fetch.fails(source_of(server))
        os.close(holder)
        fetch(source_of(server))


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        content = b"evil" if kind == tarfile.REGTYPE else b""
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        inner = tarfile.TarInfo(f"{name}/evil")
        inner.size = 4
        archive.addfile(inner, io.BytesIO(b"evil"))
    return stream.getvalue()


def zip_with(name: str, mode: int = 0o100644, content: bytes = b"evil") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename, info.external_attr = name, mode << 16
        archive.writestr(info, content)
    return stream.getvalue()


class TestMalicious:
    """Nothing outside the target's own temporary folder may appear, and no data set."""

    def refused(self, fetch: Fetch, server: Server, name: str, content: bytes) -> str:
        fetch.target.mkdir()
        around = sorted(fetch.target.parent.iterdir())
        source = source_of(server, name, content)
        message = fetch.fails(source, name)
        assert fetch.left == [f"{source.file}.part"]
        assert sorted(fetch.target.parent.iterdir()) == around
        return message

    @pytest.mark.parametrize("name", ["../evil", "a/../../../evil", "..", "a\\..\\evil", "C:/evil"])
    @pytest.mark.parametrize("pack", [tar_with, zip_with])
    def test_a_name_that_leads_out(self, fetch: Fetch, server: Server, name: str, pack):
        kind = "urbansound8k" if pack is tar_with else "esc50"
        assert f"member {name!r} leads out" in self.refused(fetch, server, kind, pack(name))

    @pytest.mark.parametrize("pack", [tar_with, zip_with])
    def test_an_absolute_name(self, fetch: Fetch, server: Server, tmp_path: Path, pack):
        kind = "urbansound8k" if pack is tar_with else "esc50"
        name = str(tmp_path / "evil")
        assert f"member {name!r} leads out" in self.refused(fetch, server, kind, pack(name))

    @pytest.mark.parametrize(
        ("kind", "link", "what"),
        [
            (tarfile.SYMTYPE, "/tmp", "a link"),
            (tarfile.SYMTYPE, "..", "a link"),
            (tarfile.LNKTYPE, "../../secret", "a link"),
            (tarfile.CHRTYPE, "", "a device"),
            (tarfile.FIFOTYPE, "", "a device"),
        ],
    )
    def test_links_and_devices_in_a_tar(
        self, fetch: Fetch, server: Server, kind: bytes, link: str, what: str
    ):
        content = tar_with("UrbanSound8K", kind, link)
        assert f"is {what}: not unpacked" in self.refused(fetch, server, "urbansound8k", content)

    def test_a_link_in_a_zip(self, fetch: Fetch, server: Server):
        content = zip_with("ESC-50-abc", 0o120777, b"..")
        assert "is a link: not unpacked" in self.refused(fetch, server, "esc50", content)

    def test_one_name_twice(self, fetch: Fetch, server: Server):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a", b"1")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a", b"2")
        message = self.refused(fetch, server, "esc50", stream.getvalue())
        assert "cannot be unpacked: File exists" in message

    @pytest.mark.parametrize("name", ["esc50", "urbansound8k"])
    def test_a_bomb(self, fetch: Fetch, server: Server, name: str):
        pack = tarred if name == "urbansound8k" else zipped
        content = pack({"audio/zeros.wav": bytes(10_000_000)})
        message = self.refused(fetch, server, name, content)
        assert "holds more than 1200000 bytes" in message

    @pytest.mark.parametrize("name", ["esc50", "urbansound8k"])
    def test_a_damaged_archive(self, fetch: Fetch, server: Server, name: str):
        whole = tarred(urbansound8k_files()) if name == "urbansound8k" else zipped(esc50_files())
        content = whole[: len(whole) // 2]
        assert ": damaged: " in self.refused(fetch, server, name, content)

    def test_no_archive_at_all(self, fetch: Fetch, server: Server):
        assert ": damaged: " in self.refused(fetch, server, "esc50", b"<html>" * 100)


def test_the_known_sources_are_what_the_loaders_read():
    assert {name: source.clips for name, source in SOURCES.items()} == {
        "esc10": 400,
        "esc50": 2000,
        "urbansound8k": 8732,
    }
    for source in SOURCES.values():
        assert source.address.startswith("https://")
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", source.checksum)
        assert source.file.endswith((".zip", ".tar.gz"))
