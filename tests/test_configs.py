"""The specifications that come with foldgrid, and the README's."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

TRIALS = {
    "quickstart": 6,
    "esc10_cnn1d": 4,
    "esc10_cnn_transformer": 12,
    "esc10_cnn1d_grid": 24,
    "esc10_cnn_transformer_grid": 24,
    "esc10_best": 5,
    "esc10_baselines": 15,
    "spectrogram_googlenet": 1,
    "spectrogram_resnet34": 1,
    "spectrogram_batch_size": 3,
    "spectrogram_fit": 2,
    "esc10_spectrogram_googlenet": 1,
    "esc10_spectrogram_resnet34": 1,
    "esc10_spectrogram_batch_size": 3,
    "esc10_spectrogram_fit": 2,
}


def test_every_configuration_is_known_here() -> None:
    assert {path.stem for path in CONFIGS} == set(TRIALS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_plans_the_trials_it_promises(
    foldgrid, clips: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    # The folder of clips of the second report: any folder with a folder a class.
    monkeypatch.setenv("DATA", str(clips))
    if path.stem.startswith("esc10") and not os.environ.get("ESC10_DIR"):
        pytest.skip("needs the ESC-10 clips in ESC10_DIR")
    result = foldgrid("plan", path, "--json")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert plan["name"] == path.stem
    assert len(plan["trials"]) == TRIALS[path.stem]
    tested = {split["test_fold"] for split in plan["splits"]}
    if path.stem == "esc10_best":
        assert tested == {1, 2, 3, 4, 5}
    else:
        untested = "spectrogram" in path.stem or path.stem == "esc10_baselines"
        assert tested == ({None} if untested else {1})
    assert plan["warnings"] == []


def test_it_says_how_to_run_it_and_what_it_reproduces() -> None:
    for path in CONFIGS:
        first, second, *_ = path.read_text(encoding="utf-8").splitlines()
        assert first.startswith(f"# foldgrid run configs/{path.name}")
        assert second.startswith("# ")
        assert path.name in README


def test_the_readme_specification_is_one(foldgrid, tmp_path: Path) -> None:
    if not os.environ.get("ESC10_DIR"):
        pytest.skip("needs the ESC-10 clips in ESC10_DIR")
    (text,) = re.findall(r"```yaml\n(name: example.*?)```", README, flags=re.DOTALL)
    path = tmp_path / "readme.yaml"
    path.write_text(text, encoding="utf-8")
    result = foldgrid("plan", path, "--json")
    assert result.code == 0, result.err
    assert len(json.loads(result.out)["trials"]) == 3 * 2 * 3 * 4


def test_the_readme_commands_are_those_of_ci() -> None:
    commands = re.findall(r"^python3 -m venv .venv && (.*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert "foldgrid run configs/quickstart.yaml" in commands[0]
    assert "-m pytest" in commands[1]
    assert "-m pytest" in (ROOT / ".ci" / "run").read_text()


def test_the_packages_are_those_in_the_tree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
