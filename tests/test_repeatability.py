"""Equal input, equal tables: whatever the order, the cache, the place or the way of running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SERIAL = ("--executor", "serial", "--quiet")
MODELS: dict[str, Any] = {
    "grid": [{"name": "cnn1d"}, {"name": "cnn_transformer", "heads": {"grid": [1, 2]}}]
}
TRAIN = {
    "epochs": 3,
    "batch_size": 8,
    "select": "best",
    "schedule": "cosine",
    "augment": {"mixup": 0.4, "time_shift": 0.3, "gain": 6},
}
FEATURES = {"kind": "log_mel", "sample_rate": 8000, "seconds": 0.5, "hop_length": 128}


@pytest.fixture
def spec(write_spec) -> Path:
    return write_spec(model=MODELS, train=TRAIN, features=FEATURES)


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, bytes]]:
    return {}


@pytest.fixture
def expected(foldgrid, tables_of, spec: Path, tmp_path: Path, kept) -> dict[str, bytes]:
    """The tables of the plainest run."""
    if "tables" not in kept:
        assert foldgrid("run", spec, "--out", tmp_path / "plain", *SERIAL).code == 0
        kept["tables"] = tables_of(tmp_path / "plain")
        assert len(kept["tables"]) > 10
    return kept["tables"]


def test_the_order_of_the_trials_does_not_matter(
    foldgrid, tables_of, spec: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    # What is planned last runs first.
    steps = ("folds.validate=[3]", "folds.validate=[2, 3]")
    parts = ("model={name: cnn_transformer, heads: {grid: [2]}}", "seed=0")
    for step, part in zip(steps, parts, strict=True):
        sets = ("--set", step, "--set", part)
        result = foldgrid("run", spec, *sets, "--out", tmp_path / "run", "--extend", *SERIAL)
        assert result.code == 0, result.err
    assert tables_of(tmp_path / "run") == expected


def test_the_cache_does_not_matter(
    foldgrid, tables_of, spec: Path, tmp_path: Path, monkeypatch, expected: dict[str, bytes]
) -> None:
    monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path / "cache"))
    for name in ("cold", "warm"):
        assert foldgrid("run", spec, "--out", tmp_path / name, *SERIAL).code == 0
        assert tables_of(tmp_path / name) == expected


def test_the_stored_specification_gives_the_same_tables_in_another_place(
    foldgrid, tables_of, spec: Path, tmp_path: Path, monkeypatch, expected: dict[str, bytes]
) -> None:
    assert foldgrid("run", spec, "--out", tmp_path / "first", *SERIAL).code == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    stored = tmp_path / "first" / "spec.yaml"
    assert foldgrid("run", stored, *SERIAL).code == 0
    assert tables_of(elsewhere / "results" / "tiny") == expected


def test_a_process_with_other_threads_and_another_hash_seed_gives_the_same_tables(
    tables_of, spec: Path, tmp_path: Path, monkeypatch, expected: dict[str, bytes]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("PYTHONHASHSEED", "17")
    monkeypatch.setenv("LC_ALL", "C")
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(spec), *SERIAL]
    subprocess.run([*command, "--out", str(tmp_path / "run")], check=True, cwd=tmp_path)
    assert tables_of(tmp_path / "run") == expected


@pytest.mark.ray
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ray_gives_the_same_tables_in_fresh_and_in_used_workers(
    foldgrid, tables_of, spec: Path, tmp_path: Path, ray_address: str, jobs: str, expected
) -> None:
    # One trial in fresh workers first, the others in whatever workers are free.
    out = tmp_path / "run"
    options = ("--out", out, "--quiet", "--address", ray_address, "--jobs", jobs)
    only = ("--set", "model={name: cnn1d}", "--set", "folds.validate=[3]")
    assert foldgrid("run", spec, *only, *options).code == 0
    result = foldgrid("run", spec, *options, "--extend")
    assert result.code == 0, result.err
    assert tables_of(out) == expected
