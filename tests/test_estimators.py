"""scikit-learn's classifiers as models: found, checked, fitted, and in a sweep beside networks."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import all_estimators

from models.estimator import EstimatorError, check_estimator, estimator_class, make_estimator
from models.spec import EstimatorSpec
from orchestrator.estimator_fit import EstimatorFit
from orchestrator.records import EpochRow, SplitResult
from orchestrator.sweep import load_sweep
from orchestrator.training import NonFiniteLoss, SplitData, TrainingData
from orchestrator.trials import Configuration

RATE = 8000
STATISTICS = {
    "kind": "clip_statistics",
    **{"sample_rate": RATE, "seconds": 0.5, "n_fft": 256, "hop_length": 128, "n_mels": 16},
}
LOG_MEL = STATISTICS | {"kind": "log_mel"}


def spec(name: str, **changes: Any) -> EstimatorSpec:
    return EstimatorSpec(name=f"sklearn:{name}", **changes)


class TestCheck:
    def test_every_classifier_is_found(self) -> None:
        known = dict(all_estimators(type_filter="classifier"))
        assert len(known) > 30
        assert {name: estimator_class(name) for name in known} == known

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (spec("SVX"), r"^name: found sklearn:SVX; allowed scikit-learn's classifiers SVC, "),
            (spec("SVR"), "^name: found sklearn:SVR; "),
            (spec("ClassifierMixin"), "^name: found sklearn:ClassifierMixin; "),
            (spec("VotingClassifier"), r"made from other estimators \(estimators\)"),
            (spec("SVC", params={"kernal": "rbf"}), r"^params\.kernal: found unknown key 'kernal'"),
            (spec("SVC", params={"n_jobs": 2}), r"^params\.n_jobs: found n_jobs, which foldgrid"),
            (spec("SVC", params={"C": 0}), r"^params\.C: found 0; allowed a float in the range"),
            (spec("SVC", params={"gamma": [1]}), r"^params\.gamma: found \[1\]; allowed a str am"),
        ],
    )
    def test_what_scikit_learn_does_not_have(self, model: EstimatorSpec, message: str) -> None:
        with pytest.raises(EstimatorError, match=message):
            check_estimator(model)

    def test_the_nearest_name_is_offered(self) -> None:
        with pytest.raises(EstimatorError) as raised:
            check_estimator(spec("SVC", params={"kernal": "rbf"}))
        assert (raised.value.key, raised.value.near) == (("params", "kernal"), "kernel")
        with pytest.raises(EstimatorError) as raised:
            estimator_class("kneighborsclassifer")
        assert raised.value.near == "sklearn:KNeighborsClassifier"

    def test_faults_of_a_specification_are_one_line_each(self, foldgrid, write_spec) -> None:
        for model, words in [
            ({"name": "sklearn:Svc"}, "model.name: found sklearn:Svc; allowed scikit-learn's"),
            (
                {"name": "sklearn:SVC", "params": {"C": {"grid": [1, -1]}}},
                "model.params.C.grid.1: found -1; allowed a float in the range (0.0, inf",
            ),
            ({"name": "sklearn:SVC", "init": "xavier"}, "model.init: found unknown key 'init'"),
        ]:
            path = write_spec(model=model, features=STATISTICS, train={})
            result = foldgrid("plan", path)
            assert result.code == 2, model
            (line,) = result.err.splitlines()
            assert words in line
            assert line.startswith(f"{path}:")

    def test_settings_of_a_training_are_refused_where_nothing_is_trained(
        self, foldgrid, write_spec
    ) -> None:
        path = write_spec(model={"name": "sklearn:SVC"}, features=STATISTICS)
        result = foldgrid("plan", path)
        assert result.code == 2
        found = [line.split(": ")[1] for line in result.err.splitlines()]
        assert found == ["train.epochs", "train.batch_size", "train.optimizer"]
        assert "fitted in one go" in result.err

    @pytest.mark.parametrize("name", ["cnn1d", "cnn_transformer", "cnn2d", "torchvision:resnet18"])
    def test_networks_refuse_clip_statistics_by_name(self, foldgrid, write_spec, name: str) -> None:
        result = foldgrid("plan", write_spec(model={"name": name}, features=STATISTICS))
        assert result.code == 2
        assert f"found {name} with features of [26]; " in result.err
        assert "no clip_statistics" in result.err

    @pytest.mark.parametrize("augment", [{"time_shift": 0.5}, {"spec_augment": True}, {"gain": 3}])
    def test_what_needs_time_is_refused_of_clip_statistics(
        self, foldgrid, write_spec, tmp_path: Path, augment: dict[str, Any]
    ) -> None:
        (tmp_path / "own_net.py").write_text("def make(input_shape, classes): ...")
        train = {"augment": augment}
        path = write_spec(model={"name": "own_net:make"}, features=STATISTICS, train=train)
        result = foldgrid("plan", path)
        assert result.code == 2
        assert f"train.augment.{next(iter(augment))}: found " in result.err


class TestMake:
    def test_random_state_is_the_trials_unless_the_user_sets_it(self) -> None:
        seed = 2**40 + 5
        assert make_estimator(spec("SVC"), seed).random_state == 5
        assert make_estimator(spec("SVC", params={"random_state": 3}), seed).random_state == 3
        assert isinstance(make_estimator(spec("GaussianNB"), seed), estimator_class("GaussianNB"))

    def test_an_identity_of_its_own(self, write_spec) -> None:
        grid = {"standardize": {"grid": [False, True]}, "params": {"C": {"grid": [1, 2]}}}
        path = write_spec(model={"name": "sklearn:SVC"} | grid, features=STATISTICS, train={})
        configurations = load_sweep(path).configurations
        assert len({c.id for c in configurations}) == 4
        assert {c.id.rpartition("-")[0] for c in configurations} == {"sklearn-SVC"}
        for one in configurations:
            assert Configuration.from_json(json.loads(json.dumps(one.to_json()))) == one
            assert (one.train, one.epochs) == (None, 1)


ROWS = np.arange(60)
SPLIT = SplitData(ROWS[:30], ROWS[30:45], ROWS[45:])


def data(classes: int = 3, dtype: Any = np.float32, scale: float = 1.0) -> TrainingData:
    """Sixty clips `[2, 4]`, a number of which tells the class if the last one drowns it not."""
    rng = np.random.default_rng(0)
    labels = ROWS % classes
    features = rng.standard_normal((60, 2, 4))
    features[ROWS, 0, labels] += 4
    features[:, 1, 3] *= scale
    if dtype == np.uint8:
        features = (features * 20 + 128).clip(0, 255)
    array = features.astype(dtype)
    array.flags.writeable = False
    return TrainingData(array, labels, SPLIT, classes)


def fitted(estimator: Any, given: TrainingData) -> tuple[EpochRow, SplitResult, SplitResult]:
    fit = EstimatorFit(estimator, given, seed=0)
    assert not fit.finished
    row = fit.run_epoch()
    assert fit.finished
    epoch, val, test = fit.result()
    assert (row.epoch, row.lr, epoch) == (0, None, 0)
    assert test is not None
    return row, val, test


def matrix(given: TrainingData, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return given.features[rows].reshape(len(rows), -1).astype(np.float64)


class Answering(DummyClassifier):
    """Gives the same probabilities whatever it is asked."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.probabilities = probabilities

    def predict_proba(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        return np.tile(self.probabilities, (len(X), 1))


class TestFit:
    @pytest.mark.parametrize(
        "estimator",
        [
            KNeighborsClassifier(5),
            RandomForestClassifier(20, random_state=1),
            LogisticRegression(),
        ],
    )
    def test_is_what_scikit_learn_gives(self, estimator: Any) -> None:
        given = data()
        row, val, test = fitted(estimator, given)
        direct = estimator.__class__(**estimator.get_params())
        direct.fit(matrix(given, SPLIT.train), given.labels[SPLIT.train])
        for rows, result in ((SPLIT.val, val), (SPLIT.test, test)):
            assert rows is not None
            asked, labels = matrix(given, rows), given.labels[rows]
            assert list(result.predictions.clips) == rows.tolist()
            assert list(result.predictions.predicted) == direct.predict(asked).tolist()
            probabilities = direct.predict_proba(asked)
            assert np.array(result.predictions.probabilities) == pytest.approx(probabilities)
            assert result.scores.accuracy == direct.score(asked, labels)
            assert result.scores.loss == pytest.approx(log_loss(labels, probabilities))
        assert (row.val_loss, row.val_accuracy) == (val.scores.loss, val.scores.accuracy)
        train = matrix(given, SPLIT.train), given.labels[SPLIT.train]
        assert row.train_accuracy == direct.score(*train)
        assert row.train_loss == pytest.approx(log_loss(train[1], direct.predict_proba(train[0])))

    @pytest.mark.parametrize("classes", [2, 3])
    @pytest.mark.parametrize("name", ["SVC", "LinearSVC", "Perceptron", "RidgeClassifier"])
    def test_margins_become_probabilities(self, name: str, classes: int) -> None:
        given = data(classes)
        _, val, _ = fitted(make_estimator(spec(name), 0), given)
        probabilities = np.array(val.predictions.probabilities)
        assert probabilities.shape == (15, classes)
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(15), abs=1e-12)
        if name != "SVC":  # It predicts by votes.
            assert probabilities.argmax(axis=1).tolist() == list(val.predictions.predicted)
        assert val.scores.accuracy > 0.8
        assert val.scores.auroc is not None
        assert val.scores.auroc > 0.9

    def test_the_scaler_sees_the_training_split_alone(self) -> None:
        given = data(scale=1000.0)
        _, plain, _ = fitted(make_estimator(spec("KNeighborsClassifier"), 0), given)
        _, scaled, _ = fitted(
            make_estimator(spec("KNeighborsClassifier", standardize=True), 0), given
        )
        scaler = StandardScaler().fit(matrix(given, SPLIT.train))
        direct = KNeighborsClassifier().fit(
            scaler.transform(matrix(given, SPLIT.train)), given.labels[SPLIT.train]
        )
        expected = direct.predict(scaler.transform(matrix(given, SPLIT.val)))
        assert list(scaled.predictions.predicted) == expected.tolist()
        assert scaled.scores.accuracy > plain.scores.accuracy

    def test_images_are_numbers_from_0_to_1(self) -> None:
        given = data(dtype=np.uint8)
        _, val, _ = fitted(SVC(gamma=1.0), given)
        direct = SVC(gamma=1.0).fit(matrix(given, SPLIT.train) / 255, given.labels[SPLIT.train])
        expected = direct.predict(matrix(given, SPLIT.val) / 255)
        assert list(val.predictions.predicted) == expected.tolist()

    def test_what_ran_before_does_not_matter(self) -> None:
        model = spec("MLPClassifier", params={"max_iter": 5, "random_state": None})
        first = fitted(make_estimator(model, 0), data())
        np.random.seed(99)
        assert fitted(make_estimator(model, 0), data()) == first

    def test_warnings_are_a_remark(self, recwarn: pytest.WarningsRecorder) -> None:
        short = spec("MLPClassifier", params={"max_iter": 1})
        fit = EstimatorFit(make_estimator(short, 0), data(), 0)
        fit.run_epoch()
        assert fit.remark.startswith("ConvergenceWarning: ")
        assert "\n" not in fit.remark
        assert not recwarn.list
        quiet = EstimatorFit(make_estimator(spec("GaussianNB"), 0), data(), 0)
        quiet.run_epoch()
        assert quiet.remark == ""

    def test_no_probability_is_so_small_that_the_loss_is_infinite(self) -> None:
        row, val, _ = fitted(Answering([0.0, 0.5, 0.5]), data())
        expected = (-np.log(np.finfo(np.float64).eps) - 2 * np.log(0.5)) / 3
        assert row.val_loss == val.scores.loss == pytest.approx(expected)

    def test_answers_that_are_none(self) -> None:
        with pytest.raises(NonFiniteLoss, match="loss is nan"):
            fitted(Answering([float("nan")] * 3), data())
        with pytest.raises(ValueError, match=r"scores \[30, 2\], expected \[30, 3\]"):
            fitted(Answering([0.5, 0.5]), data())

    def test_there_must_be_clips(self) -> None:
        given = data()
        empty = TrainingData(given.features, given.labels, SplitData(ROWS[:0], ROWS), 3)
        with pytest.raises(ValueError, match="the train split has no clips"):
            EstimatorFit(SVC(), empty, 0)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 29), st.floats(-1e3, 1e3))
    def test_no_answer_depends_on_another_clip(self, clip: int, value: float) -> None:
        given_ = data()
        fit = fitted(make_estimator(spec("GaussianNB", standardize=True), 0), given_)
        changed = given_.features.copy()
        changed[30 + clip] = value
        other = fitted(
            make_estimator(spec("GaussianNB", standardize=True), 0),
            TrainingData(changed, given_.labels, SPLIT, 3),
        )
        for before, after in zip(fit[1:], other[1:], strict=True):
            assert isinstance(before, SplitResult)
            assert isinstance(after, SplitResult)
            for i, row in enumerate(before.predictions.clips):
                if row != 30 + clip:
                    assert before.predictions.probabilities[i] == after.predictions.probabilities[i]


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


FOLDS = {"test": None, "validate": [2, 3]}
MIXED: dict[str, Any] = {
    "features": LOG_MEL,
    "folds": FOLDS,
    "model": {
        "grid": [
            {"name": "cnn1d"},
            {"name": "sklearn:SVC", "standardize": True, "params": {"C": {"grid": [1, 10]}}},
            {"name": "sklearn:RandomForestClassifier", "params": {"n_estimators": 10}},
        ]
    },
    "train": {"epochs": 2, "batch_size": 8, "optimizer": {"lr": {"grid": [0.01, 0.02]}}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one run is that several tests read."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def run_dir(foldgrid, write_spec, finished: Path) -> Path:
    """A serial run of a network with two learning rates, of SVMs and of a random forest."""
    if not finished.exists():
        path = write_spec(**MIXED)
        result = foldgrid("run", path, "--out", finished, "--executor", "serial", "--quiet")
        assert result.code == 0, result.err
    return finished


class TestSweep:
    def test_training_is_for_networks(self, run_dir: Path) -> None:
        trials = rows(run_dir, "trials")
        names = ["cnn1d"] * 2 + ["sklearn:SVC"] * 2 + ["sklearn:RandomForestClassifier"]
        assert [t["model.name"] for t in trials] == names * 2
        assert {t["status"] for t in trials} == {"finished"}
        assert [t["train.optimizer.lr"] for t in trials[:5]] == ["0.01", "0.02", "", "", ""]
        assert [t["model.params.C"] for t in trials[:5]] == ["", "", "1", "10", ""]
        # What no setting makes different, but an estimator lacks, is no column.
        assert [k for k in trials[0] if k.startswith("train.")] == ["train.optimizer.lr"]
        assert [t["parameters"] == "" for t in trials[:5]] == [False, False, True, True, True]
        assert {t["model"] for t in rows(run_dir, "parameters")} == {"cnn1d"}
        assert json.loads((run_dir / "plan.json").read_text())["merged"] == 3

    def test_an_estimator_has_one_epoch_without_a_learning_rate(self, run_dir: Path) -> None:
        epochs = [r for r in rows(run_dir, "epochs") if r["trial"].startswith("sklearn")]
        assert len(epochs) == 6
        assert {(r["epoch"], r["lr"]) for r in epochs} == {("0", "")}
        table = rows(run_dir, "hyperparameters")
        estimators = [row for row in table if row["model.name"].startswith("sklearn")]
        empty = ("optimizer", "lr", "momentum", "nesterov", "weight_decay", "epochs", "batch_size")
        assert {row[name] for row in estimators for name in (*empty, "init")} == {""}
        assert {row["epochs"] for row in table if row not in estimators} == {"2"}

    def test_probabilities_of_every_clip(self, run_dir: Path) -> None:
        predictions = rows(run_dir, "predictions")
        assert len(predictions) == 10 * 9
        for row in predictions:
            total = sum(float(row[f"prob_{name}"]) for name in ("low", "noise", "ticks"))
            assert total == pytest.approx(1, abs=1e-6)

    def test_curves_are_drawn_of_networks_only(self, run_dir: Path) -> None:
        plots = {path.name for path in (run_dir / "plots").iterdir()}
        assert {"learning_curves_cnn1d_loss.png", "configuration_curves.png"} <= plots
        assert not [n for n in plots if "curves" in n and "sklearn" in n]
        assert {"roc_sklearn-SVC_validation.png", "folds.png", "hyperparameters.png"} <= plots
        report = (run_dir / "report.html").read_text(encoding="utf-8")
        assert "fitted in one go by scikit-learn" in report

    def test_it_continues_with_equal_tables(
        self, foldgrid, run_dir: Path, tables_of, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(run_dir, copy)
        estimators = sorted((copy / "trials").glob("sklearn-*"))
        for folder in estimators[::2]:
            shutil.rmtree(folder)
        result = foldgrid("run", copy / "spec.yaml", "--out", copy, "--executor", "serial")
        assert result.code == 0, result.err
        assert f"{10 - len(estimators[::2])} of them done before" in result.err
        assert tables_of(copy) == tables_of(run_dir)

    @pytest.mark.ray
    def test_ray_gives_the_same_tables(
        self, foldgrid, write_spec, run_dir: Path, tables_of, tmp_path: Path, ray_address: str
    ) -> None:
        out = tmp_path / "ray"
        options = ("--out", out, "--address", ray_address, "--quiet")
        result = foldgrid("run", write_spec(**MIXED), *options)
        assert result.code == 0, result.err
        assert tables_of(out) == tables_of(run_dir)

    def test_one_that_raises_is_a_failed_row(self, foldgrid, write_spec, tmp_path: Path) -> None:
        # Decibels are negative, which this estimator refuses when it sees them.
        grid = [{"name": "sklearn:MultinomialNB"}, {"name": "sklearn:GaussianNB"}]
        path = write_spec(model={"grid": grid}, features=LOG_MEL, train={}, folds=FOLDS)
        out = tmp_path / "run"
        result = foldgrid("run", path, "--out", out, "--executor", "serial")
        assert result.code == 1
        trials = rows(out, "trials")
        assert [t["status"] for t in trials] == ["failed", "finished"] * 2
        assert "ValueError: Negative values in data" in trials[0]["error"]
        assert not [path for path in (out / "plots").iterdir() if "curves" in path.name]

    def test_a_warning_is_told(self, foldgrid, write_spec, tmp_path: Path) -> None:
        model = {"name": "sklearn:MLPClassifier", "params": {"max_iter": 1}}
        folds = {"validate": [2]}
        path = write_spec(model=model, features=STATISTICS, train={}, folds=folds)
        result = foldgrid("run", path, "--out", tmp_path / "run", "--executor", "serial")
        assert result.code == 0
        assert "-f2-s0: ConvergenceWarning: " in result.err

    def test_one_that_takes_too_long_is_stopped(self, foldgrid, write_spec, tmp_path: Path) -> None:
        params = {"n_estimators": 1_000_000}
        path = write_spec(
            model={"name": "sklearn:RandomForestClassifier", "params": params},
            features=STATISTICS,
            train={},
            folds={"test": 1, "validate": [2]},
            execution={"trial_timeout": 1, "max_failures": 0},
        )
        result = foldgrid("run", path, "--out", tmp_path / "run", "--executor", "serial")
        assert result.code == 1
        (trial,) = rows(tmp_path / "run", "trials")
        assert "no end within 1 s" in trial["error"]


PAPER = {
    "sklearn:KNeighborsClassifier": [58.7, 72.5, 67.5, 72.5, 62.5],
    "sklearn:SVC": [57.5, 78.7, 65.0, 73.7, 62.5],
}
"""Accuracy on each fold in the results that Piczak published with the paper."""


@pytest.mark.esc10
@pytest.mark.slow
@pytest.mark.skipif("ESC10_DIR" not in os.environ, reason="ESC10_DIR is not set")
def test_the_folds_of_esc10_are_those_of_its_paper(foldgrid, tmp_path: Path) -> None:
    config = Path(__file__).parents[1] / "configs" / "esc10_baselines.yaml"
    # Without the random forest, which is another one each time and takes its time.
    grid = [
        {"name": "sklearn:KNeighborsClassifier", "params": {"n_neighbors": 8}},
        {"name": "sklearn:SVC", "params": {"kernel": "linear", "C": 0.1}},
    ]
    text = config.read_text(encoding="utf-8")
    assert all(f'"{one["name"]}"' in text for one in grid)
    out = tmp_path / "run"
    options = ("--out", out, "--executor", "serial", "--quiet")
    result = foldgrid("run", config, *options, "--set", f"model={json.dumps({'grid': grid})}")
    assert result.code == 0, result.err
    for row in rows(out, "configurations"):
        ours = [100 * float(row[f"split{fold}_val_accuracy"]) for fold in range(1, 6)]
        # A clip is 1.25 points.
        assert ours == pytest.approx(PAPER[row["param_model.name"]], abs=2 * 1.25)
