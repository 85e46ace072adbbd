"""Every fault that the specification's description lists: one line, file, line, path, exit 2."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

BASE = """\
name: base
seed: 0
data: {{dataset: manifest, manifest: {manifest}}}
features:
  kind: waveform
  sample_rate: 16000
  seconds: 5.0
  windows: {{seconds: 1.0, hop: 0.5}}
folds:
  test: 1
  validate: [2, 3]
model:
  name: cnn_transformer
  heads: {{grid: [1, 2]}}
train:
  epochs: 3
  optimizer: {{name: sgd, lr: 1e-3, momentum: 0.9}}
search: {{method: grid, metric: val_accuracy}}
"""

# (line to replace, its replacement, line of the fault, path, words of the message)
CASES = [
    ("  heads: {grid: [1, 2]}", "  heds: 2", 14, "model.heds", ["unknown key", "mean heads"]),
    ("seed: 0", "sed: 0", 2, "sed", ["unknown key", "did you mean seed"]),
    ("seed: 0", "name: again", 2, "name", ["again", "line 1"]),
    ("  epochs: 3", "  epochs: three", 16, "train.epochs", ["'three'", "a whole number"]),
    ("  epochs: 3", "  epochs: [3, 5]", 16, "train.epochs", ["[3, 5]", "{grid: [...]}"]),
    ("  name: cnn_transformer", "  name: [cnn1d]", 13, "model.name", ["cnn1d", "{grid: [...]}"]),
    ("  epochs: 3", "  epochs: 3.5", 16, "train.epochs", ["3.5", "a whole number"]),
    ("  epochs: 3", "  epochs: yes", 16, "train.epochs", ["'yes'"]),
    ("  epochs: 3", "  epochs: 0", 16, "train.epochs", ["0", "from 1"]),
    ("  seconds: 5.0", "  seconds: .nan", 7, "features.seconds", ["nan"]),
    ("  seconds: 5.0", "  seconds: .inf", 7, "features.seconds", ["inf"]),
    ("  seconds: 5.0", "  seconds: -1", 7, "features.seconds", ["-1"]),
    ("  heads: {grid: [1, 2]}", "  heads: {grid: []}", 14, "model.heads.grid", ["at least one"]),
    ("  heads: {grid: [1, 2]}", "  heads: {grid: [2, 2]}", 14, "model.heads.grid.1", ["again"]),
    ("  heads: {grid: [1, 2]}", "  heads: {grid: [1, 3]}", 14, "model.heads.grid.1", ["512"]),
    ("  heads: {grid: [1, 2]}", "  heads: {grid: 2}", 14, "model.heads.grid", ["a list"]),
    (
        "  heads: {grid: [1, 2]}",
        "  dropout: {uniform: [0, 0.5]}",
        14,
        "model.dropout.uniform",
        ["search.method"],
    ),
    (
        "search: {method: grid, metric: val_accuracy}",
        "search: {method: random}",
        18,
        "search.samples",
        ["nothing"],
    ),
    (
        "search: {method: grid, metric: val_accuracy}",
        "search: {metric: test_accuracy}",
        18,
        "search.metric",
        ["'test_accuracy'", "val_accuracy"],
    ),
    (
        "search: {method: grid, metric: val_accuracy}",
        "search: {metric: accuracy}",
        18,
        "search.metric",
        ["val_accuracy"],
    ),
    ("  name: cnn_transformer", "  name: cnn_transfomer", 13, "model.name", ["cnn_transformer?"]),
    ("  kind: waveform", "  kind: wavefrom", 5, "features.kind", ["did you mean waveform"]),
    (
        "  windows: {seconds: 1.0, hop: 0.5}",
        "  windows: {seconds: 6.0, hop: 0.5}",
        8,
        "features.windows.seconds",
        ["6.0", "5.0"],
    ),
    (
        "  windows: {seconds: 1.0, hop: 0.5}",
        "  windows: {seconds: 0.1, hop: 0.5}",
        13,
        "model.name",
        ["1600", "4160"],
    ),
    ("  test: 1", "  test: 9", 10, "folds.test", ["fold 9", "1, 2, 3, 4"]),
    ("  validate: [2, 3]", "  validate: [2, 7]", 11, "folds.validate.1", ["fold 7", "1, 2, 3, 4"]),
    ("  validate: [2, 3]", "  validate: [1, 2]", 11, "folds.validate.0", ["test fold 1"]),
    ("  validate: [2, 3]", "  validate: [2, 2]", 11, "folds.validate.1", ["again"]),
    ("  validate: [2, 3]", "  validate: []", 11, "folds.validate", ["no fold"]),
    ("  validate: [2, 3]", "  k: 5", 11, "folds.k", ["5", "their own folds"]),
    (
        "  validate: [2, 3]",
        "  validate: {grid: [[2], [3]]}",
        11,
        "folds.validate",
        ["a search space", "features, model, train"],
    ),
    (
        "data: {dataset: manifest, manifest: MANIFEST}",
        "data: {dataset: esc10, root: '${NO_SUCH_VARIABLE}/x'}",
        3,
        "data.root",
        ["NO_SUCH_VARIABLE"],
    ),
    (
        "data: {dataset: manifest, manifest: MANIFEST}",
        "data: {dataset: esc10, root: /no/such/folder}",
        3,
        "data.root",
        ["/no/such/folder"],
    ),
    ("data: {dataset: manifest, manifest: MANIFEST}", "seeds: 1", 3, "seeds", ["unknown key"]),
    (
        "  optimizer: {name: sgd, lr: 1e-3, momentum: 0.9}",
        "  optimizer: {name: adam, momentum: 0.9}",
        17,
        "train.optimizer.momentum",
        ["unknown key", "lr"],
    ),
    (
        "  optimizer: {name: sgd, lr: 1e-3, momentum: 0.9}",
        "  optimizer: {lr: {loguniform: [0, 1]}}",
        17,
        "train.optimizer.lr.loguniform",
        ["above 0"],
    ),
    (
        "  optimizer: {name: sgd, lr: 1e-3, momentum: 0.9}",
        "  optimizer: {lr: '1e-3'}",
        17,
        "train.optimizer.lr",
        ["'1e-3'", "a number"],
    ),
]


@pytest.mark.parametrize("share", ["-1", "0.4", ".nan", ".inf", "2.5", "true", "most", "1/0.5"])
def test_a_share_of_a_gpu_that_is_none(foldgrid, write_spec, share: str) -> None:
    result = foldgrid("plan", write_spec(), "--set", f"resources.gpu={share}")
    assert result.code == 2
    assert f"--set resources.gpu={share}: resources.gpu: found " in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("share", "exact"),
    [("auto", 0), ("0", 0), ("2", 2), ("0.5", 0.5), ("1/3", 1 / 3), ("0.33", 1 / 3)],
)
def test_shares_of_a_gpu(foldgrid, write_spec, share: str, exact: float) -> None:
    result = foldgrid("plan", write_spec(), "--set", f"resources.gpu={share}", "--json")
    assert result.code == 0, result.err
    if share != "auto":
        assert json.loads(result.out)["resources"]["gpu"] == exact


def test_a_key_beside_a_space_is_named_where_it_comes_from(foldgrid, write_spec) -> None:
    result = foldgrid("plan", write_spec(), "--set", "model.init.choice=[random]")
    assert result.code == 2
    assert result.err.startswith(
        "--set model.init.choice=[random]: model.init.choice: found choice"
    )


@pytest.mark.parametrize(("old", "new", "line", "path", "words"), CASES)
def test_a_fault_is_named_with_file_line_and_path(
    foldgrid,
    tmp_path: Path,
    clips: Path,
    old: str,
    new: str,
    line: int,
    path: str,
    words: list[str],
) -> None:
    manifest = str(clips / "manifest.csv")
    text = BASE.format(manifest=manifest)
    old = old.replace("MANIFEST", manifest)
    assert old in text
    spec = tmp_path / "broken.yaml"
    spec.write_text(text.replace(old, new), encoding="utf-8")
    begun = time.monotonic()
    result = foldgrid("run", spec, "--out", tmp_path / "run")
    assert time.monotonic() - begun < 3
    assert result.code == 2
    assert result.out == ""
    lines = result.err.splitlines()
    named = [text for text in lines if text.startswith(f"{spec}:{line}: {path}: found ")]
    assert named, result.err
    assert "; allowed " in named[0] or "again" in named[0]
    for word in words:
        assert word in named[0]
    assert not (tmp_path / "run").exists()


def test_the_unbroken_specification_plans(foldgrid, tmp_path: Path, clips: Path) -> None:
    spec = tmp_path / "base.yaml"
    spec.write_text(BASE.format(manifest=clips / "manifest.csv"), encoding="utf-8")
    result = foldgrid("plan", spec)
    assert (result.code, result.err) == (0, "")
    assert "4 trials" in result.out


def test_all_faults_come_at_once_and_five_are_shown(foldgrid, tmp_path: Path) -> None:
    spec = tmp_path / "many.yaml"
    keys = "\n".join(f"unknown{i}: 1" for i in range(7))
    spec.write_text(f"{keys}\ndata: {{dataset: synthetic}}\n", encoding="utf-8")
    result = foldgrid("plan", spec)
    lines = result.err.splitlines()
    assert result.code == 2
    assert len(lines) == 6
    assert lines[-1] == "and 4 more"


def test_an_override_is_named_instead_of_the_file(foldgrid, write_spec) -> None:
    result = foldgrid("plan", write_spec(), "--set", "train.epochs=0")
    assert result.code == 2
    assert result.err.startswith("--set train.epochs=0: train.epochs: found 0; allowed")
    result = foldgrid("plan", write_spec(), "--set", "folds.validate.7=3")
    assert result.err.startswith("--set folds.validate.7=3: folds.validate.7: found")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found nothing"),
        ("- 1\n", "found a sequence"),
        ("a: [1\n", "not YAML"),
        ("a: &x [*x]\n", "too many or too deep"),
        ("1: 2\n", "names as keys"),
        ("name: !!python/object/apply:os.system [ls]\n", "tag"),
    ],
)
def test_text_that_is_no_specification(foldgrid, tmp_path: Path, text: str, words: str) -> None:
    spec = tmp_path / "text.yaml"
    spec.write_text(text, encoding="utf-8")
    result = foldgrid("plan", spec)
    assert result.code == 2
    assert words in result.err
    assert "Traceback" not in result.err


def test_bytes_that_are_no_text(foldgrid, tmp_path: Path) -> None:
    spec = tmp_path / "bytes.yaml"
    spec.write_bytes(b"name: \xff\xfe\x00")
    result = foldgrid("plan", spec)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
