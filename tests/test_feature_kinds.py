"""Features in a specification: what is refused and warned of, and how kinds reach a model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from features.cache import features_of
from features.datasets import load_manifest
from orchestrator.sweep import load_sweep

SMALL: dict[str, Any] = {"sample_rate": 8000, "seconds": 0.5, "n_fft": 256, "n_mels": 16}

ANY_INPUT = """
import torch

def make(input_shape, classes):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.LazyLinear(classes)
    )
"""


@pytest.fixture
def spec_of(write_spec, tmp_path: Path) -> Any:
    """A specification with these features and a model that takes any of them."""
    module = f"{tmp_path.name}_model"
    (tmp_path / f"{module}.py").write_text(ANY_INPUT)

    def write(kind: str, **features: Any) -> Path:
        return write_spec(
            features={"kind": kind, **SMALL, **features}, model={"name": f"{module}:make"}
        )

    return write


@pytest.mark.parametrize(
    ("kind", "features", "message"),
    [
        ("mel_image", {"size": 16}, "size: found 16; allowed a whole number from 32 to 1024"),
        ("mel_image", {"size": 64.0}, "size: found 64.0; allowed a whole number from 32 to 1024"),
        ("mel_image", {"top_db": None}, "top_db: found null; allowed a number above 0 up to 200"),
        ("mel_image", {"n_mels": 200}, "n_mels: found 200; allowed at most n_fft/2 + 1, 129"),
        ("mel_image", {"f_max": 5000}, "f_max: found 5000; allowed at most half the sample rate"),
        ("mel_image", {"n_mfcc": 13}, "n_mfcc: found unknown key 'n_mfcc'; allowed "),
        ("mfcc", {"n_mfcc": 17}, "n_mfcc: found 17; allowed at most n_mels, 16"),
        ("mfcc", {"n_mfcc": 13, "size": 64}, "size: found unknown key 'size'; allowed "),
        ("log_mel", {"n_mfcc": 13}, "n_mfcc: found unknown key 'n_mfcc'; allowed "),
        ("clip_statistics", {"n_mfcc": 16}, "n_mfcc: found 16; allowed less than n_mels, 16"),
        ("clip_statistic", {}, "kind: found 'clip_statistic'; allowed "),
    ],
)
def test_refused_in_one_line(foldgrid, spec_of, kind, features, message) -> None:
    result = foldgrid("plan", spec_of(kind, **features))
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert f" features.{message}" in line


@pytest.mark.parametrize(
    ("kind", "layout", "shape", "stored"),
    [
        ("log_mel", "bands", (16, 8), 4 * 16 * 8),
        ("mfcc", "bands", (13, 8), 4 * 13 * 8),
        ("mel_image", "image", (3, 48, 48), 48 * 48),
        ("clip_statistics", "statistics", (12,), 4 * 12),
    ],
)
def test_what_a_model_gets_and_what_is_stored(
    foldgrid, spec_of, kind: str, layout: str, shape: tuple[int, ...], stored: int
) -> None:
    own = {"mfcc": {"n_mfcc": 13}, "mel_image": {"size": 48}, "clip_statistics": {"n_mfcc": 5}}
    path = spec_of(kind, **own.get(kind, {}))
    (configuration,) = load_sweep(path).configurations
    assert (configuration.inputs.layout, configuration.inputs.shape) == (layout, shape)
    plan = json.loads(foldgrid("plan", path, "--json").out)
    assert plan["features"][0]["shape"] == list(shape)
    assert plan["feature_bytes"] == 36 * stored


def test_images_are_extracted_as_bytes(foldgrid, spec_of) -> None:
    path = spec_of("mel_image", size=32)
    for how in ("extracted", "from the cache"):
        out = foldgrid("features", path).out
        assert f"mel_image: [36, 1, 32, 32] uint8, {how}" in out


def test_both_ways_to_fit_in_one_sweep(foldgrid, spec_of, clips: Path, tmp_path: Path) -> None:
    path = spec_of("mel_image", size=32, fit={"grid": ["pad", "loop"]})
    plan = json.loads(foldgrid("plan", path, "--json").out)
    assert plan["varying"] == ["features.fit"]
    assert [f["parameters"]["fit"] for f in plan["features"]] == ["pad", "loop"]
    dataset = load_manifest(clips / "manifest.csv", clips)
    padded, looped = (
        features_of(dataset, c.features, cache=tmp_path / "cache", workers=1).array
        for c in load_sweep(path).configurations
    )
    # The clips are 0.4 s of 0.5 s: the end is silent, or the start again.
    assert not padded[..., -2:].any()
    assert looped[..., -2:].any(axis=(1, 2, 3)).all()


def test_coefficients_train_a_model(foldgrid, write_spec, tmp_path: Path) -> None:
    features = {"kind": "mfcc", **SMALL, "hop_length": 128, "n_mfcc": {"grid": [8, 13]}}
    path = write_spec(features=features, model={"name": "cnn1d"})
    result = foldgrid("run", path, "--executor", "serial", "--quiet", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    with (tmp_path / "run" / "tables" / "trials.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["features.n_mfcc"] for row in rows] == ["8", "13", "8", "13"]
    assert {row["status"] for row in rows} == {"finished"}


class TestEmptyBands:
    def test_are_said_once(self, foldgrid, spec_of) -> None:
        spaces = {"n_mels": {"grid": [16, 100]}, "fit": {"grid": ["pad", "loop"]}}
        path = spec_of("mfcc", sample_rate=16_000, n_mfcc=13, **spaces)
        result = foldgrid("plan", path, "--json")
        (warning,) = json.loads(result.out)["warnings"]
        assert warning.startswith("features.n_mels: ")
        assert "of 100 bands are empty with n_fft 256 at 16000 Hz" in warning
        assert result.err == ""

    def test_common_settings_have_none(self, foldgrid, spec_of) -> None:
        path = spec_of("log_mel", sample_rate=16_000, n_fft=1024, n_mels=80)
        assert json.loads(foldgrid("plan", path, "--json").out)["warnings"] == []
