"""The pictures: there in every state of a run directory, true to its records, none stale."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from features.spec import WaveformSpec
from models.spec import Cnn1dSpec, CnnTransformerSpec, FactorySpec, ModelSpec
from orchestrator import run_digest
from orchestrator.class_curves import class_curves, macro_precision_recall, macro_roc
from orchestrator.configuration_labels import configuration_names
from orchestrator.configuration_scores import best_configuration, metric_of
from orchestrator.confusion import pooled_confusion, rates
from orchestrator.errors import RunDirectoryError
from orchestrator.hyperparameter_effects import grid, hyperparameters
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.ledger import Ledger
from orchestrator.metrics import score
from orchestrator.outcomes import Results
from orchestrator.plot import Plot
from orchestrator.plots import write_plots
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Predictions,
    SplitResult,
    Timing,
    TrialFailure,
    TrialRecord,
)
from orchestrator.run_digest import RunDigest, read_digest
from orchestrator.specification import FORMAT_VERSION
from orchestrator.trials import ClipRow, Configuration, Plan, Trial

pytestmark = pytest.mark.pictures

CLASSES = ("dog", "sea, waves", "$x$")
CLIPS_A_FOLD = 12
TIMING = Timing("2026-01-01T00:00:00+00:00", 1.5, 1.25, 1, "host", "cpu")


def configuration(
    model: ModelSpec | None = None, lr: float = 0.01, weight_decay: float = 0.0
) -> Configuration:
    train = TrainSpec(epochs=3, optimizer=SgdSpec(lr=lr, weight_decay=weight_decay))
    return Configuration(WaveformSpec(seconds=1.0), model or Cnn1dSpec(), train)


def heads(*numbers: int) -> list[Configuration]:
    return [configuration(CnnTransformerSpec(heads=number)) for number in numbers]


def plan_of(trials: Iterable[Trial], classes: Sequence[str] = CLASSES) -> Plan:
    clips = tuple(ClipRow(f"{i}.wav", i % len(classes)) for i in range(8 * CLIPS_A_FOLD))
    return Plan("sweep", "val_accuracy", "max", tuple(classes), clips, tuple(trials))


def product(
    configurations: Sequence[Configuration],
    folds: Sequence[int] = (2, 3),
    seeds: Sequence[int] = (0,),
    test: int | None = 1,
    classes: Sequence[str] = CLASSES,
) -> Plan:
    trials = (Trial(c, test, f, s) for f in folds for c in configurations for s in seeds)
    return plan_of(trials, classes)


def split(plan: Plan, fold: int, rng: np.random.Generator, lacking: int | None) -> SplitResult:
    """Answers on the clips of a fold, right more often than not; one class may be absent."""
    clips = np.arange(fold * CLIPS_A_FOLD, (fold + 1) * CLIPS_A_FOLD)
    labels = np.array([plan.clips[clip].label for clip in clips])
    clips, labels = clips[labels != lacking], labels[labels != lacking]
    raw = rng.normal(size=(labels.size, len(plan.classes)))
    raw[np.arange(labels.size), labels] += 1.0
    probabilities = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    given = Predictions(
        tuple(map(int, clips)),
        tuple(map(int, labels)),
        tuple(map(int, predicted)),
        tuple(map(tuple, probabilities.tolist())),
    )
    return SplitResult(score(labels, predicted, probabilities, 1.0), given)


def finish(
    plan: Plan, trial: Trial, epochs: int = 3, lacking: int | None = None, watched: bool = False
) -> TrialRecord:
    rng = np.random.default_rng(plan.trials.index(trial))
    val = split(plan, trial.fold, rng, lacking)
    test = None if trial.test_fold is None else split(plan, trial.test_fold, rng, lacking)
    seen = (1.5, 0.5) if watched else (None, None)
    rows = tuple(
        EpochRow(i, 0.001, 2.0 / (i + 1), i / epochs, 1.0 + rng.random(), rng.random(), *seen)
        for i in range(epochs)
    )
    parameters = ParameterCount(641034, 641034)
    return TrialRecord(trial.id, epochs - 1, rows, val, test, parameters, TIMING)


def failure(trial: Trial) -> TrialFailure:
    return TrialFailure(trial.id, "ValueError: never", "Traceback", TIMING)


def record(run_dir: Path, plan: Plan, results: Iterable[TrialRecord | TrialFailure]) -> None:
    ledger = Ledger.open(run_dir)
    ledger.write_plan(plan)
    for result in results:
        if isinstance(result, TrialRecord):
            ledger.record(result)
        else:
            ledger.fail(result)


def write(
    run_dir: Path, plan: Plan, results: Iterable[TrialRecord | TrialFailure]
) -> dict[str, Plot]:
    """Write results, then the pictures; by name, after a look at each."""
    record(run_dir, plan, results)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = write_plots(Results.read(run_dir))
    assert sorted(plot.path for plot in plots) == sorted((run_dir / "plots").iterdir())
    assert len({(plot.section, plot.title) for plot in plots}) == len(plots)
    for plot in plots:
        check(plot)
    return {plot.path.stem: plot for plot in plots}


def check(plot: Plot) -> None:
    """A picture that opens, that has something on it, and that is not too wide."""
    assert plot.path.is_absolute()
    assert plot.path.name.isascii()
    assert plot.section
    assert plot.title
    assert plot.description.endswith(".")
    with Image.open(plot.path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        assert 300 < height < 6000
        assert 300 < width <= 10 * 150
        darkest, brightest = picture.convert("L").getextrema()
        assert darkest < 50
        assert brightest == 255


def digest(run_dir: Path) -> RunDigest:
    return read_digest(Results.read(run_dir))


class TestStates:
    def test_a_finished_run(self, tmp_path: Path) -> None:
        plan = product([configuration(), *heads(1, 2)])
        plots = write(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        both = [
            *("confusion_{}_test", "confusion_{}_test_folds"),
            *("confusion_{}_validation", "confusion_{}_validation_folds"),
            *("learning_curves_{}_accuracy", "learning_curves_{}_loss"),
            *("precision_recall_{}_test", "precision_recall_{}_validation"),
            *("roc_{}_test", "roc_{}_validation"),
        ]
        expected = {name.format(m) for name in both for m in ("cnn1d", "cnn_transformer")}
        expected |= {"folds", "folds_test", "hyperparameters", "configuration_curves"}
        expected |= {"configuration_curves_cnn_transformer"}
        assert set(plots) == expected
        assert next(iter(plots)) == "folds"
        for name, plot in plots.items():
            if "test" in name:
                assert "test" in plot.title
                assert "validation" not in plot.title
            elif "validation" in name:
                assert "validation" in plot.title

    def test_no_finished_trial(self, tmp_path: Path) -> None:
        plan = product(heads(1, 2))
        assert write(tmp_path, plan, [failure(plan.trials[0])]) == {}

    def test_some_trials_failed_or_are_missing(self, tmp_path: Path) -> None:
        plan = product(heads(1, 2, 4), folds=(2, 3, 4), test=None)
        done = [finish(plan, plan.trials[i]) for i in (0, 3, 4)]
        plots = write(tmp_path, plan, [*done, failure(plan.trials[1])])
        assert "heads 1" in plots["folds"].description

    def test_no_test_fold_and_one_validation_fold(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2,), test=None)
        plots = write(tmp_path, plan, [finish(plan, plan.trials[0], epochs=1)])
        assert set(plots) == {
            *("folds", "configuration_curves", "confusion_cnn1d_validation"),
            *("learning_curves_cnn1d_accuracy", "learning_curves_cnn1d_loss"),
            *("precision_recall_cnn1d_validation", "roc_cnn1d_validation"),
        }

    def test_rotating_test_folds_and_repeats(self, tmp_path: Path) -> None:
        trials = (
            Trial(configuration(), test, test % 3 + 1, seed)
            for test in (1, 2, 3)
            for seed in (0, 1)
        )
        plan = plan_of(trials)
        results = [finish(plan, t, watched=True) for t in plan.trials]
        plots = write(tmp_path, plan, results)
        assert {"learning_curves_cnn1d_test_loss", "confusion_cnn1d_test_folds"} <= set(plots)

    def test_an_absent_class(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2,), test=None)
        results = [finish(plan, t, lacking=2) for t in plan.trials]
        assert results[0].val.scores.auroc is None
        assert "roc_cnn1d_validation" in write(tmp_path, plan, results)

    def test_a_metric_that_is_nowhere_defined(self, tmp_path: Path) -> None:
        plan = replace(product(heads(1, 2), folds=(2,), test=None), metric="val_auroc")
        plots = write(tmp_path, plan, [finish(plan, t, lacking=2) for t in plan.trials])
        assert "folds" not in plots
        assert "learning_curves_cnn_transformer_loss" in plots

    def test_a_metric_to_make_small(self, tmp_path: Path) -> None:
        plan = replace(product(heads(1, 2), (2,), test=None), metric="val_loss", mode="min")
        plots = write(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        assert "validation loss per clip" in plots["folds"].title

    def test_a_chosen_epoch_far_off_the_picture(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2, 3))
        results = []
        for trial in plan.trials:
            result = finish(plan, trial, epochs=12)
            far = replace(result.epochs[-1], val_loss=1e6)
            results.append(replace(result, epochs=(*result.epochs[:-1], far)))
        assert "learning_curves_cnn1d_loss" in write(tmp_path, plan, results)

    @pytest.mark.parametrize("count", [2, 40])
    def test_numbers_of_classes(self, tmp_path: Path, count: int) -> None:
        names = [f"_a name\nof class {i} that is long\udcff" for i in range(count)]
        plan = product([configuration()], folds=(2,), test=None, classes=names)
        assert "confusion_cnn1d_validation" in write(tmp_path, plan, [finish(plan, plan.trials[0])])

    def test_models_that_would_share_a_file_name(self, tmp_path: Path) -> None:
        models = [FactorySpec(name="a.b:c"), FactorySpec(name="a.b:C")]
        plan = product([configuration(model) for model in models], folds=(2,), test=None)
        plots = write(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        curves = [name.casefold() for name in plots if name.startswith("learning_curves")]
        assert len(set(curves)) == 4

    def test_many_configurations(self, tmp_path: Path) -> None:
        draw = random.Random(0)
        points = [
            configuration(Cnn1dSpec(), 10 ** draw.uniform(-4, -1), draw.choice((0.0, 1e-3, 0.01)))
            for _ in range(70)
        ]
        plan = product(points, folds=(2,), test=None)
        plots = write(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        assert "best 20 of 70" in plots["folds"].description
        assert {"heat_map_cnn1d_1", "hyperparameters"} <= set(plots)


class TestTheFolder:
    def test_stale_pictures_go_and_others_stay(self, tmp_path: Path) -> None:
        plan = product(heads(1, 2), folds=(2,), test=None)
        record(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        (tmp_path / "plots").mkdir()
        (tmp_path / "plots" / "roc_other_test.png").write_bytes(b"old")
        (tmp_path / "plots" / "mine.png").write_bytes(b"mine")
        plots = write_plots(Results.read(tmp_path))
        present = {path.name for path in (tmp_path / "plots").iterdir()}
        assert present == {plot.path.name for plot in plots} | {"mine.png"}
        for trial in plan.trials:
            (tmp_path / "trials" / trial.id / "result.json").unlink()
        assert write_plots(Results.read(tmp_path)) == []
        assert [path.name for path in (tmp_path / "plots").iterdir()] == ["mine.png"]

    def test_equal_records_give_equal_bytes_in_any_order(self, tmp_path: Path) -> None:
        plan = product(heads(1, 2), folds=(2,), test=None)
        results = [finish(plan, t) for t in plan.trials]
        first = write(tmp_path / "one", plan, results)
        slow = replace(TIMING, host="elsewhere", wall_seconds=9.0)
        later = [replace(result, timing=slow) for result in reversed(results)]
        second = write(tmp_path / "other", plan, later)
        assert list(first) == list(second)
        for name in first:
            assert first[name].path.read_bytes() == second[name].path.read_bytes(), name

    def test_settings_of_matplotlib_are_as_before(self, tmp_path: Path) -> None:
        import matplotlib

        plan = product([configuration()], folds=(2,), test=None)
        with matplotlib.rc_context({"font.size": 3.0, "axes.grid": False}):
            before = dict(matplotlib.rcParams)
            write(tmp_path / "one", plan, [finish(plan, plan.trials[0])])
            assert dict(matplotlib.rcParams) == before
        write(tmp_path / "other", plan, [finish(plan, plan.trials[0])])
        one, other = (tmp_path / name / "plots" / "folds.png" for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()

    def test_no_run_directory(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "absent"):
            with pytest.raises(RunDirectoryError, match=r"no plan\.json"):
                write_plots(Results.read(folder))
        assert list(tmp_path.iterdir()) == []

    def test_a_record_of_a_later_version(self, tmp_path: Path) -> None:
        plan = product([configuration()])
        Ledger.open(tmp_path).write_plan(plan)
        path = tmp_path / "trials" / plan.trials[1].id / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
        with pytest.raises(RunDirectoryError, match="format_version"):
            write_plots(Results.read(tmp_path))

    def test_plots_cannot_be_written(self, tmp_path: Path) -> None:
        Ledger.open(tmp_path).write_plan(product([configuration()]))
        (tmp_path / "plots").write_text("a file")
        with pytest.raises(RunDirectoryError) as caught:
            write_plots(Results.read(tmp_path))
        assert len(caught.value.lines()) == 1

    def test_matplotlib_is_loaded_only_to_draw(self) -> None:
        code = "import sys, orchestrator.plots, orchestrator.cli; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "orchestrator.plots" in done.stdout.split()
        assert not {"matplotlib", "sklearn", "torch"} & set(done.stdout.split())


class TestTheDigest:
    def test_the_best_is_the_tables_best(self, tmp_path: Path) -> None:
        plan = product([configuration(lr=10.0**-i) for i in range(1, 6)], folds=(2, 3, 4))
        results = [finish(plan, t) for t in plan.trials]
        # The last configuration lacks a fold, and counts for no best one.
        record(tmp_path, plan, [r for r in results if r.trial != plan.trials[-1].id])
        found = digest(tmp_path)
        values = {r.trial: metric_of(r, plan.metric) for r in results[:-1]}
        best = best_configuration(plan, values)
        assert best is not None
        assert found.ranked[0].configuration == best.configuration
        runs = found.models[0].runs
        assert runs[0].configuration == best.configuration
        assert [len(run.val) for run in runs] == [3, 0, 0, 0, 0]
        assert [run.scores.complete for run in runs] == [True] * 4 + [False]
        assert found.finished == 14

    def test_only_records_that_are_drawn_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = product(heads(1, 2, 4))
        record(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        results = Results.read(tmp_path)
        read: list[str] = []
        real = Path.read_bytes

        def watched(path: Path) -> bytes:
            read.append(str(path))
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", watched)
        monkeypatch.setattr(run_digest, "KEPT", 2)
        found = read_digest(results)
        kept = [fold.trial for one in found.ranked[:2] for fold in one.folds]
        paths = [str(results.directory.result_file(trial.id)) for trial in kept]
        assert sorted(read) == sorted(paths)

    def test_names_say_what_differs(self) -> None:
        plan = product([configuration(), *heads(1, 2)])
        assert list(configuration_names(plan).values()) == [
            *("cnn1d", "cnn_transformer, heads 1", "cnn_transformer, heads 2")
        ]
        short = configuration_names(plan, with_model=False)
        assert list(short.values()) == ["cnn1d", "heads 1", "heads 2"]


class TestNumbers:
    @pytest.fixture
    def found(self, tmp_path: Path) -> RunDigest:
        plan = product([configuration()], folds=(2, 3, 4))
        record(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        return digest(tmp_path)

    def test_pooled_confusion_is_scikit_learns(self, found: RunDigest) -> None:
        answers = found.models[0].runs[0].val
        labels = np.concatenate([one.labels for one in answers])
        predicted = np.concatenate([one.predicted for one in answers])
        counts = pooled_confusion(answers, 3)
        assert counts.tolist() == confusion_matrix(labels, predicted, labels=range(3)).tolist()
        normal = confusion_matrix(labels, predicted, labels=range(3), normalize="true")
        assert rates(counts) == pytest.approx(normal)

    def test_an_absent_class_has_rate_0(self, found: RunDigest) -> None:
        counts = pooled_confusion(found.models[0].runs[0].val, 5)
        assert counts[3:].sum() == 0
        assert rates(counts)[3:].tolist() == [[0.0] * 5] * 2

    def test_areas_are_scikit_learns(self, found: RunDigest) -> None:
        answers = found.models[0].runs[0].val
        labels = np.concatenate([one.labels for one in answers])
        scores = np.concatenate([one.probabilities for one in answers])
        curves = class_curves(answers, 3, "roc")
        macro = macro_roc(list(curves.values()))
        assert macro.area == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"))
        assert np.trapezoid(macro.y, macro.x) == pytest.approx(macro.area)
        assert (np.diff(macro.y) >= -1e-12).all()
        curves = class_curves(answers, 3, "precision_recall")
        macro = macro_precision_recall(list(curves.values()))
        expected = average_precision_score(np.eye(3)[labels], scores)
        assert macro.area == pytest.approx(expected)
        assert (np.diff(macro.x) * macro.y[1:]).sum() == pytest.approx(expected)

    def test_effects_and_scales(self, tmp_path: Path) -> None:
        points = [configuration(lr=lr, weight_decay=w) for lr in (1e-3, 1e-2) for w in (0.0, 0.1)]
        plan = product(points)
        record(tmp_path, plan, [finish(plan, t) for t in plan.trials])
        scores = digest(tmp_path).scores
        lr, decay = hyperparameters(scores, plan.varying)
        assert (lr.levels, lr.scale, decay.scale) == ((1e-3, 1e-2), "log", "linear")
        means = np.array([one.mean for one in scores]).reshape(2, 2)
        between = 2 * ((means.mean(axis=1) - means.mean()) ** 2).sum()
        assert lr.effect == pytest.approx(between / ((means - means.mean()) ** 2).sum())
        cells = grid(lr, decay)
        assert cells.means == pytest.approx(means)
        assert cells.trials.tolist() == [[2, 2], [2, 2]]
        assert cells.best("max") == divmod(int(means.argmax()), 2)
        assert cells.best("min") == divmod(int(means.argmin()), 2)
