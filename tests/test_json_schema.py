"""`foldgrid schema`: it takes what the program takes, and refuses what an editor should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from features.spec import FEATURE_KINDS
from models.spec import MODELS
from orchestrator import FoldgridError, load_spec
from orchestrator.document import SECTIONS
from orchestrator.json_schema import json_schema
from orchestrator.yaml_source import load, read

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))
SCHEMA = Draft202012Validator(json_schema())

BASE = """
data: {dataset: synthetic}
features: {kind: log_mel, sample_rate: 8000, seconds: 0.5, n_fft: 256, hop_length: 128, n_mels: 24}
folds: {test: 1}
model: {name: cnn1d}
"""


def spec(text: str) -> dict[str, Any]:
    """The base with whole sections in its place."""
    return load(BASE, "base").data | load(text, "changes").data


def faults(data: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(data)]


def test_the_command_prints_it(foldgrid: Callable) -> None:
    result = foldgrid("schema")
    assert (result.code, result.err) == (0, "")
    printed = json.loads(result.out)
    assert printed == SCHEMA.schema
    Draft202012Validator.check_schema(printed)
    assert list(printed["properties"]) == list(SECTIONS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_specification_fits(path: Path) -> None:
    assert faults(read(path).data) == []


def test_a_stored_specification_fits(foldgrid: Callable, write_spec: Callable[..., Path]) -> None:
    # Every default is filled in there.
    assert faults(dict(load_spec(write_spec()).document)) == []


def test_every_key_is_described_or_says_it_by_its_name() -> None:
    known = SCHEMA.schema["$defs"]
    for name in ("DataSpec", "FoldsSpec", "SearchSpec", "ExecutionSpec", "TrainSpec"):
        for key, value in known[name]["properties"].items():
            assert value.get("description"), f"{name}.{key}"
    assert (
        known["LogMelSpec"]["properties"]["sample_rate"]["description"] == "Hz, after resampling."
    )
    assert known["FoldsSpec"]["properties"]["validate"]["description"].startswith("the validation")


@pytest.mark.parametrize(
    "text",
    [
        *(f"model: {{name: {name}}}" for name in MODELS if name not in ("googlenet", "resnet34")),
        *("model: {name: torchvision:resnet18, weights: DEFAULT}", "seed: 3\nname: a.b-c_d"),
        "model: {grid: [{name: cnn1d}, {name: cnn_transformer, heads: {grid: [1, 2, 4]}}]}",
        "model: {name: {grid: [cnn1d, cnn_transformer]}, init: {grid: [random, xavier]}}",
        "model: {name: cnn_transformer, heads: {grid: [1, {grid: [2, 4]}]}}",
        "train: {grid: [{epochs: 1}, {epochs: {grid: [2, 3]}}]}",
        "train: {optimizer: {lr: {grid: [1, 0.1]}}}",
        "train: {optimizer: {grid: [{name: adam}, {name: sgd, momentum: {grid: [0, 0.9]}}]}}",
        "train: {schedule: cosine, augment: {spec_augment: true, mixup: null}}",
        "train: {schedule: {name: step, milestones: {grid: [[1], [1, {grid: [2, 3]}]]}}}",
        "train: {early_stopping: {grid: [null, {patience: {grid: [2, 5]}}]}}",
        "train: {optimizer: {lr: {loguniform: [1e-4, 1e-1]}, momentum: {uniform: [0, 0.9]}},"
        " batch_size: {randint: [8, 32]}, label_smoothing: {choice: [0, 0.1]}}\n"
        "search: {method: random, samples: 2}",
        "resources: {gpu: 1/3, cpu: 0.5}\nrepeats: 2\ncheckpoint: {every: 1}",
        "features: {kind: {grid: [log_mel, mfcc]}, hop_length: 128, seconds: {grid: [1, 2.0]}}",
        "trackers: [tensorboard, {name: mlflow, uri: 'http://localhost:5000'}, {name: wandb}]",
        "format_version: 1\nfolds: {protocol: rotate}\nexecution: {time_limit: 60}",
    ],
)
def test_what_the_program_takes_it_takes(text: str) -> None:
    if "torchvision" not in text:  # would be downloaded
        load_spec(spec(text))
    assert faults(spec(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        *("modell: {name: cnn1d}", "name: .hidden", "seed: -1", "seed: '3'", "repeats: 0"),
        *("model: {name: cnn3d}", "model: {nam: cnn1d}", "model: {name: cnn1d, heads: 4}"),
        *("model: {name: cnn_transformer, heads: two}", "model: cnn1d", "model: null"),
        *("model: {name: cnn_transformer, heads: {grid: []}}", "data: {dataset: esc11}"),
        *("model: {name: cnn_transformer, heads: {grid: [1, 1]}}", "features: {kind: mel}"),
        *("model: {name: cnn_transformer, heads: {grid: [1], choice: [2]}}", "model: {grid: 3}"),
        *("model: {grid: [{name: cnn1d}, {name: cnn1d, layers: 2}]}", "train: {epochs: 1.5}"),
        *("train: {epochs: {uniform: [1, 5]}}", "train: {optimizer: {lr: {loguniform: [0, 1]}}}"),
        *("train: {optimizer: {name: adam, momentum: 0.9}}", "train: {optimizer: {momentun: 1}}"),
        *("train: {schedule: step}", "train: {schedule: {name: step}}", "train: {epochs: null}"),
        *("train: {augment: {mixup: true}}", "train: {early_stopping: {patience: {grid: [0]}}}"),
        *("search: {method: {grid: [grid, random]}}", "search: {metric: test_accuracy}"),
        *("resources: {gpu: 2/3}", "folds: {validate: 2}", "folds: {valdate: [2]}"),
        *("trackers: mlflow", "trackers: [mlflw]", "trackers: [{name: wandb, uri: 'a:b'}]"),
        *("execution: {storage: 3}", "format_version: 2", "features: {kind: log_mel, windows: 1}"),
    ],
)
def test_what_it_refuses_the_program_refuses_too(text: str) -> None:
    assert faults(spec(text))
    with pytest.raises(FoldgridError):
        load_spec(spec(text))


@pytest.mark.parametrize("section", ["data", "features", "model"])
def test_what_is_required(section: str) -> None:
    data = load(BASE, "base").data
    del data[section]
    assert faults(data) == [f"$: '{section}' is a required property"]


def test_every_kind_and_model_is_offered() -> None:
    offered = json.dumps(SCHEMA.schema["$defs"]["features.kind"])
    assert all(f'"{kind}"' in offered for kind in FEATURE_KINDS)
    offered = json.dumps(SCHEMA.schema["$defs"]["model.name"])
    assert all(f'"{name}"' in offered for name in MODELS)
