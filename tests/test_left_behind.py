"""Nothing is left outside the run directory and the cache, by us or by what we import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WATCHED = ("HOME", "TMPDIR", *(f"XDG_{kind}_HOME" for kind in ("CACHE", "CONFIG", "DATA", "STATE")))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path: that of a Ray socket may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="fg") as folder:
        yield Path(folder).resolve()


def _foldgrid(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own that finds empty folders wherever it looks."""
    for name in (*WATCHED, "here"):
        (place / name).mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY", "MPL", "TORCH", "XDG"))}
    environment = kept | {name: str(place / name) for name in WATCHED}
    environment |= {
        "FOLDGRID_CACHE": str(place / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)],
        cwd=place / "here",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=300)
    # Where the temporary directory's path is too long for the sockets of a Ray.
    assert not list(Path("/tmp").glob(f"foldgrid-{process.pid}-*"))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _left(place: Path) -> list[str]:
    folders = [place / name for name in (*WATCHED, "here")]
    found = [path for folder in folders for path in folder.rglob("*")]
    others = set(place.iterdir()) - {*folders, place / "cache", place / "run"}
    return sorted(str(path.relative_to(place)) for path in [*found, *others])


@pytest.mark.slow
def test_by_commands_without_ray(place: Path, write_spec: Any) -> None:
    # In librosa, whose compiled functions are kept where they can.
    features = {"kind": "log_mel", "sample_rate": 8000, "seconds": 0.5, "n_fft": 256}
    spec = write_spec(features=features | {"hop_length": 128, "n_mels": 16, "backend": "librosa"})
    for arguments in (
        ("plan", spec),
        ("features", spec),
        ("data", "check", spec, "--out", place / "run" / "check.csv"),
        ("run", spec, "--executor", "serial", "--out", place / "run"),
        ("report", place / "run"),
    ):
        (place / "run").mkdir(exist_ok=True)
        done = _foldgrid(place, *arguments)
        assert done.returncode == 0, done.stderr
        assert _left(place) == [], arguments


@pytest.mark.slow
@pytest.mark.ray
def test_by_a_ray_of_our_own(place: Path, write_spec: Any) -> None:
    done = _foldgrid(place, "run", write_spec(), "--jobs", 2, "--out", place / "run")
    assert done.returncode == 0, done.stderr
    assert _left(place) == []


@pytest.mark.slow
def test_by_a_run_that_is_refused(place: Path, write_spec: Any) -> None:
    done = _foldgrid(place, "run", write_spec(seed=-1))
    assert done.returncode == 2
    assert _left(place) == []
    assert not (place / "cache").exists()
