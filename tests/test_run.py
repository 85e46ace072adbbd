"""Whole sweeps on a small dataset through the command line, with the serial executor."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from sklearn import metrics

from orchestrator.checkpoint import Checkpoint
from orchestrator.yaml_source import read

SERIAL = ("--executor", "serial", "--quiet")


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run that several tests read."""
    return {"folder": tmp_path_factory.mktemp("finished")}


@pytest.fixture
def run_dir(foldgrid, write_spec, finished: dict[str, Path]) -> Path:
    if "run" not in finished:
        out = finished["folder"] / "run"
        result = foldgrid("run", write_spec(), "--out", out, *SERIAL)
        assert result.code == 0, result.err
        finished["run"] = out
        finished["out"] = result.out  # type: ignore[assignment]
    return finished["run"]


def test_every_trial_is_a_finished_row_in_plan_order(run_dir: Path) -> None:
    trials = rows(run_dir, "trials")
    assert [(t["fold"], t["model.init"]) for t in trials] == [
        ("2", "random"),
        ("2", "xavier"),
        ("3", "random"),
        ("3", "xavier"),
    ]
    assert {t["status"] for t in trials} == {"finished"}
    assert {t["test_fold"] for t in trials} == {"1"}
    assert len(rows(run_dir, "epochs")) == 8
    for trial in trials:
        path = run_dir / "trials" / trial["trial"] / "result.json"
        assert json.loads(path.read_text())["format_version"] == 1


def test_metrics_agree_with_the_predictions(run_dir: Path) -> None:
    predictions = pd.read_csv(run_dir / "tables" / "predictions.csv")
    classes = ["low", "noise", "ticks"]
    for trial in rows(run_dir, "trials"):
        for split in ("val", "test"):
            mine = predictions[(predictions.trial == trial["trial"]) & (predictions.split == split)]
            assert len(mine) == 9
            scores = mine[[f"prob_{name}" for name in classes]].to_numpy()
            assert np.allclose(scores.sum(axis=1), 1)
            assert (np.array(classes)[scores.argmax(axis=1)] == mine.predicted).all()
            truth = mine.label
            for average, suffix in (("macro", ""), ("weighted", "_weighted")):
                expected = metrics.precision_recall_fscore_support(
                    truth, mine.predicted, average=average, zero_division=0
                )
                for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
                    assert float(trial[f"{split}_{name}{suffix}"]) == pytest.approx(value, abs=1e-9)
            accuracy = metrics.accuracy_score(truth, mine.predicted)
            assert float(trial[f"{split}_accuracy"]) == pytest.approx(accuracy, abs=1e-9)
            area = metrics.roc_auc_score(truth, scores, multi_class="ovr", labels=classes)
            assert float(trial[f"{split}_auroc"]) == pytest.approx(area, abs=1e-9)
            loss = metrics.log_loss(truth, scores, labels=classes)
            assert float(trial[f"{split}_loss"]) == pytest.approx(loss, abs=1e-6)


def test_the_confusion_matrices_are_those_of_the_predictions(run_dir: Path) -> None:
    predictions = pd.read_csv(run_dir / "tables" / "predictions.csv")
    classes = ["low", "noise", "ticks"]
    found = pd.read_csv(run_dir / "tables" / "confusion_matrices.csv")
    assert len(found.groupby(["trial", "split"])) == 8
    assert (found.clips > 0).all()
    for (trial, split), cells in found.groupby(["trial", "split"]):
        mine = predictions[(predictions.trial == trial) & (predictions.split == split)]
        expected = metrics.confusion_matrix(mine.label, mine.predicted, labels=classes)
        matrix = cells.pivot(index="label", columns="predicted", values="clips")
        matrix = matrix.reindex(index=classes, columns=classes).fillna(0)
        assert (matrix.to_numpy() == expected).all()


def test_the_test_fold_is_never_trained_or_validated_on(run_dir: Path) -> None:
    for row in rows(run_dir, "predictions"):
        fold = Path(row["clip"]).name[0]
        assert (row["split"] == "test") == (fold == "1")


def test_the_closing_lines_name_the_best_and_the_tables(run_dir: Path, finished) -> None:
    best = max(rows(run_dir, "configurations"), key=lambda r: float(r["mean_val_accuracy"]))
    assert f"best configuration: {best['configuration']} (val_accuracy mean" in finished["out"]
    assert str(run_dir / "tables") in finished["out"]


def test_the_stored_specification_is_complete_and_runs(
    tables_of, foldgrid, run_dir: Path, tmp_path: Path, clips: Path
) -> None:
    stored = read(run_dir / "spec.yaml").data
    assert stored["folds"]["validate"] == [2, 3]
    assert stored["train"]["optimizer"]["nesterov"] is False
    assert stored["data"]["root"] == str(clips)
    again = tmp_path / "again"
    assert foldgrid("run", run_dir / "spec.yaml", "--out", again, *SERIAL).code == 0
    assert tables_of(again) == tables_of(run_dir)
    assert read(again / "spec.yaml").data == stored


def test_the_environment_is_kept(run_dir: Path) -> None:
    (start, *_) = json.loads((run_dir / "environment.json").read_text())["runs"]
    assert start["packages"]["torch"].startswith("2.11")
    assert start["installed"]["torch"] == start["packages"]["torch"]
    assert len(start["data_fingerprint"]) == 64
    assert start["processor"]
    assert start["command"][1] == "run"


def test_what_may_change_the_figures_is_warned_of(
    foldgrid, write_spec, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    path = copy / "environment.json"
    stored = json.loads(path.read_text())
    del stored["checksum"]
    stored["runs"][-1]["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(stored))
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    result = foldgrid("run", write_spec(), "--out", copy, "--executor", "serial")
    assert result.code == 0
    assert "warning: not as in the last run on this directory: torch: 1.0 then, 2.11" in result.err
    assert "MKL_CBWR: not set then, AVX2 now" in result.err


def test_a_finished_run_is_not_repeated(tables_of, foldgrid, write_spec, run_dir: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_dir.glob("trials/*/result.json")}
    tables = tables_of(run_dir)
    shutil.rmtree(run_dir / "tables")
    assert foldgrid("run", write_spec(), "--out", run_dir, *SERIAL).code == 0
    assert {p: p.stat().st_mtime_ns for p in run_dir.glob("trials/*/result.json")} == before
    assert tables_of(run_dir) == tables


def test_a_lost_trial_is_run_again_and_gives_the_same_tables(
    tables_of, foldgrid, write_spec, run_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    first, second, *kept = sorted(copy.glob("trials/*/result.json"))
    first.unlink()
    second.write_text(second.read_text()[:100])
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert foldgrid("run", write_spec(), "--out", copy, *SERIAL).code == 0
    assert tables_of(copy) == tables_of(run_dir)
    assert {p: p.stat().st_mtime_ns for p in kept} == before
    assert "damaged" in (copy / "log.txt").read_text()


def test_report_rebuilds_the_tables_from_the_run_directory_alone(
    tables_of, foldgrid, run_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for part in ("plan.json", "trials"):
        source = run_dir / part
        if source.is_dir():
            shutil.copytree(source, copy / part)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    assert foldgrid("report", copy).code == 0
    assert tables_of(copy) == tables_of(run_dir)


def test_report_of_no_run_directory(foldgrid, tmp_path: Path) -> None:
    result = foldgrid("report", tmp_path / "nothing")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1


def test_another_specification_is_refused_with_the_difference(
    tables_of, foldgrid, write_spec, run_dir: Path
) -> None:
    before = tables_of(run_dir), (run_dir / "spec.yaml").read_bytes()
    result = foldgrid("run", write_spec(), "--set", "train.epochs=3", "--out", run_dir, *SERIAL)
    assert result.code == 2
    assert "train.epochs: 2 in the run directory, 3 now" in result.err
    assert (tables_of(run_dir), (run_dir / "spec.yaml").read_bytes()) == before


def test_what_may_change_between_two_calls(foldgrid, write_spec, run_dir: Path) -> None:
    free = ("execution.max_failures=5", "checkpoint.every=3", "resources.cpu=0.5")
    sets = [word for text in free for word in ("--set", text)]
    assert foldgrid("run", write_spec(), *sets, "--out", run_dir, *SERIAL).code == 0


def test_changed_data_are_another_specification(
    foldgrid, write_spec, run_dir: Path, clips: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(clips, moved)
    spec = write_spec(data={"dataset": "manifest", "manifest": str(moved / "manifest.csv")})
    assert foldgrid("run", spec, "--out", run_dir, *SERIAL).code == 0, "the root may move"
    samples, rate = soundfile.read(moved / "low" / "1-0.wav")
    soundfile.write(moved / "low" / "1-0.wav", samples * 0.5, rate)
    result = foldgrid("run", spec, "--out", run_dir, *SERIAL)
    assert result.code == 2
    assert "data: the clips are not those" in result.err


def test_extend_keeps_what_is_finished(foldgrid, write_spec, run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    before = {p: p.stat().st_mtime_ns for p in copy.glob("trials/*/result.json")}
    more = ("--set", "folds.validate=[2, 3, 4]", "--out", copy, *SERIAL)
    assert foldgrid("run", write_spec(), *more).code == 2
    assert foldgrid("run", write_spec(), *more, "--extend").code == 0
    assert len(rows(copy, "trials")) == 6
    assert {p: p.stat().st_mtime_ns for p in before} == before
    fewer = foldgrid("run", write_spec(), "--out", copy, "--extend", *SERIAL)
    assert fewer.code == 2
    assert "--extend: 2 trials of the run directory are not in the new plan" in fewer.err


MORE: dict[str, tuple[str, str]] = {
    "folds": ("folds.validate=[2]", "folds.validate=[2, 3]"),
    "values": ("model.init={grid: [xavier]}", "model.init={grid: [random, xavier, kaiming]}"),
    "repeats": ("repeats=1", "repeats=2"),
    "samples": (
        "search={method: random, samples: 1}",
        "search={method: random, samples: 3}",
    ),
}


@pytest.mark.parametrize("more", MORE)
def test_an_extended_run_is_as_one_that_was_planned_so(
    foldgrid, tables_of, write_spec, tmp_path: Path, more: str
) -> None:
    few, many = (("--set", text) for text in MORE[more])
    lr = {"choice": [0.001, 0.003, 0.01, 0.03]} if more == "samples" else 0.01
    train = {"epochs": 1, "batch_size": 8, "optimizer": {"name": "sgd", "lr": lr}}
    spec = write_spec(train=train, folds={"test": 1, "validate": [2]})
    out, whole = tmp_path / "extended", tmp_path / "whole"
    assert foldgrid("run", spec, *few, "--out", out, *SERIAL).code == 0
    before = {p: p.stat().st_mtime_ns for p in out.glob("trials/*/result.json")}
    assert before
    assert foldgrid("run", spec, *many, "--out", out, "--extend", *SERIAL).code == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(list(out.glob("trials/*/result.json"))) > len(before)
    assert foldgrid("run", spec, *many, "--out", whole, *SERIAL).code == 0
    assert tables_of(out) == tables_of(whole)


def test_extend_refuses_other_folds_under_the_same_numbers(
    foldgrid, write_spec, clips: Path, tmp_path: Path
) -> None:
    data = {"dataset": "folder", "root": str(clips), "source_pattern": r"(\w+/\d)-"}
    spec = write_spec(data=data, folds={"k": 3, "test": 1, "validate": [2]})
    out = tmp_path / "run"
    assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
    more = ("--set", "folds.validate=[2, 3]", "--out", out, "--extend", *SERIAL)
    for other in ("folds.k=4", "folds.seed=1", "folds.stratify=false"):
        result = foldgrid("run", spec, "--set", other, *more)
        assert result.code == 2
        assert other.split("=")[0] in result.err
    assert foldgrid("run", spec, *more).code == 0
    assert len(rows(out, "trials")) == 4


# Checkpoints and limits


def test_a_time_limit_saves_and_the_same_command_goes_on(
    foldgrid, tables_of, write_spec, tmp_path: Path
) -> None:
    spec = write_spec(
        model={"name": "cnn1d"},
        folds={"test": 1, "validate": [2]},
        train={"epochs": 200, "batch_size": 4},
        checkpoint={"every": 7},
    )
    whole, limited = tmp_path / "whole", tmp_path / "limited"
    assert foldgrid("run", spec, "--out", whole, *SERIAL).code == 0
    limit = ("--set", "execution.time_limit=1.5", "--out", limited, *SERIAL)
    result = foldgrid("run", spec, *limit)
    assert result.code == 1
    assert "to continue: foldgrid run" in result.out
    assert len(list(limited.glob("trials/*/checkpoint.pt"))) == 1
    assert foldgrid("run", spec, "--out", limited, *SERIAL).code == 0
    assert "goes on from epoch" in (limited / "log.txt").read_text()
    assert not list(limited.glob("trials/*/checkpoint.pt"))
    assert tables_of(limited) == tables_of(whole)


@pytest.mark.parametrize("damage", ["cut", "changed", "another"])
def test_a_damaged_checkpoint_is_named_and_the_trial_begins_anew(
    foldgrid, tables_of, write_spec, run_dir: Path, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    first, *_ = sorted(copy.glob("trials/*/result.json"))
    first.unlink()
    path = first.with_name("checkpoint.pt")
    content = bytearray(Checkpoint(first.parent.name, 1, b"payload").to_bytes())
    if damage == "changed":
        content[-1] ^= 1
    path.write_bytes({"cut": content[:-3], "changed": content, "another": b"{}"}[damage])
    result = foldgrid("run", write_spec(), "--out", copy, "--executor", "serial")
    assert result.code == 0
    assert f"{path}: damaged, not used" in result.err
    assert not path.exists()
    assert tables_of(copy) == tables_of(run_dir)


def test_a_storage_keeps_no_checkpoint_for_another_run(
    foldgrid, tables_of, write_spec, clips: Path, tmp_path: Path
) -> None:
    shared, out, whole = (tmp_path / name for name in ("shared", "run", "whole"))
    shared.mkdir()
    spec = write_spec(
        data={"dataset": "folder", "root": str(clips), "source_pattern": r"(\w+/\d)-"},
        folds={"k": 3, "test": 1, "validate": [2]},
        model={"name": "cnn1d"},
        train={"epochs": 150, "batch_size": 4},
        checkpoint={"every": 1},
        execution={"storage": str(shared)},
    )
    # The trials have the same names, but other clips in their folds.
    other = ("--set", "folds.seed=1")
    assert foldgrid("run", spec, *other, "--out", whole, *SERIAL).code == 0
    limit = ("--set", "execution.time_limit=1.5")
    assert foldgrid("run", spec, *limit, "--out", out, *SERIAL).code == 1
    assert list(shared.glob("*/*.pt"))
    shutil.rmtree(out)
    assert foldgrid("run", spec, *other, "--out", out, *SERIAL).code == 0
    assert "goes on" not in (out / "log.txt").read_text()
    assert tables_of(out) == tables_of(whole)
    assert len(list(shared.iterdir())) == 1, "only what the removed run left"


def test_a_checkpoint_of_another_kind_is_named_and_not_used(
    foldgrid, tables_of, write_spec, run_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    first, *_ = sorted(copy.glob("trials/*/result.json"))
    first.unlink()
    strange = Checkpoint(first.parent.name, 1, b"of another version")
    first.with_name("checkpoint.pt").write_bytes(strange.to_bytes())
    result = foldgrid("run", write_spec(), "--out", copy, "--executor", "serial")
    assert result.code == 0
    assert f"{first.parent.name}: begins anew, its checkpoint cannot be used" in result.err
    assert tables_of(copy) == tables_of(run_dir)


def test_lack_of_gpu_memory_fails_with_advice(foldgrid, write_spec, tmp_path: Path) -> None:
    (tmp_path / "hungry.py").write_text(
        SLEEPING.replace("time.sleep(self.seconds)", "raise __import__('torch').OutOfMemoryError")
    )
    model = {"name": "hungry:build", "params": {"seconds": 1}}
    spec = write_spec(model=model, folds={"test": 1, "validate": [2]})
    assert foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL).code == 1
    assert "try a smaller train.batch_size" in rows(tmp_path / "run", "trials")[0]["error"]


def test_a_storage_that_is_no_folder_is_refused(foldgrid, write_spec, tmp_path: Path) -> None:
    nowhere = f"execution.storage={tmp_path / 'nowhere'}"
    result = foldgrid("run", write_spec(), "--set", nowhere, "--out", tmp_path / "run", *SERIAL)
    assert result.code == 2
    assert result.err.startswith("--set execution.storage=")
    assert not (tmp_path / "run").exists()


def test_a_trial_that_takes_too_long_is_a_failed_row(foldgrid, write_spec, tmp_path: Path) -> None:
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    model = {"name": "sleeping:build", "params": {"seconds": {"grid": [0, 1000]}}}
    spec = write_spec(
        model=model,
        folds={"test": 1, "validate": [2]},
        execution={"trial_timeout": 2, "max_failures": 1},
    )
    out = tmp_path / "run"
    result = foldgrid("run", spec, "--out", out, "--executor", "serial")
    assert result.code == 1
    assert "will be tried again: TrialTimeout" in result.err
    lives, sleeps = rows(out, "trials")
    assert lives["status"] == "finished"
    assert sleeps["error"] == "TrialTimeout: no end within 2 s (execution.trial_timeout)"


SLEEPING = """
import time
from torch import nn

class Sleeping(nn.Sequential):
    def forward(self, x):
        time.sleep(self.seconds)
        return super().forward(x)

def build(input_shape, classes, seconds):
    model = Sleeping(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], classes))
    model.seconds = seconds
    return model
"""


def test_a_locked_run_directory_is_refused(foldgrid, write_spec, run_dir: Path) -> None:
    from filelock import FileLock

    with FileLock(run_dir / ".lock"):
        result = foldgrid("run", write_spec(), "--out", run_dir, *SERIAL)
    assert result.code == 2
    assert "another run" in result.err


# Data


def spoilt(clips: Path, folder: Path) -> dict[str, Any]:
    """A copy of the clips in which one cannot be decoded and one holds NaN."""
    shutil.copytree(clips, folder)
    (folder / "noise" / "4-1.wav").write_text("no audio")
    soundfile.write(folder / "low" / "2-0.wav", np.full(3000, np.nan), 8000, subtype="FLOAT")
    return {"dataset": "manifest", "manifest": str(folder / "manifest.csv")}


def test_bad_clips_are_named_and_refused(foldgrid, write_spec, clips: Path, tmp_path: Path) -> None:
    spec = write_spec(data=spoilt(clips, tmp_path / "spoilt"))
    result = foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL)
    assert result.code == 2
    assert "low/2-0.wav" in result.err
    assert "noise/4-1.wav" in result.err
    assert not (tmp_path / "run" / "tables").exists()


def test_bad_clips_are_left_out_where_asked_and_the_tables_say_so(
    foldgrid, write_spec, clips: Path, tmp_path: Path
) -> None:
    data = spoilt(clips, tmp_path / "spoilt") | {"on_bad_clip": "skip"}
    out = tmp_path / "run"
    spec = write_spec(data=data)
    for _ in range(2):
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        named = [(r["clip"], r["label"]) for r in rows(out, "skipped_clips")]
        assert named == [("low/2-0.wav", "low"), ("noise/4-1.wav", "noise")]
    used = {r["clip"] for r in rows(out, "predictions")}
    assert "low/2-0.wav" not in used
    assert "low/2-1.wav" in used


def test_a_source_in_two_folds_is_refused_or_said_in_every_table(
    tables_of, foldgrid, write_spec, clips: Path, tmp_path: Path
) -> None:
    leaky = tmp_path / "leaky.csv"
    text = (
        (clips / "manifest.csv")
        .read_text()
        .replace("low/2-0.wav,low,2,low-2", "low/2-0.wav,low,2,low-3")
    )
    leaky.write_text(text)
    data = {"dataset": "manifest", "manifest": str(leaky), "root": str(clips)}
    out = tmp_path / "run"
    result = foldgrid("run", write_spec(data=data), "--out", out, *SERIAL)
    assert result.code == 2
    assert "low-3" in result.err
    assert "low/2-0.wav (fold 2)" in result.err
    allowed = write_spec(data=data | {"allow_leakage": True})
    assert foldgrid("run", allowed, "--out", out, *SERIAL).code == 0
    for name, content in tables_of(out).items():
        assert b"leakage_allowed" in content, name


def test_a_folder_of_clips_with_folds_made_by_source(
    foldgrid, write_spec, clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    for path in clips.glob("*/*.wav"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    data = {"dataset": "folder", "root": str(folder), "source_pattern": r"(\w+/\d)-"}
    spec = write_spec(data=data, folds={"k": 4, "test": 1, "validate": [2]})
    out = tmp_path / "run"
    assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
    tested = {r["clip"].rsplit("-", 1)[0] for r in rows(out, "predictions") if r["split"] == "test"}
    validated = {
        r["clip"].rsplit("-", 1)[0] for r in rows(out, "predictions") if r["split"] == "val"
    }
    assert tested
    assert not tested & validated


def test_no_test_fold_leaves_the_test_cells_empty(foldgrid, write_spec, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = write_spec(folds={"validate": [2]})
    assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
    for trial in rows(out, "trials"):
        assert trial["trial"].endswith("-t0-f2-s0")
        assert trial["test_fold"] == trial["test_accuracy"] == trial["test_auroc"] == ""
        assert trial["val_accuracy"] != ""


def test_repeats_run_other_seeds_and_name_them(foldgrid, write_spec, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spec = write_spec(repeats=2, seed=5, model={"name": "cnn1d"})
    assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
    trials = rows(out, "trials")
    assert [(t["fold"], t["seed"]) for t in trials] == [
        ("2", "5"),
        ("2", "6"),
        ("3", "5"),
        ("3", "6"),
    ]
    assert trials[0]["val_loss"] != trials[1]["val_loss"]
    (summary,) = (out / "tables").glob("run_summary_*.csv")
    header = summary.read_text().splitlines()[0]
    assert header == "Metric,Fold 2 Seed 5,Fold 2 Seed 6,Fold 3 Seed 5,Fold 3 Seed 6"


def test_a_metric_that_a_fold_does_not_define_is_said_before_anything_starts(
    foldgrid, write_spec, clips: Path, tmp_path: Path
) -> None:
    lines = (clips / "manifest.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("ticks/3-")]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(kept) + "\n")
    data = {"dataset": "manifest", "manifest": str(manifest), "root": str(clips)}
    result = foldgrid("plan", write_spec(data=data, search={"metric": "val_auroc"}))
    assert result.code == 0, result.err
    assert "val_auroc is not defined on fold 3, which has no clip of ticks" in result.out
    assert "not defined" not in foldgrid("plan", write_spec(data=data)).out


def test_extraction_is_announced_where_there_is_any(
    foldgrid, write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path / "cache"))
    spec = write_spec()
    first = foldgrid("features", spec)
    assert "extracting log_mel: 36 clips" in first.out + first.err
    again = foldgrid("features", spec)
    assert "extracting" not in again.out + again.err


def test_a_cache_that_cannot_be_is_said_before_anything_starts(
    foldgrid, write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path / "file" / "cache"))
    result = foldgrid("run", write_spec(), "--out", tmp_path / "run", *SERIAL)
    assert result.code == 2
    assert "FOLDGRID_CACHE" in result.err


def test_a_run_directory_that_cannot_be(foldgrid, write_spec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    result = foldgrid("run", write_spec(), "--out", tmp_path / "file" / "run", *SERIAL)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["spec.yaml", "plots/roc_mine.png", "tables/run_summary_mine.csv"])
def test_a_folder_with_files_of_the_user_is_refused(
    name, foldgrid, write_spec, tmp_path: Path
) -> None:
    mine = tmp_path / "project" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = foldgrid("run", write_spec(), "--out", tmp_path / "project", *SERIAL)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert str(tmp_path / "project") in line
    assert "allowed a new or empty folder" in line
    assert mine.read_text() == "mine"
    assert [p for p in (tmp_path / "project").rglob("*") if p.is_file()] == [mine]


def test_a_folder_with_what_no_run_writes_is_taken(foldgrid, write_spec, tmp_path: Path) -> None:
    notes = tmp_path / "run" / "nohup.out"
    notes.parent.mkdir()
    notes.write_text("mine")
    result = foldgrid("run", write_spec(), "--out", notes.parent, *SERIAL)
    assert result.code == 0, result.err
    assert notes.read_text() == "mine"


@pytest.mark.parametrize("command", [("plan",), ("run", *SERIAL)])
def test_a_run_directory_among_the_clips_is_refused(
    command, foldgrid, write_spec, clips: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(clips, tmp_path / "data")
    spec = write_spec(
        data={"dataset": "folder", "root": str(root)},
        folds={"protocol": "cross_validation", "k": 2},
    )
    result = foldgrid(*command, spec, "--out", root / "results" / "tiny")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "data.root" in line
    assert "allowed --out elsewhere" in line
    assert not (root / "results").exists()


def test_more_than_this_machine_has_is_refused(foldgrid, write_spec, tmp_path: Path) -> None:
    spec = write_spec(resources={"cpu": 4096})
    result = foldgrid("run", spec, "--out", tmp_path / "run", "--quiet")
    assert result.code == 2
    assert "resources.cpu: found 4096; allowed at most" in result.err
    assert result.err.startswith(f"{spec}:")
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback_and_keeps_the_exit_code(foldgrid, tmp_path: Path) -> None:
    result = foldgrid("plan", tmp_path / "none.yaml", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith(str(tmp_path / "none.yaml"))


# A model of one's own

MODEL = """
import os
from pathlib import Path
from torch import nn

class Own(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(channels, width, 3), nn.ReLU())
        self.head = nn.Linear(width, classes)
        self.calls = 0

    def forward(self, x):
        flag = Path(os.environ["BREAKS"])
        if flag.exists() and x.mean().item() == x.mean().item() and self.broken(flag, x):
            raise RuntimeError(f"no more of {flag} at 0x7f00deadbeef")
        return self.head(self.layers(x).mean(dim=2))

    def broken(self, flag, x):
        return len(x) == int(flag.read_text())

def build(input_shape, classes, width=8):
    return Own(input_shape[0], classes, width)
"""


def own_model(write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    (tmp_path / f"{name}.py").write_text(MODEL)
    monkeypatch.setenv("BREAKS", str(tmp_path / "breaks"))
    model = {"name": f"{name}:build", "params": {"width": {"grid": [4, 8]}}}
    return write_spec(model=model, folds={"test": 1, "validate": [2, 3]})


def test_a_model_that_raises_is_a_failed_row_and_the_others_finish(
    foldgrid, write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own_model(write_spec, tmp_path, monkeypatch, "own_fails")
    # Fold 2 loses a clip, so that only its evaluation has a batch of eight.
    manifest = tmp_path / "fewer.csv"
    original = Path(read(spec).data["data"]["manifest"])
    manifest.write_text(original.read_text().replace("low/2-0.wav,low,2,low-2\n", ""))
    sets = ("--set", f"data.manifest={manifest}", "--set", f"data.root={original.parent}")
    sets = (*sets, "--set", "train.batch_size=27")
    (tmp_path / "breaks").write_text("8")
    out = tmp_path / "run"
    result = foldgrid("run", spec, *sets, "--out", out, *SERIAL)
    assert result.code == 1
    assert "2 of 4 trials finished, 2 failed" in result.out
    assert "to continue: foldgrid run" in result.out
    trials = rows(out, "trials")
    assert [(t["fold"], t["status"]) for t in trials] == [
        ("2", "failed"),
        ("2", "failed"),
        ("3", "finished"),
        ("3", "finished"),
    ]
    assert trials[0]["error"].startswith("RuntimeError: no more of breaks")
    assert "0x7f" not in trials[0]["error"]
    assert "model.params.width" in trials[0]
    assert "source" not in trials[0]
    failed = out / "trials" / trials[0]["trial"]
    assert "Traceback" in (failed / "traceback.txt").read_text()

    kept = foldgrid("run", spec, *sets, "--out", out, "--keep-failed", *SERIAL)
    assert kept.code == 1
    done = {p: p.stat().st_mtime_ns for p in out.glob("trials/*/result.json")}
    assert len(done) == 2
    (tmp_path / "breaks").unlink()
    assert foldgrid("run", spec, *sets, "--out", out, *SERIAL).code == 0
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert {t["status"] for t in rows(out, "trials")} == {"finished"}
    assert not (failed / "failure.json").exists()


def test_a_changed_model_file_is_another_specification(
    foldgrid, write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = own_model(write_spec, tmp_path, monkeypatch, "own_changes")
    assert foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL).code == 0
    stored = tmp_path / "run" / "spec.yaml"
    assert foldgrid("run", stored, "--out", tmp_path / "run", *SERIAL).code == 0
    (tmp_path / "own_changes.py").write_text(MODEL + "\n# another\n")
    result = foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL)
    assert result.code == 2
    assert "4 trials of the run directory are not in the new plan" in result.err


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("no_such_module:build", {}, "no_such_module"),
        ("own_named:nothing", {}, "nothing"),
        ("own_checked:build", {"widht": 3}, "widht"),
    ],
)
def test_a_factory_that_cannot_be_called_is_refused(
    foldgrid, write_spec, tmp_path: Path, name: str, params: dict[str, Any], words: str
) -> None:
    for module in ("own_named", "own_checked"):
        (tmp_path / f"{module}.py").write_text(MODEL)
    result = foldgrid("plan", write_spec(model={"name": name, "params": params}))
    assert result.code == 2
    assert words in result.err
    assert "Traceback" not in result.err
