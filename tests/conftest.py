"""What the tests share: a small dataset on disk, the command line in this process, one Ray."""

from __future__ import annotations

import csv
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from orchestrator import cli
from orchestrator.yaml_source import dump

pytest.register_assert_rewrite("predicted")

collect_ignore = ["benchmarks"]
"""Scripts, run by tests as a user runs them."""

CLASSES = ("low", "noise", "ticks")
FOLDS = (1, 2, 3, 4)
RATE = 8000


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    """No cache, cluster or working directory of the user's own."""
    monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@functools.cache
def _pixel() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def _pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose each picture, but turn it into pixels only where a test is marked `pictures`.

    Pixels take two of the three seconds of a small sweep.
    """
    if "pictures" not in request.keywords:
        monkeypatch.setattr("orchestrator.plot_folder._png", lambda figure: _pixel())


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def foldgrid(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process: `foldgrid('plan', path)`."""

    def command(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["foldgrid", *(str(a) for a in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return command


def _sound(label: str, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(0.4 * RATE)) / RATE
    noise = rng.normal(0, 0.05, time.size)
    if label == "low":
        return 0.5 * np.sin(2 * np.pi * rng.uniform(150, 300) * time) + noise
    if label == "noise":
        return rng.normal(0, 0.2, time.size)
    ticks = np.zeros(time.size)
    ticks[:: int(rng.integers(300, 500))] = 0.9
    return ticks + noise


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 3 classes x 4 folds x 3 clips of 0.4 s, and their manifest.csv."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    rows = []
    for label in CLASSES:
        for fold in FOLDS:
            for take in range(3):
                path = f"{label}/{fold}-{take}.wav"
                (root / label).mkdir(exist_ok=True)
                soundfile.write(root / path, _sound(label, rng).clip(-1, 1), RATE)
                rows.append([path, label, fold, f"{label}-{fold}"])
    with (root / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "fold", "source"], *rows])
    return root


def tiny(clips: Path, **changes: Any) -> dict[str, Any]:
    """A specification of two configurations on two validation folds, two epochs each."""
    spec: dict[str, Any] = {
        "name": "tiny",
        "data": {"dataset": "manifest", "manifest": str(clips / "manifest.csv")},
        "features": {
            "kind": "log_mel",
            "sample_rate": RATE,
            "seconds": 0.5,
            "n_fft": 256,
            "hop_length": 128,
            "n_mels": 16,
        },
        "folds": {"test": 1, "validate": [2, 3]},
        "model": {"name": "cnn1d", "init": {"grid": ["random", "xavier"]}},
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        },
    }
    return spec | changes


@pytest.fixture(scope="session")
def spec_of(clips: Path) -> Callable[..., dict[str, Any]]:
    """The tiny specification as a mapping, changed by section."""
    return functools.partial(tiny, clips)


@pytest.fixture
def write_spec(tmp_path: Path, clips: Path) -> Callable[..., Path]:
    """Write the tiny specification, changed by section, and give its path."""

    def write(name: str = "tiny.yaml", **changes: Any) -> Path:
        path = tmp_path / name
        path.write_text(dump(tiny(clips, **changes)), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(foldgrid: Command, tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """Run a specification serially; the run directory and what was said."""

    def run(spec: Path, *options: object, name: str = "run", code: int = 0) -> tuple[Path, str]:
        given = options or ("--executor", "serial")
        result = foldgrid("run", spec, "--out", tmp_path / name, "--quiet", *given)
        assert result.code == code, result.err
        return tmp_path / name, result.out

    return run


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A real Ray of two CPUs, started once for the session."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": 200 * 2**20,
        },
    )
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def tables_of() -> Callable[[Path], dict[str, bytes]]:
    """Every table that must be equal between equal runs, by name."""

    def tables(run_dir: Path) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in sorted((run_dir / "tables").glob("*.csv"))
            if path.name != "timings.csv"
        }

    return tables
