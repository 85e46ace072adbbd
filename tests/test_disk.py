"""The disk: full, read-only and vanished folders, and files that are not what was written."""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERIAL = ("--quiet", "--executor", "serial")
RUN = [sys.executable, "-m", "orchestrator", "run"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def whole(kept: Path, foldgrid, write_spec) -> Path:
    """A finished run directory, made once; not to be changed."""
    if not kept.exists():
        assert foldgrid("run", write_spec(), "--out", kept, *SERIAL).code == 0
    return kept


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def other_digit(path: Path) -> None:
    """Change one digit of a file, in the middle of its first fraction."""
    text = path.read_text()
    changed = re.sub(r"(?<=0\.)\d", lambda m: str(9 - int(m[0])), text, count=1)
    assert changed != text
    path.write_text(changed)


# Damage


def test_a_result_with_another_digit_is_named_by_both_commands_and_made_again(
    foldgrid, tables_of, write_spec, whole: Path, copy: Path
) -> None:
    path = sorted(copy.glob("trials/*/result.json"))[1]
    other_digit(path)
    json.loads(path.read_text())
    warning = f"warning: {path}: damaged, not used: the checksum does not match"

    report = foldgrid("report", copy)
    assert report.code == 0
    assert report.err.splitlines() == [warning]
    (row,) = (r for r in (copy / "tables" / "trials.csv").open() if r.startswith(path.parent.name))
    assert ",pending," in row

    run = foldgrid("run", write_spec(), "--out", copy, *SERIAL)
    assert run.code == 0
    assert run.err.splitlines() == [warning]
    assert tables_of(copy) == tables_of(whole)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def seven(path: Path) -> None:
    path.write_text("7")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("plan.json", cut),
        ("plan.json", Path.unlink),
        ("spec.yaml", cut),
        ("spec.yaml", other_digit),
        ("environment.json", cut),
        ("environment.json", seven),
    ],
)
def test_a_damaged_file_that_can_be_made_again_is_named_and_made(
    foldgrid,
    tables_of,
    write_spec,
    whole: Path,
    copy: Path,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    damage(copy / name)
    run = foldgrid("run", write_spec(), "--out", copy, *SERIAL)
    assert run.code == 0, run.err
    assert [line for line in run.err.splitlines() if line.startswith(f"warning: {copy / name}: ")]
    assert tables_of(copy) == tables_of(whole)
    assert foldgrid("run", write_spec(), "--out", copy, *SERIAL).err == ""


@pytest.mark.parametrize("lost", ["plan.json", "spec.yaml"])
def test_another_specification_is_refused_where_a_file_is_damaged(
    foldgrid, write_spec, copy: Path, lost: str
) -> None:
    cut(copy / lost)
    other = write_spec(folds={"test": 1, "validate": [2, 3]}, seed=7)
    run = foldgrid("run", other, "--out", copy, *SERIAL)
    assert run.code == 2
    assert f"{copy}: made from another specification" in run.err


def test_without_plan_and_specification_nothing_is_believed(
    foldgrid, write_spec, copy: Path
) -> None:
    cut(copy / "plan.json")
    cut(copy / "spec.yaml")
    run = foldgrid("run", write_spec(), "--out", copy, *SERIAL)
    assert run.code == 2
    assert "what the run directory was made from is not known" in run.err
    report = foldgrid("report", copy)
    assert report.code == 2
    assert f"{copy / 'plan.json'}: damaged" in report.err


def test_a_flipped_byte_in_a_cached_feature_file_is_named_and_made_again(
    foldgrid, tables_of, write_spec, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("FOLDGRID_CACHE", str(cache))
    assert foldgrid("features", write_spec(), "--quiet").err == ""
    (array,) = cache.glob("*/features.npy")
    content = bytearray(array.read_bytes())
    content[len(content) // 2] ^= 1
    array.write_bytes(content)
    out = tmp_path / "run"
    run = foldgrid("run", write_spec(), "--out", out, *SERIAL)
    assert run.code == 0
    (line,) = run.err.splitlines()
    assert line.startswith(f"warning: {array.parent}: damaged cache entry")
    assert tables_of(out) == tables_of(whole)
    assert foldgrid("features", write_spec(), "--quiet").out.count("from the cache") == 1


# A disk that fails


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mount a small disk under a name below the test's folder."""
    mounted: list[Path] = []

    def mount(name: str, options: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "foldgrid-test", str(path)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a disk")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.rmdir()


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    foldgrid, tables_of, write_spec, whole: Path, small_disk
) -> None:
    disk = small_disk("disk", "size=96k")
    out = disk / "run"
    # Weights are larger than all the rest, and would leave no room for a record.
    spec = write_spec(execution={"keep_weights": "none"})
    run = foldgrid("run", spec, "--out", out, *SERIAL)
    assert run.code == 1
    (line,) = run.err.splitlines()
    assert re.fullmatch(rf"{out}/.*: cannot write: No space left on device", line)
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    before = {p: p.stat().st_mtime_ns for p in out.glob("trials/*/result.json")}
    assert before
    run = foldgrid("run", write_spec(), "--out", out, *SERIAL)
    assert (run.code, run.err) == (0, "")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert tables_of(out) == tables_of(whole)


@pytest.mark.parametrize("where", ["run", "cache"])
def test_a_read_only_disk_is_one_line_before_anything_starts(
    foldgrid, write_spec, small_disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    disk = small_disk("disk", "ro")
    if where == "cache":
        monkeypatch.setenv("FOLDGRID_CACHE", str(disk))
    out = disk / "run" if where == "run" else tmp_path / "run"
    run = foldgrid("run", write_spec(), "--out", out, *SERIAL)
    assert run.code == 2
    (line,) = run.err.splitlines()
    assert str(disk) in line
    assert "ead-only file system" in line


def test_a_full_cache_is_one_line(
    foldgrid, write_spec, small_disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("disk", "size=32k")
    monkeypatch.setenv("FOLDGRID_CACHE", str(disk))
    run = foldgrid("run", write_spec(), "--out", tmp_path / "run", *SERIAL)
    assert run.code == 1
    (line,) = run.err.splitlines()
    assert line.endswith("No space left on device")
    assert list(disk.iterdir()) == []


def limited(size: int) -> Callable[[], None]:
    """No file of the process may become larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [1000, 12_000])
def test_files_that_may_not_grow_are_one_line(write_spec, tmp_path: Path, size: int) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [*RUN, str(write_spec()), "--out", str(out), *SERIAL],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(size),
    )
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert "File too large" in line
    assert list(out.rglob("*.tmp")) == []


VANDAL = """
import shutil
from pathlib import Path
from torch import nn

class Vandal(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(channels, classes)

    def forward(self, x):
        for name in Path(__file__).with_name("victims").read_text().split():
            shutil.rmtree(name, ignore_errors=True)
        return self.layer(x.mean(dim=2))

def build(input_shape, classes):
    return Vandal(input_shape[0], classes)
"""


@pytest.mark.parametrize("victim", ["run", "cache", "data"])
def test_a_folder_that_vanishes_during_a_trial(
    foldgrid,
    write_spec,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    victim: str,
) -> None:
    monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path / "cache"))
    (tmp_path / f"vandal_of_{victim}.py").write_text(VANDAL)
    shutil.copytree(clips, tmp_path / "data")
    manifest = str(tmp_path / "data" / "manifest.csv")
    spec = write_spec(
        model={"name": f"vandal_of_{victim}:build"},
        data={"dataset": "manifest", "manifest": manifest},
    )
    out = tmp_path / "run"
    (tmp_path / "victims").write_text("")
    assert foldgrid("plan", spec).code == 0
    (tmp_path / "victims").write_text(str(tmp_path / victim))
    run = foldgrid("run", spec, "--out", out, *SERIAL)
    if victim == "run":
        assert run.code == 1
        (line,) = run.err.splitlines()
        assert line.startswith(f"{out}")
    else:
        # The features stay in memory, and nothing else is needed.
        assert (run.code, run.err) == (0, "")


@pytest.mark.slow
def test_a_temporary_directory_that_ray_cannot_use_is_one_line(
    write_spec, small_disk, tmp_path: Path
) -> None:
    # A long path Ray could not use anyway: its sockets lie below.
    disk = small_disk(f"/tmp/{secrets.token_hex(4)}", "size=16k")
    done = subprocess.run(
        [*RUN, str(write_spec()), "--out", str(tmp_path / "run"), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"TMPDIR": str(disk)},
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(disk.iterdir()) == []
