"""The winner in use: refit, predict and export through the command line, and in Python."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted import (
    CLASSES,
    PROBABILITIES,
    SERIAL,
    best_of,
    chances,
    check_ensemble,
    predictions,
    read,
    table,
)
from rich.console import Console

from features.recording import Recording
from features.spec import LogMelSpec, WaveformSpec
from orchestrator import load_model
from orchestrator.errors import InterruptionError
from orchestrator.refit import refit

RATE = 8000
TRAIN = {"epochs": 2, "batch_size": 8, "optimizer": {"lr": 0.05}, "select": "best"}


def silent() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("winner")}


@pytest.fixture
def run_dir(foldgrid, write_spec, made: dict[str, Path]) -> Path:
    """Two configurations on two folds, and the best one trained once more."""
    if "run" not in made:
        out = made["folder"] / "run"
        spec = write_spec(train=TRAIN, execution={"keep_weights": "all"})
        result = foldgrid("run", spec, "--out", out, *SERIAL)
        assert result.code == 0, result.err
        result = foldgrid("refit", out)
        assert result.code == 0, result.err
        made["refit"] = result.out  # type: ignore[assignment]
        made["run"] = out
    return made["run"]


KINDS: dict[str, dict[str, Any]] = {
    "waveform": {
        "features": {
            "kind": "waveform",
            "sample_rate": 16_000,
            "seconds": 0.6,
            "fit": "loop",
            "normalize": "peak",
            "windows": {"seconds": 0.3, "hop": 0.15},
        },
        "model": {"name": "cnn1d"},
    },
    "mel_image": {
        "features": {
            "kind": "mel_image",
            "sample_rate": RATE,
            "seconds": 0.37,
            "n_fft": 256,
            "hop_length": 128,
            "n_mels": 16,
            "size": 32,
        },
        "model": {"name": "torchvision:squeezenet1_1"},
    },
}


class TestPredict:
    @pytest.mark.parametrize("kind", KINDS)
    def test_answers_for_the_clips_of_a_split_are_those_of_the_trial(
        self, kind, foldgrid, write_spec, clips: Path, tmp_path: Path
    ) -> None:
        # A waveform is resampled, scaled and repeated; for an image a clip is a bit too long.
        train = {"epochs": 1, "batch_size": 8}
        spec = write_spec(folds={"test": 1, "validate": [2]}, train=train, **KINDS[kind])
        assert foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL).code == 0
        for split in ("val", "test"):
            expected = predictions(tmp_path / "run", split)
            result = foldgrid("predict", tmp_path / "run", *(clips / p for p in expected["clip"]))
            assert result.code == 0, result.err
            rows = table(result.out)
            assert [row["predicted"] for row in rows] == list(expected.predicted)
            assert [chances(row) for row in rows] == expected[PROBABILITIES].values.tolist()

    def test_one_clip_alone_is_answered_as_among_others(self, run_dir: Path, clips: Path) -> None:
        model = load_model(run_dir)
        paths = sorted((clips / "low").glob("*.wav"))
        together = [list(row.probabilities.values()) for row in model.predict(paths)]
        alone = [list(model.predict([path])[0].probabilities.values()) for path in paths]
        assert np.allclose(together, alone, atol=1e-6, rtol=0)

    def test_the_ensemble_is_the_mean_over_the_folds_of_the_best(
        self, foldgrid, run_dir: Path, clips: Path
    ) -> None:
        check_ensemble(foldgrid, run_dir, clips)

    def test_the_refitted_model_answers_for_the_test_fold_as_it_was_tested(
        self, foldgrid, run_dir: Path, clips: Path
    ) -> None:
        expected = read(run_dir / "refit" / "predictions.csv")
        assert len(expected) == 9
        paths = [clips / path for path in expected["clip"]]
        rows = table(foldgrid("predict", run_dir, "--model", "refit", *paths).out)
        assert [chances(row) for row in rows] == expected[PROBABILITIES].values.tolist()

    def test_the_table(self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path) -> None:
        path = clips / "low" / "1-0.wav"
        result = foldgrid("predict", run_dir, path)
        assert result.out.splitlines()[0] == ",".join(
            ["clip", "start", "end", "predicted", *PROBABILITIES]
        )
        (row,) = table(result.out)
        assert (row["clip"], row["start"], row["end"]) == (str(path), "0.0", "0.4")
        assert sum(chances(row)) == pytest.approx(1)
        written = foldgrid("predict", run_dir, path, "--out", tmp_path / "p.csv")
        assert (written.code, written.out) == (0, "")
        assert (tmp_path / "p.csv").read_text(encoding="utf-8") == result.out

    def test_another_configuration_can_be_named(self, foldgrid, run_dir: Path, clips) -> None:
        test = predictions(run_dir, "test")
        for configuration, own in test.groupby(test.trial.str.rpartition("-t1")[0]):
            expected = own.groupby("clip")[PROBABILITIES].mean()
            paths = [clips / path for path in expected.index]
            named = ("--configuration", configuration)
            rows = table(foldgrid("predict", run_dir, *paths, *named).out)
            found = [chances(row) for row in rows]
            assert np.allclose(found, expected.to_numpy(), atol=1e-12, rtol=0)
        result = foldgrid("predict", run_dir, *paths, "--configuration", "cnn1d-0")
        assert result.code == 2
        assert "--configuration: found cnn1d-0; allowed cnn1d-" in result.err


class TestLongFiles:
    def sound(self, clips: Path, folder: Path) -> Path:
        """1.95 s: four windows of 0.5 s without overlap, the last moved back to the file's end."""
        parts = [soundfile.read(path)[0] for path in sorted(clips.glob("*/1-0.wav"))]
        path = folder / "long.wav"
        soundfile.write(path, np.concatenate([*parts, *parts])[: int(1.95 * RATE)], RATE)
        return path

    def test_a_row_for_the_whole_and_one_for_each_window(
        self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        path = self.sound(clips, tmp_path)
        whole, *windows = table(foldgrid("predict", run_dir, path).out)
        assert (whole["start"], whole["end"]) == ("0.0", "1.95")
        places = [(float(row["start"]), float(row["end"])) for row in windows]
        assert places == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.45, 1.95)]
        mean = np.mean([chances(row) for row in windows], axis=0)
        assert np.allclose(chances(whole), mean, atol=1e-12, rtol=0)

    def test_a_window_is_answered_as_a_file_that_holds_it(
        self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        path = self.sound(clips, tmp_path)
        samples, _ = soundfile.read(path)
        _, *windows = table(foldgrid("predict", run_dir, path, "--hop", "0.3").out)
        assert len(windows) == 6
        for i, row in enumerate(windows):
            start = round(float(row["start"]) * RATE)
            soundfile.write(tmp_path / f"{i}.wav", samples[start : start + RATE // 2], RATE)
        cut = [tmp_path / f"{i}.wav" for i in range(6)]
        rows = table(foldgrid("predict", run_dir, *cut).out)
        assert np.allclose(
            [chances(row) for row in rows], [chances(row) for row in windows], atol=1e-6, rtol=0
        )

    @pytest.mark.parametrize("hop", ["0", "-1", "0.6", "nan", "inf"])
    def test_a_hop_that_leaves_something_out_is_refused(self, hop, foldgrid, run_dir, clips):
        result = foldgrid("predict", run_dir, clips / "low" / "1-0.wav", "--hop", hop)
        assert (result.code, result.out) == (2, "")
        assert result.err == (
            f"--hop: found {hop}; allowed seconds above 0, at most features.seconds, 0.5\n"
        )

    @settings(max_examples=200)
    @given(
        samples=st.integers(1, 5000),
        seconds=st.floats(0.05, 1.0),
        share=st.floats(0.01, 1.0),
    )
    def test_windows_hear_a_file_from_its_start_to_its_end(
        self, samples: int, seconds: float, share: float
    ) -> None:
        spec = WaveformSpec(sample_rate=1000, seconds=seconds)
        windows = Recording(np.zeros(samples, np.float32), spec).windows(seconds * share)
        assert windows[0].start == 0
        assert {w.stop - w.start for w in windows} == {min(spec.samples, samples)}
        assert samples - spec.samples * 0.1 <= windows[-1].stop <= samples
        for before, after in pairwise(windows):
            assert before.start < after.start <= before.stop


class TestBadInput:
    def test_every_bad_clip_is_named_and_nothing_is_answered(
        self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "text.wav").write_text("no sound", encoding="utf-8")
        (tmp_path / "empty.wav").touch()
        good = clips / "low" / "1-0.wav"
        result = foldgrid(
            "predict", run_dir, good, tmp_path / "text.wav", good, tmp_path / "empty.wav"
        )
        assert (result.code, result.out) == (2, "")
        first, second = result.err.splitlines()
        assert first.startswith(f"{tmp_path}/text.wav: bad clip: not decodable")
        assert second == f"{tmp_path}/empty.wav: bad clip: empty file"

    def test_what_is_no_file_is_named(self, foldgrid, run_dir: Path, tmp_path: Path) -> None:
        result = foldgrid("predict", run_dir, tmp_path / "no.wav", tmp_path)
        assert (result.code, result.out) == (2, "")
        assert result.err == f"{tmp_path}/no.wav: no such file\n{tmp_path}: no such file\n"

    def test_a_name_that_is_a_formula_is_refused(
        self, foldgrid, run_dir, clips, tmp_path, monkeypatch
    ) -> None:
        shutil.copy(clips / "low" / "1-0.wav", tmp_path / "=1+1.wav")
        monkeypatch.chdir(tmp_path)
        result = foldgrid("predict", run_dir, "=1+1.wav")
        assert (result.code, result.out) == (2, "")
        assert "=1+1.wav: a formula to spreadsheets" in result.err
        assert foldgrid("predict", run_dir, tmp_path / "=1+1.wav").code == 0

    def test_a_folder_that_is_no_run_directory(self, foldgrid, clips, tmp_path) -> None:
        for arguments in (["predict", clips / "low" / "1-0.wav"], ["refit"], ["export", "x"]):
            command, *rest = arguments
            result = foldgrid(command, tmp_path, *rest)
            assert result.code == 2
            assert result.err == f"{tmp_path}: no run directory: it has no plan.json\n"
        assert list(tmp_path.iterdir()) == []

    def test_a_model_that_there_is_not(self, foldgrid, run_dir, clips) -> None:
        result = foldgrid("predict", run_dir, clips / "low" / "1-0.wav", "--model", "best")
        assert result.code == 2
        assert result.err == "--model: found 'best'; allowed ensemble, refit\n"

    def test_damaged_weights_are_named(self, foldgrid, run_dir, clips, tmp_path) -> None:
        shutil.copytree(run_dir, tmp_path / "run")
        trial = f"{best_of(run_dir)}-t1-f2-s0"
        path = tmp_path / "run" / "trials" / trial / "weights.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        result = foldgrid("predict", tmp_path / "run", clips / "low" / "1-0.wav")
        assert result.code == 2
        assert result.err == f"{path}: it is damaged (the checksum does not match)\n"


class TestWithoutKeptWeights:
    def test_the_ensemble_says_what_to_do_and_refit_does_it(
        self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        out, clip = tmp_path / "run", clips / "low" / "1-0.wav"
        shutil.copytree(run_dir, out, ignore=shutil.ignore_patterns("weights.*", "refit"))
        result = foldgrid("predict", out, clip)
        assert (result.code, result.out) == (2, "")
        assert f"{best_of(out)}-t1-f2-s0/weights.safetensors and 1 more: missing" in result.err
        assert "allowed --model refit, after foldgrid refit" in result.err
        assert foldgrid("export", out, tmp_path / "exported").code == 2
        result = foldgrid("predict", out, clip, "--model", "refit")
        assert result.code == 2
        assert "refit.json: missing; allowed the model that foldgrid refit makes" in result.err
        assert foldgrid("refit", out).code == 0
        assert foldgrid("predict", out, clip, "--model", "refit").code == 0


class TestRefit:
    def test_it_trains_on_all_folds_but_the_test_fold(self, run_dir: Path, made) -> None:
        epochs = pd.read_csv(run_dir / "tables" / "epochs.csv")
        own = epochs[epochs.configuration == best_of(run_dir)]
        means = own.groupby("epoch")[["val_accuracy", "val_loss"]].mean()
        means["loss"] = -means.val_loss
        expected = means.sort_values(["val_accuracy", "loss"], kind="stable").index[-1] + 1
        record = json.loads((run_dir / "refit" / "refit.json").read_text(encoding="utf-8"))
        assert record["epochs"] == expected
        assert record["folds"] == [2, 3, 4]
        assert record["clips"] == 27
        tested = read(run_dir / "refit" / "predictions.csv")
        accuracy = (tested.label == tested.predicted).mean()
        assert record["test"]["accuracy"] == pytest.approx(accuracy)
        first, second, third = str(made["refit"]).splitlines()
        noun = "epoch" if expected == 1 else "epochs"
        expected_text = (
            f"refit of {best_of(run_dir)}: {expected} {noun} on 27 clips of folds 2, 3, 4"
        )
        assert first == expected_text
        assert second.startswith(
            f"test fold 1, which had no part in it: accuracy {accuracy:.4f}, F1 "
        )
        assert third == f"weights: {run_dir}/refit/weights.safetensors"

    def test_the_test_fold_changes_nothing(
        self, foldgrid, write_spec, clips: Path, tmp_path: Path, run_dir: Path
    ) -> None:
        other = tmp_path / "clips"
        shutil.copytree(clips, other)
        rng = np.random.default_rng(1)
        for path in other.glob("*/1-*.wav"):
            soundfile.write(path, rng.normal(0, 0.3, 900).clip(-1, 1), RATE)
        data = {"dataset": "manifest", "manifest": str(other / "manifest.csv")}
        spec = write_spec(train=TRAIN, data=data)
        assert foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL).code == 0
        assert foldgrid("refit", tmp_path / "run", "--quiet").code == 0
        name = Path("refit", "weights.safetensors")
        assert (tmp_path / "run" / name).read_bytes() == (run_dir / name).read_bytes()
        name = Path("refit", "predictions.csv")
        assert (tmp_path / "run" / name).read_bytes() != (run_dir / name).read_bytes()

    def test_it_is_the_same_each_time_interrupted_or_not(self, run_dir: Path, tmp_path) -> None:
        shutil.copytree(run_dir, tmp_path / "run")
        weights = tmp_path / "run" / "refit" / "weights.safetensors"
        before = weights.read_bytes()
        shutil.rmtree(tmp_path / "run" / "refit")
        record = json.loads((run_dir / "refit" / "refit.json").read_text(encoding="utf-8"))
        if record["epochs"] > 1:
            with pytest.raises(InterruptionError, match="the same command goes on"):
                refit(tmp_path / "run", None, silent(), lambda: True)
            assert not (tmp_path / "run" / "refit" / "refit.json").exists()
            assert (tmp_path / "run" / "refit" / "checkpoint.pt").exists()
        again = refit(tmp_path / "run", None, silent(), lambda: False)
        assert again.record.timing.attempts == record["epochs"]
        assert weights.read_bytes() == before
        names = {path.name for path in weights.parent.iterdir()}
        assert names == {"weights.safetensors", "refit.json", "predictions.csv"}

    def test_where_every_fold_tests_it_trains_on_all_for_as_long_as_the_folds(
        self, foldgrid, write_spec, tmp_path: Path
    ) -> None:
        train = {"epochs": 4, "batch_size": 8, "early_stopping": {}}
        train["early_stopping"] = {"patience": 1, "metric": "val_accuracy"}
        spec = write_spec(train=train, folds={"protocol": "rotate"}, model={"name": "cnn1d"})
        out = tmp_path / "run"
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        result = foldgrid("refit", out)
        assert result.code == 0, result.err
        lengths = sorted(pd.read_csv(out / "tables" / "epochs.csv").groupby("trial").size())
        record = json.loads((out / "refit" / "refit.json").read_text(encoding="utf-8"))
        assert lengths[0] < 4
        assert record["epochs"] == lengths[1]
        assert (record["folds"], record["clips"], record["test"]) == ([1, 2, 3, 4], 36, None)
        assert not (out / "refit" / "predictions.csv").exists()
        assert "test fold" not in result.out

    def test_a_schedule_that_follows_the_validation_is_refused(
        self, foldgrid, write_spec, tmp_path: Path
    ) -> None:
        train = {"epochs": 1, "batch_size": 8, "schedule": "plateau"}
        spec = write_spec(train=train, model={"name": "cnn1d"})
        assert foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL).code == 0
        result = foldgrid("refit", tmp_path / "run")
        assert result.code == 2
        assert "train.schedule: found plateau" in result.err
        assert "allowed step, cosine, one_cycle or none" in result.err

    def test_other_clips_than_then_are_refused(
        self, foldgrid, write_spec, clips: Path, run_dir: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(clips, tmp_path / "clips")
        shutil.copytree(run_dir, tmp_path / "run")
        path = tmp_path / "run" / "spec.yaml"
        text = path.read_text(encoding="utf-8").replace(str(clips), str(tmp_path / "clips"))
        path.write_text(text.partition("\n")[2], encoding="utf-8")
        assert foldgrid("refit", tmp_path / "run").code == 0
        sound, _ = soundfile.read(tmp_path / "clips" / "low" / "2-0.wav")
        soundfile.write(tmp_path / "clips" / "low" / "2-0.wav", sound / 2, RATE)
        result = foldgrid("refit", tmp_path / "run")
        assert result.code == 2
        assert "the clips are not those that the run directory was made from" in result.err


class TestOtherProtocolsAndModels:
    def test_a_nested_cross_validation_gives_one_model_of_all_folds(
        self, foldgrid, write_spec, clips: Path, tmp_path: Path
    ) -> None:
        train = TRAIN | {"epochs": 1}
        spec = write_spec(train=train, folds={"protocol": "nested"}, model={"name": "cnn1d"})
        out, clip = tmp_path / "run", clips / "low" / "1-0.wav"
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        assert not list(out.glob("trials/*/weights.safetensors"))
        result = foldgrid("predict", out, clip)
        assert result.code == 2
        assert "found protocol nested" in result.err
        result = foldgrid("refit", out)
        assert result.code == 0, result.err
        assert "1 epoch on 36 clips of folds 1, 2, 3, 4" in result.out
        assert foldgrid("predict", out, clip, "--model", "refit").code == 0


NETS = """
from torch import nn

def flat(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], classes))
"""

THREE_LINES = """
from orchestrator import load_model
model = load_model({folder!r})
print([list(row.probabilities.values()) for row in model.predict({clips!r})])
"""


def python(code: str) -> str:
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    return done.stdout


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.onnx_file.PACKAGES", ("no_such_package",))


@pytest.mark.usefixtures("without_onnx")
class TestExport:
    @pytest.mark.parametrize("kind", ["ensemble", "refit"])
    def test_three_lines_give_what_predict_gives(
        self, kind, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        target, paths = tmp_path / "deep" / "bird model", sorted(map(str, clips.glob("*/1-*.wav")))
        result = foldgrid("export", run_dir, target, "--model", kind)
        assert result.code == 0, result.err
        expected = [
            chances(row) for row in table(foldgrid("predict", run_dir, *paths, "--model", kind).out)
        ]
        moved = tmp_path / "elsewhere"
        shutil.move(target, moved)
        out = python(THREE_LINES.format(folder=str(moved), clips=paths))
        assert json.loads(out) == expected
        assert [chances(row) for row in table(foldgrid("predict", moved, *paths).out)] == expected

    def test_what_is_in_it(self, foldgrid, run_dir: Path, tmp_path: Path) -> None:
        result = foldgrid("export", run_dir, tmp_path / "out")
        best = best_of(run_dir)
        weights = [f"weights-{best}-t1-f{fold}-s0.safetensors" for fold in (2, 3)]
        names = ["README.txt", "model.json", *weights]
        assert result.out.splitlines() == [
            f"ensemble of {best} in {tmp_path}/out: {', '.join(names)}",
            "no model.onnx: it needs no_such_package: pip install 'foldgrid[onnx]'",
        ]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        data = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
        assert data["format_version"] == 1
        assert data["classes"] == CLASSES
        assert data["configuration"]["features"]["n_mels"] == 16
        assert data["provenance"]["configuration"] == best
        text = (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")
        assert "model.onnx" not in text
        assert 'model = load_model("out")' in text

    def test_only_a_new_folder_is_written_to(self, foldgrid, run_dir: Path, tmp_path) -> None:
        (tmp_path / "empty").mkdir()
        assert foldgrid("export", run_dir, tmp_path / "empty").code == 0
        result = foldgrid("export", run_dir, tmp_path / "empty")
        assert result.code == 2
        assert result.err == f"{tmp_path}/empty: found, and not empty; allowed a new folder\n"

    def test_another_model_than_the_exported_one_is_refused(
        self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        assert foldgrid("export", run_dir, tmp_path / "out").code == 0
        result = foldgrid("predict", tmp_path / "out", clips / "low/1-0.wav", "--model", "refit")
        assert result.code == 2
        assert result.err == "--model: found refit; allowed ensemble, which was exported\n"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": 2}, "format_version: found 2; allowed 1"),
            ({"classes": None}, "damaged: TypeError"),
            ({"configuration": {}}, "damaged: KeyError"),
        ],
    )
    def test_a_description_that_is_not_ours_is_refused(
        self, change, message, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        assert foldgrid("export", run_dir, tmp_path / "out").code == 0
        path = tmp_path / "out" / "model.json"
        data = json.loads(path.read_text(encoding="utf-8")) | change
        path.write_text(json.dumps(data), encoding="utf-8")
        result = foldgrid("predict", tmp_path / "out", clips / "low/1-0.wav")
        assert result.code == 2
        assert result.err.startswith(f"{path}: {message}")

    def test_a_users_model_goes_with_its_source(
        self, foldgrid, write_spec, clips: Path, tmp_path: Path
    ) -> None:
        package = tmp_path / "winner_nets"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "flat.py").write_text(NETS, encoding="utf-8")
        spec = write_spec(model={"name": "winner_nets.flat:flat"})
        out, paths = tmp_path / "run", sorted(map(str, clips.glob("*/1-*.wav")))
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        assert foldgrid("export", out, tmp_path / "exported").code == 0
        expected = [chances(row) for row in table(foldgrid("predict", out, *paths).out)]
        shutil.rmtree(package)
        code = THREE_LINES.format(folder=str(tmp_path / "exported"), clips=paths)
        assert json.loads(python(code)) == expected
        copied = tmp_path / "exported" / "code" / "winner_nets" / "flat.py"
        copied.write_text(NETS + "# changed\n", encoding="utf-8")
        result = foldgrid("predict", tmp_path / "exported", *paths)
        assert result.code == 2
        assert "winner_nets.flat:flat: its file is not the one that was trained" in result.err


def test_the_onnx_graph_gives_the_same_probabilities(
    foldgrid, run_dir: Path, clips: Path, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    assert foldgrid("export", run_dir, tmp_path / "out").code == 0
    model = load_model(tmp_path / "out")
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    for paths in ([clips / "low/1-0.wav"], sorted(clips.glob("*/1-*.wav"))):
        features = np.concatenate([model.inputs(path) for path in paths])
        (found,) = session.run(["probabilities"], {"features": features})
        expected = [list(row.probabilities.values()) for row in model.predict(paths)]
        assert np.abs(found - expected).max() < 1e-5


def test_the_face_imports_light() -> None:
    code = "import sys, orchestrator; print('torch' in sys.modules, orchestrator.load_model)"
    assert python(code).startswith("False <function load_model")


def test_features_of_a_window_too_silent_to_scale_are_finite() -> None:
    spec = LogMelSpec(sample_rate=8000, seconds=0.2, n_fft=256, n_mels=8, normalize="peak")
    recording = Recording(np.zeros(10_000, np.float32), spec)
    for window in recording.windows(0.1):
        assert np.isfinite(recording.features(window)).all()
