"""Estimators of scikit-learn as winners: kept, refitted, asked, exported, and read with care."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from predicted import (
    PROBABILITIES,
    SERIAL,
    best_of,
    chances,
    check_ensemble,
    predictions,
    read,
    table,
)
from sklearn.utils import all_estimators

from models.estimator import EstimatorError, check_estimator, make_estimator
from models.estimator_answers import answers_of
from models.estimator_file import estimator_bytes, read_estimator
from models.spec import EstimatorSpec
from models.weights import WeightsError
from orchestrator import load_model

MODEL = {"name": "sklearn:SVC", "standardize": True, "params": {"C": {"grid": [1, 100]}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("estimators") / "run"


@pytest.fixture
def run_dir(foldgrid, write_spec, made: Path) -> Path:
    """SVMs with a scaler, two configurations on two folds, and the best one fitted once more."""
    if not made.exists():
        spec = write_spec(model=MODEL, train={}, execution={"keep_weights": "all"})
        result = foldgrid("run", spec, "--out", made, *SERIAL)
        assert result.code == 0, result.err
        result = foldgrid("refit", made)
        assert result.code == 0, result.err
        (made / "said.txt").write_text(result.out, encoding="utf-8")
    return made


class TestKept:
    def test_weights_lie_where_those_of_networks_do(self, run_dir: Path) -> None:
        trials = sorted((run_dir / "trials").iterdir())
        assert len(trials) == 4
        for folder in trials:
            assert sorted(path.name for path in folder.iterdir()) == [
                "result.json",
                "weights.skops",
            ]

    def test_of_the_best_configuration_only(self, foldgrid, write_spec, tmp_path: Path) -> None:
        out = tmp_path / "run"
        grid = [{"name": "sklearn:DummyClassifier"}, {"name": "sklearn:GaussianNB"}]
        spec = write_spec(model={"grid": grid}, train={})
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        kept = {path.parent.name for path in out.glob("trials/*/weights.*")}
        assert kept == {f"{best_of(out)}-t1-f{fold}-s0" for fold in (2, 3)}

    @pytest.mark.ray
    def test_on_ray_too(
        self, foldgrid, write_spec, run_dir, clips, tmp_path: Path, ray_address: str
    ) -> None:
        spec = write_spec(model=MODEL, train={})
        out = tmp_path / "run"
        options = ("--out", out, "--address", ray_address, "--quiet")
        result = foldgrid("run", spec, *options)
        assert result.code == 0, result.err
        clip = clips / "low" / "1-0.wav"
        assert foldgrid("predict", out, clip).out == foldgrid("predict", run_dir, clip).out


class TestPredict:
    def test_answers_for_the_clips_of_a_split_are_those_of_the_trial(
        self, foldgrid, write_spec, spec_of, clips: Path, tmp_path: Path
    ) -> None:
        grid = [
            {"name": "sklearn:SVC", "standardize": True},
            {"name": "sklearn:RandomForestClassifier", "params": {"n_estimators": 5}},
            {"name": "sklearn:KNeighborsClassifier"},
            # It predicts by chance, whatever its probabilities.
            {"name": "sklearn:DummyClassifier", "params": {"strategy": "uniform"}},
        ]
        spec = write_spec(
            model={"grid": grid},
            # An image is stored as one channel of bytes.
            features=spec_of()["features"] | {"kind": "mel_image", "size": 32},
            train={},
            folds={"test": 1, "validate": [2]},
            execution={"keep_weights": "all"},
        )
        out = tmp_path / "run"
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        for split in ("val", "test"):
            for trial, expected in predictions(out, split).groupby("trial"):
                paths = [clips / path for path in expected["clip"]]
                named = ("--configuration", str(trial).rpartition("-t1")[0])
                result = foldgrid("predict", out, *paths, *named)
                assert result.code == 0, result.err
                rows = table(result.out)
                assert len(rows) == 9
                assert [row["predicted"] for row in rows] == list(expected.predicted)
                assert [chances(row) for row in rows] == expected[PROBABILITIES].values.tolist()

    def test_the_ensemble_is_the_mean_over_the_folds_of_the_best(
        self, foldgrid, run_dir: Path, clips: Path
    ) -> None:
        check_ensemble(foldgrid, run_dir, clips)

    def test_a_long_file_has_windows(self, run_dir: Path, clips: Path) -> None:
        whole, *windows = load_model(run_dir).predict([clips / "low" / "1-0.wav"], hop=0.5)
        assert windows == []
        assert sum(whole.probabilities.values()) == pytest.approx(1)
        assert load_model(run_dir).inputs(clips / "low" / "1-0.wav").shape == (1, 16 * 32)

    def test_a_clip_without_an_answer_is_one_line(
        self, foldgrid, write_spec, run_dir, clips, tmp_path: Path
    ) -> None:
        # Only what was fitted lies within such a radius.
        params = {"radius": 1e-6, "outlier_label": "most_frequent"}
        model = {"name": "sklearn:RadiusNeighborsClassifier", "params": params}
        out = tmp_path / "run"
        folds = {"test": 1, "validate": [2]}
        spec = write_spec(model=model, train={}, folds=folds)
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        (path,) = out.glob("trials/*/weights.skops")
        spec_ = EstimatorSpec(name=model["name"], params=params)
        estimator = read_estimator(path, spec_, 16 * 32, 3)
        estimator.outlier_label_ = None
        path.write_bytes(estimator_bytes(estimator))
        result = foldgrid("predict", out, clips / "low" / "1-0.wav")
        assert (result.code, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert line.startswith("sklearn:RadiusNeighborsClassifier: ValueError: No neighbors found")


class TestRefit:
    def test_it_is_fitted_to_all_folds_but_the_test_fold(
        self, foldgrid, run_dir: Path, clips: Path
    ) -> None:
        record = json.loads((run_dir / "refit" / "refit.json").read_text(encoding="utf-8"))
        assert (record["epochs"], record["folds"], record["clips"]) == (1, [2, 3, 4], 27)
        expected = read(run_dir / "refit" / "predictions.csv")
        accuracy = (expected.label == expected.predicted).mean()
        first, second, third = (run_dir / "said.txt").read_text(encoding="utf-8").splitlines()
        assert first == f"refit of {best_of(run_dir)}: fitted on 27 clips of folds 2, 3, 4"
        assert f"accuracy {accuracy:.4f}, " in second
        assert third == f"weights: {run_dir}/refit/weights.skops"
        names = {path.name for path in (run_dir / "refit").iterdir()}
        assert names == {"weights.skops", "refit.json", "predictions.csv"}
        paths = [clips / path for path in expected["clip"]]
        rows = table(foldgrid("predict", run_dir, "--model", "refit", *paths).out)
        assert [chances(row) for row in rows] == expected[PROBABILITIES].values.tolist()
        assert [row["predicted"] for row in rows] == list(expected.predicted)

    def test_its_scaler_saw_all_that_it_was_fitted_to(self, run_dir: Path) -> None:
        of_all, of_fold = (
            load_model(run_dir, kind).models[0][0].n_samples_seen_ for kind in ("refit", "ensemble")
        )
        assert (of_all, of_fold) == (27, 18)

    def test_a_network_after_an_estimator_takes_its_place(
        self, foldgrid, write_spec, clips: Path, tmp_path: Path
    ) -> None:
        out, clip = tmp_path / "run", clips / "low" / "1-0.wav"
        grid = [{"name": "sklearn:GaussianNB"}, {"name": "cnn1d"}]
        train = {"epochs": 1, "batch_size": 8}
        spec = write_spec(model={"grid": grid}, train=train, folds={"test": 1, "validate": [2]})
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        known = pd.read_csv(out / "tables" / "configurations.csv").configuration
        for configuration, name in zip(known, ("skops", "safetensors"), strict=True):
            named = ("--configuration", configuration)
            assert foldgrid("refit", out, "--quiet", *named).code == 0
            names = [path.name for path in (out / "refit").glob("weights.*")]
            assert names == [f"weights.{name}"]
            assert foldgrid("predict", out, clip, "--model", "refit", *named).code == 0

    def test_where_every_fold_tests_it_is_fitted_to_all(
        self, foldgrid, write_spec, tmp_path: Path
    ) -> None:
        model = {"name": "sklearn:GaussianNB"}
        spec = write_spec(
            model=model,
            train={},
            folds={"protocol": "nested"},
            execution={"keep_weights": "all"},
        )
        out = tmp_path / "run"
        assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
        # A trial that stands for two gives both the same.
        names = {path.parent.name for path in out.glob("trials/*/weights.skops")}
        assert names == {path.parent.name for path in out.glob("trials/*/result.json")}
        result = foldgrid("refit", out)
        assert result.code == 0, result.err
        assert "fitted on 36 clips of folds 1, 2, 3, 4" in result.out


class TestExport:
    @pytest.mark.parametrize("kind", ["ensemble", "refit"])
    def test_a_folder_that_answers_as_the_run_directory(
        self, kind, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> None:
        target, paths = tmp_path / "model", sorted(map(str, clips.glob("*/1-*.wav")))
        result = foldgrid("export", run_dir, target, "--model", kind)
        assert result.code == 0, result.err
        best = best_of(run_dir)
        weights = [f"weights-{best}-t1-f{fold}-s0.skops" for fold in (2, 3)]
        if kind == "refit":
            weights = ["weights.skops"]
        names = ["README.txt", "model.json", *weights]
        assert result.out.splitlines() == [
            f"{kind} of {best} in {target}: {', '.join(names)}",
            "no model.onnx: sklearn:SVC is no network, and only networks are written as ONNX",
        ]
        text = (target / "README.txt").read_text(encoding="utf-8")
        assert "weights*.skops " in text
        assert f"scikit-learn {sklearn.__version__}" in text
        assert "safetensors" not in text
        asked = foldgrid("predict", run_dir, *paths, "--model", kind).out
        moved = tmp_path / "elsewhere"
        shutil.move(target, moved)
        assert foldgrid("predict", moved, *paths).out == asked
        found = load_model(str(moved)).predict(paths)
        expected = [chances(row) for row in table(asked)]
        assert [list(row.probabilities.values()) for row in found] == expected


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_entries(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


def changed_entry(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = entries(path)
        content[name] = json.dumps(change(json.loads(content[name]))).encode()
        write_entries(path, content)

    return apply


def text_node(text: str) -> dict[str, Any]:
    kind = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"}
    return kind | {"content": json.dumps(text), "is_json": True, "__id__": 1}


def call_node(module: str, name: str, *texts: str) -> dict[str, Any]:
    """What skops would call, if it trusted the name: `name(*texts)`."""
    given = {
        "__class__": "tuple",
        "__module__": "builtins",
        "__loader__": "TupleNode",
        "content": [text_node(text) for text in texts],
        "__id__": 2,
    }
    kind = {"__class__": name, "__module__": module, "__loader__": "ConstructorFromReduceNode"}
    return kind | {"content": given, "__id__": 3}


class TestBadFiles:
    @pytest.fixture
    def asked(
        self, foldgrid, run_dir: Path, clips: Path, tmp_path: Path
    ) -> Callable[[Callable[[Path], None]], tuple[Any, Path]]:
        """Ask the refitted model after its file has been changed."""

        def ask(change: Callable[[Path], None]) -> tuple[Any, Path]:
            shutil.copytree(run_dir, tmp_path / "run")
            path = tmp_path / "run" / "refit" / "weights.skops"
            change(path)
            clip = clips / "low" / "1-0.wav"
            return foldgrid("predict", tmp_path / "run", clip, "--model", "refit"), path

        return ask

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("os", "system"),
            ("builtins", "eval"),
            # They belong to the libraries that estimators are made of, and run what they are given.
            ("numpy.testing._private.utils", "runstring"),
            ("sklearn.utils._testing", "check_output"),
            ("scipy._lib._testutils", "PytestTester"),
        ],
    )
    def test_what_is_not_trusted_is_refused_and_never_called(
        self, asked, tmp_path: Path, module: str, name: str
    ) -> None:
        mark = tmp_path / "mark"

        def hostile(schema: dict[str, Any]) -> dict[str, Any]:
            steps = schema["content"]["content"]
            steps["hostile"] = call_node(module, name, f"touch {mark}", f"open({str(mark)!r}, 'w')")
            return schema

        result, path = asked(changed_entry("schema.json", hostile))
        assert (result.code, result.out) == (2, "")
        made = f"of which scikit-learn {sklearn.__version__} makes no estimator"
        assert result.err == f"{path}: it holds {module}.{name}, {made}\n"
        assert not mark.exists()

    def test_a_flipped_bit_is_found(self, asked) -> None:
        def flip(path: Path) -> None:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

        result, path = asked(flip)
        assert (result.code, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert line.startswith(f"{path}: it is damaged (")

    @pytest.mark.parametrize("size", [0, 10, 1000])
    def test_a_file_that_is_cut_off(self, asked, size: int) -> None:
        result, path = asked(lambda path: path.write_bytes(path.read_bytes()[:size]))
        assert (result.code, result.out) == (2, "")
        assert result.err == f"{path}: it is damaged (BadZipFile: File is not a zip file)\n"

    def test_a_missing_file(self, asked) -> None:
        result, path = asked(Path.unlink)
        assert (result.code, result.out) == (2, "")
        assert result.err == f"{path}: it cannot be read: No such file or directory\n"

    def test_another_version_of_scikit_learn_is_a_warning(self, asked) -> None:
        result, path = asked(changed_entry("foldgrid.json", lambda _: {"scikit-learn": "1.2.3"}))
        assert result.code == 0
        (row,) = table(result.out)
        assert sum(chances(row)) == pytest.approx(1)
        (line,) = result.err.splitlines()
        here = f"fitted by scikit-learn 1.2.3, and this is {sklearn.__version__}"
        assert line == f"warning: {path}: {here}: its answers may be others"

    def test_one_that_this_version_cannot_load(self, asked) -> None:
        def older(path: Path) -> None:
            changed_entry("foldgrid.json", lambda _: {"scikit-learn": "1.2.3"})(path)
            content = entries(path)
            del content[next(name for name in content if name.endswith(".npy"))]
            write_entries(path, content)

        result, path = asked(older)
        assert (result.code, result.out) == (2, "")
        (line,) = result.err.splitlines()
        reason = f"it was fitted by scikit-learn 1.2.3, and {sklearn.__version__} cannot load it"
        assert line.startswith(f"{path}: {reason} (KeyError: ")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "sklearn:NuSVC"}, "it holds StandardScaler and SVC, not NuSVC"),
            ({"name": "sklearn:SVC"}, "it holds StandardScaler and SVC, not SVC"),
        ],
    )
    def test_another_estimator_is_refused(self, run_dir: Path, change, message: str) -> None:
        path = run_dir / "refit" / "weights.skops"
        with pytest.raises(WeightsError, match=f"^{message}$"):
            read_estimator(path, EstimatorSpec(**change), 16 * 32, 3)
        right = EstimatorSpec(name="sklearn:SVC", standardize=True)
        with pytest.raises(WeightsError, match=r"^it takes 512 numbers a clip, not 26$"):
            read_estimator(path, right, 26, 3)
        with pytest.raises(WeightsError, match=r"^it does not tell 4 classes apart$"):
            read_estimator(path, right, 512, 4)


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "KNeighborsClassifier": [
        *({"algorithm": "ball_tree", "metric": name} for name in ("canberra", "hamming", "dice")),
        {"algorithm": "kd_tree", "p": 3},
        {"algorithm": "brute", "metric": "cosine"},
    ],
    "MLPClassifier": [{"solver": name, "max_iter": 3} for name in ("sgd", "lbfgs", "adam")],
    "CalibratedClassifierCV": [{"method": name} for name in ("isotonic", "temperature")],
    "SGDClassifier": [{"loss": name} for name in ("log_loss", "modified_huber", "huber")],
    "GradientBoostingClassifier": [{"n_estimators": 2}],
    "RandomForestClassifier": [{"n_estimators": 2}],
    "ExtraTreesClassifier": [{"n_estimators": 2}],
    "AdaBoostClassifier": [{"n_estimators": 2}],
    "HistGradientBoostingClassifier": [{"max_iter": 2}],
    "LabelSpreading": [{"kernel": "knn"}],
    "LabelPropagation": [{"kernel": "knn"}],
    "RadiusNeighborsClassifier": [{"radius": 10.0}],
    "DummyClassifier": [{"strategy": "most_frequent"}],
}


def specifications() -> list[EstimatorSpec]:
    """Every classifier of scikit-learn that a specification can name, some with parameters."""
    specs = []
    for name, _ in all_estimators(type_filter="classifier"):
        try:
            check_estimator(EstimatorSpec(name=f"sklearn:{name}"))
        except EstimatorError:
            continue
        for params in VARIANTS.get(name, [{}]):
            specs.append(EstimatorSpec(name=f"sklearn:{name}", standardize=False, params=params))
    return specs


def test_every_classifier_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    vectors = rng.uniform(0, 1, (60, 6))
    vectors[np.arange(60), labels] += 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        specs = specifications()
        assert len(specs) > 30
        for spec in specs:
            estimator = make_estimator(spec, 0).fit(vectors, labels)
            path = tmp_path / "weights.skops"
            path.write_bytes(estimator_bytes(estimator))
            again = read_estimator(path, spec, 6, 3)
            before, after = (answers_of(one, vectors, 3) for one in (estimator, again))
            assert np.array_equal(before.predicted, after.predicted), spec
            assert np.allclose(before.probabilities, after.probabilities, atol=1e-12), spec


def test_what_would_not_be_read_back_is_not_written() -> None:
    estimator = make_estimator(EstimatorSpec(name="sklearn:GaussianNB"), 0)
    estimator.fit([[0.0], [1.0]], [0, 1])
    estimator.more = EstimatorSpec(name="sklearn:SVC")
    with pytest.raises(WeightsError, match=r"^it holds models\.spec\.EstimatorSpec, which is not"):
        estimator_bytes(estimator)
