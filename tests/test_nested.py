"""Nested cross-validation: what is shared, what is chosen, and what the choice never sees."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median_low
from typing import Any

import numpy as np
import pytest
import soundfile

from orchestrator.yaml_source import dump

FOLDS = ("1", "2", "3", "4")
OPTIMIZER = {"name": "sgd", "lr": {"grid": [0.05, 0.0001]}}
TRAIN: dict[str, Any] = {"epochs": 3, "batch_size": 8, "select": "best", "optimizer": OPTIMIZER}
NESTED: dict[str, Any] = {
    "folds": {"protocol": "nested"},
    "model": {"name": "cnn1d"},
    "train": TRAIN,
}


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def trials(run_dir: Path, *, outer: bool = False) -> list[dict[str, str]]:
    return [row for row in rows(run_dir, "trials") if bool(row["fold"]) != outer]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, spec_of: Any) -> tuple[Path, str]:
    """A finished run of `NESTED`, and what it said."""
    folder = tmp_path_factory.mktemp("nested")
    spec = folder / "tiny.yaml"
    spec.write_text(dump(spec_of(**NESTED)), encoding="utf-8")
    command = [sys.executable, "-m", "orchestrator", "run", str(spec), "--out", str(folder / "run")]
    cache = {"FOLDGRID_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [*command, "--executor", "serial", "--quiet"],
        env=os.environ | cache,
        check=True,
        capture_output=True,
        text=True,
    )
    return folder / "run", done.stdout


def common_epoch(run_dir: Path, configuration: str, test_fold: str) -> int:
    """By `epochs.csv`: the best mean accuracy over the inner folds, then loss, then the first."""
    found = defaultdict(list)
    for row in rows(run_dir, "epochs"):
        if (row["configuration"], row["test_fold"]) == (configuration, test_fold) and row["fold"]:
            found[int(row["epoch"])].append((float(row["val_accuracy"]), float(row["val_loss"])))
    means = {e: (-fmean(a for a, _ in v), fmean(x for _, x in v)) for e, v in found.items()}
    return min(means, key=lambda epoch: (means[epoch], epoch))


def test_each_fold_is_tested_once_by_what_the_other_folds_chose(made) -> None:
    out, said = made
    inner, outer = trials(out), trials(out, outer=True)
    assert len(inner) == 2 * 4 * 3
    assert not any(row["test_accuracy"] for row in inner)
    assert [row["test_fold"] for row in outer] == list(FOLDS)
    for row in outer:
        scores = defaultdict(list)
        for trial in inner:
            if trial["test_fold"] == row["test_fold"]:
                scores[trial["configuration"]].append(float(trial["val_accuracy"]))
        best = max(scores, key=lambda one: fmean(scores[one]))
        assert row["configuration"] == best
        assert int(row["epoch"]) == common_epoch(out, best, row["test_fold"])
        assert not row["val_accuracy"]
    # Every clip is tested once, and the scores are those of the predictions.
    answers = [row for row in rows(out, "predictions") if row["split"] == "test"]
    assert len({row["clip"] for row in answers}) == len(answers) == 36
    nested = rows(out, "nested")
    for row, trial in zip(nested, outer, strict=True):
        own = [a["label"] == a["predicted"] for a in answers if a["trial"] == trial["trial"]]
        assert float(row["test_accuracy"]) == float(trial["test_accuracy"]) == fmean(own)
        assert (row["candidates"], row["inner_folds"]) == ("2", "3")
    mean = fmean(float(row["test_accuracy"]) for row in nested)
    assert f"nested cross-validation: test_accuracy mean {mean:.4f}" in said
    assert "40 of 40" not in said
    assert "28 of 28 trials finished" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Nested cross-validation: test accuracy" in page
    # The configuration's score is over four folds, each of which has validated three times.
    assert "over 12 trials: " in said
    assert " over 4 folds" in page


def test_two_inner_trials_that_are_one_training_are_trained_once(made, run, write_spec) -> None:
    out, _ = made
    started = {row["trial"]: row["started"] for row in rows(out, "timings")}
    pairs = defaultdict(set)
    for row in trials(out):
        folds = frozenset((row["test_fold"], row["fold"]))
        pairs[row["configuration"], folds].add(started[row["trial"]])
    assert len(pairs) == 12
    assert all(len(starts) == 1 for starts in pairs.values())
    apart, _ = run(
        write_spec(**NESTED | {"train": TRAIN | {"early_stopping": {"patience": 50}}}), name="apart"
    )
    # With early stopping the one may end before the other; here it never does.
    assert len({row["started"] for row in rows(apart, "timings")}) == 24 + 4
    scores = [[row["val_loss"] for row in trials(one)] for one in (out, apart)]
    assert scores[0] == scores[1]


def test_without_a_best_epoch_it_is_trained_as_long_as_the_inner_folds_were(
    run, write_spec
) -> None:
    stopping = {"patience": 1, "min_delta": 0.05}
    train = TRAIN | {"epochs": 6, "select": "last", "early_stopping": stopping}
    out, _ = run(write_spec(**NESTED | {"train": train}))
    lengths = defaultdict(list)
    for row in trials(out):
        lengths[row["configuration"], row["test_fold"]].append(int(row["epoch"]) + 1)
    found = trials(out, outer=True)
    wanted = [median_low(lengths[row["configuration"], row["test_fold"]]) for row in found]
    assert [int(row["epoch"]) + 1 for row in found] == wanted
    assert len({length for one in lengths.values() for length in one}) > 1


def test_nothing_that_is_chosen_for_a_fold_depends_on_it(
    made, run, write_spec, clips, tmp_path
) -> None:
    before, _ = made
    copy = tmp_path / "copy"
    shutil.copytree(clips, copy)
    rng = np.random.default_rng(5)
    for path in copy.glob("*/2-*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, rng.uniform(-0.9, 0.9, samples.size), rate)
    data = {"dataset": "manifest", "manifest": str(copy / "manifest.csv")}
    after, _ = run(write_spec(**NESTED, data=data), name="after")
    unlike = {"average_val_accuracy"}  # a mean over other folds' trials too
    changed = {
        row["trial"]
        for row, other in zip(trials(before), trials(after), strict=True)
        if any(row[name] != other[name] for name in row.keys() - unlike)
    }
    assert changed == {row["trial"] for row in trials(before) if row["test_fold"] != "2"}
    own = [
        next(row for row in trials(out, outer=True) if row["test_fold"] == "2")
        for out in (before, after)
    ]
    same = ("trial", "epoch", "train_loss", "train_accuracy")
    assert [own[0][name] for name in same] == [own[1][name] for name in same]
    assert own[0]["test_loss"] != own[1]["test_loss"]


def test_what_is_lost_is_made_again_and_nothing_else(
    made, run, write_spec, tables_of, tmp_path, ray_address
) -> None:
    spec = write_spec(**NESTED)
    out = tmp_path / "run"
    shutil.copytree(made[0], out)
    tables = tables_of(out)
    assert "nested.csv" in tables
    first, second = (row["trial"] for row in trials(out)[:6:5])
    last = trials(out, outer=True)[-1]["trial"]
    for trial in (first, second, last):
        (out / "trials" / trial / "result.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/result.json")}
    _, said = run(spec, "--address", ray_address)
    assert tables_of(out) == tables
    again = {
        p.parent.name
        for p in out.glob("trials/*/result.json")
        if p.stat().st_mtime_ns != stamps.get(p)
    }
    assert again == {first, second, last}
    _, said = run(spec)
    assert tables_of(out) == tables
    assert "28 of 28 trials finished" in said


def test_ray_gives_the_same_tables(run, write_spec, tables_of, ray_address) -> None:
    spec = write_spec(**NESTED, repeats=2)
    serial, _ = run(spec, name="serial")
    parallel, _ = run(spec, "--address", ray_address, name="parallel")
    assert tables_of(serial) == tables_of(parallel)
    assert len(trials(serial, outer=True)) == 8
    by_fold = defaultdict(set)
    for row in trials(serial, outer=True):
        by_fold[row["test_fold"]].add(row["configuration"])
    assert all(len(chosen) == 1 for chosen in by_fold.values())
    assert {row["inner_folds"] for row in rows(serial, "nested")} == {"3"}


def test_a_configuration_that_fails_is_not_chosen_and_the_others_go_on(
    run, write_spec, tmp_path
) -> None:
    (tmp_path / "fragile.py").write_text(
        "from torch import nn\n\n"
        "def build(input_shape, classes, good):\n"
        "    assert good, 'not good'\n"
        "    inputs = input_shape[0] * input_shape[1]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))\n"
    )
    model = {"name": "fragile:build", "params": {"good": {"grid": [False, True]}}}
    train = {"epochs": 1, "batch_size": 8}
    out, said = run(write_spec(**NESTED | {"model": model, "train": train}), code=1)
    assert "16 of 28 trials finished, 12 failed" in said
    assert [row["param_model.params.good"] for row in rows(out, "nested")] == ["true"] * 4
    assert {row["candidates"] for row in rows(out, "nested")} == {"1"}
    failed = [row for row in trials(out) if row["status"] == "failed"]
    assert len(failed) == 12
    assert {row["error"] for row in failed} == {"AssertionError: not good"}


@pytest.mark.parametrize(
    ("changes", "path", "allowed"),
    [
        ({"folds": {"protocol": "nested", "test": 1}}, "folds.test", "each fold tests"),
        ({"folds": {"protocol": "nested", "validate": [1]}}, "folds.validate", "in turn"),
        (
            {"train": TRAIN | {"schedule": {"name": "plateau"}}},
            "train.schedule.name",
            "with protocol nested",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(foldgrid, write_spec, changes, path, allowed) -> None:
    result = foldgrid("plan", write_spec(**NESTED | changes))
    assert result.code == 2
    assert path in result.err
    assert allowed in result.err
