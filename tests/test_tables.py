"""The summarizer: every table as the records say, whatever the order in which trials finished."""

from __future__ import annotations

import csv
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.spec import WaveformSpec
from models.spec import Cnn1dSpec, CnnTransformerSpec, FactorySpec, ModelSpec
from orchestrator.configuration_scores import (
    best_configuration,
    configuration_scores,
    metric_of,
    ranks,
)
from orchestrator.csv_files import CsvWriter, percent, text
from orchestrator.errors import InterruptionError, RunDirectoryError
from orchestrator.hyperparameters import AdamSpec, OptimizerSpec, SgdSpec, TrainSpec
from orchestrator.ledger import Ledger
from orchestrator.outcomes import Results
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Predictions,
    Scores,
    SplitResult,
    Timing,
    TrialFailure,
    TrialRecord,
)
from orchestrator.renewal import TableRenewal
from orchestrator.specification import FORMAT_VERSION
from orchestrator.tables import best_of, write_tables
from orchestrator.trials import ClipRow, Configuration, Plan, Trial

# Not so small that their squares underflow, in numpy's standard deviation.
SCORES = st.floats(-1e30, 1e30).filter(lambda x: x == 0 or abs(x) > 1e-100)
CLASSES = ("dog", "sea, waves")
CLIPS = (ClipRow("b/2.wav", 1), ClipRow("a/10.wav", 0), ClipRow("a/2.wav", 0), ClipRow("ä.wav", 1))


def configuration(
    model: ModelSpec | None = None, optimizer: OptimizerSpec | None = None
) -> Configuration:
    train = TrainSpec(epochs=2, optimizer=optimizer or SgdSpec())
    return Configuration(WaveformSpec(seconds=1.0), model or Cnn1dSpec(), train)


def decays(*values: float) -> list[Configuration]:
    return [configuration(optimizer=SgdSpec(weight_decay=value)) for value in values]


def plan_of(trials: Iterable[Trial], metric: str = "val_accuracy", mode: str = "max") -> Plan:
    return Plan("sweep", metric, mode, CLASSES, CLIPS, tuple(trials))


def product(
    configurations: Sequence[Configuration],
    folds: Sequence[int] = (2, 3),
    seeds: Sequence[int] = (0,),
    test: int | None = 1,
) -> Plan:
    return plan_of(Trial(c, test, f, s) for f in folds for c in configurations for s in seeds)


def finish(
    trial: Trial, accuracy: float = 0.5, loss: float = 1.0, auroc: float | None = 0.5
) -> TrialRecord:
    def split(shift: float, clips: tuple[int, ...]) -> SplitResult:
        scores = Scores(
            *(accuracy + shift, loss, 0.125, 0.25, accuracy + shift, auroc, 0.5, 0.0625, 1.0)
        )
        n = len(clips)
        return SplitResult(scores, Predictions(clips, (0,) * n, (1,) * n, ((1e-05, 0.99999),) * n))

    return TrialRecord(
        trial=trial.id,
        epoch=1,
        epochs=tuple(EpochRow(i, 0.001, 2.0 - i, 0.25, loss, accuracy) for i in range(2)),
        val=split(0, (0, 1, 2)),
        test=None if trial.test_fold is None else split(-0.25, (3, 1)),
        parameters=ParameterCount(641034, 641000),
        timing=Timing("2026-01-01T00:00:00+00:00", 1.5, 1.25, 1, "host", "cpu"),
    )


def failure(trial: Trial, error: str = 'ValueError: no, "never"') -> TrialFailure:
    timing = Timing("2026-01-02T00:00:00+00:00", 0.5, 0.25, 3, "host", "cpu")
    return TrialFailure(trial.id, error, "Traceback", timing)


def write(
    run_dir: Path, plan: Plan, results: Iterable[TrialRecord | TrialFailure | None]
) -> dict[str, list[dict[str, str]]]:
    """Write results in plan order, then the tables; read them back: rows as mappings by name."""
    ledger = Ledger.open(run_dir)
    ledger.write_plan(plan)
    for result in results:
        if isinstance(result, TrialRecord):
            ledger.record(result)
        elif result is not None:
            ledger.fail(result)
    paths = write_tables(run_dir).files
    assert sorted(paths) == sorted((run_dir / "tables").iterdir())
    return {path.stem: read(path) for path in paths}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def header(run_dir: Path, table: str) -> list[str]:
    text = (run_dir / "tables" / f"{table}.csv").read_text(encoding="utf-8")
    return next(csv.reader([text.splitlines()[0]]))


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    return [row[name] for row in rows]


class TestCells:
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_floats_read_back_the_same(self, value: float) -> None:
        assert float(text(value)) == value

    @given(st.integers(0, 10_000))
    def test_percent_moves_the_point_and_nothing_else(self, n: int) -> None:
        assert text(percent(n / 10_000)) == repr(float(f"{n // 100}.{n % 100:02d}"))

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, ""),
            (True, "true"),
            (False, "false"),
            (4, "4"),
            (1e-05, "1e-05"),
            (0.1, "0.1"),
            (100.0, "100.0"),
            ([1, 2.5, "ä"], '[1,2.5,"ä"]'),
        ],
    )
    def test_known(self, value: object, expected: str) -> None:
        assert text(value) == expected  # type: ignore[arg-type]

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=4))
    def test_any_text_reads_back(
        self, tmp_path_factory: pytest.TempPathFactory, row: list[str]
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            CsvWriter(file).row(row)
        written = path.read_bytes().decode()
        assert written.endswith("\n")
        assert not written.endswith("\r\n") or row[-1].endswith("\r")
        with path.open(encoding="utf-8", newline="") as file:
            assert list(csv.reader(file, strict=True)) == [row]

    def test_quotes_only_where_needed(self, tmp_path: Path) -> None:
        with (tmp_path / "a.csv").open("w", newline="") as file:
            CsvWriter(file).row(["a b", "c,d", 'e"f', "g\nh", "i\rj", None, "é"])
        expected = 'a b,"c,d","e""f","g\nh","i\rj",,é\n'
        assert (tmp_path / "a.csv").read_bytes() == expected.encode()


class TestTrials:
    def test_header(self, tmp_path: Path) -> None:
        heads = [configuration(CnnTransformerSpec(heads=h)) for h in (1, 2)]
        write(tmp_path, product(heads), [])
        scores = ("accuracy", "loss", "precision", "recall", "f1", "auroc")
        weighted = ("precision_weighted", "recall_weighted", "f1_weighted")
        assert header(tmp_path, "trials") == [
            *("trial", "configuration", "test_fold", "fold", "seed", "model.heads"),
            *("status", "epoch", "train_accuracy", "train_loss"),
            *(f"val_{name}" for name in scores),
            *(f"test_{name}" for name in scores),
            *("average_val_accuracy", "parameters", "error"),
            *(f"val_{name}" for name in weighted),
            *(f"test_{name}" for name in weighted),
        ]

    def test_one_row_a_trial_in_plan_order(self, tmp_path: Path) -> None:
        plan = product(decays(0.0, 1e-05))
        first, second, third, _ = plan.trials
        tables = write(tmp_path, plan, [failure(second), finish(third, 0.75, auroc=None)])
        rows = tables["trials"]
        assert column(rows, "trial") == [t.id for t in plan.trials]
        assert column(rows, "status") == ["pending", "failed", "finished", "pending"]
        assert column(rows, "error") == ["", 'ValueError: no, "never"', "", ""]
        assert column(rows, "train.optimizer.weight_decay") == ["0.0", "1e-05"] * 2
        finished = rows[2]
        assert finished["configuration"] == first.configuration.id
        expected = {
            **{"test_fold": "1", "fold": "3", "seed": "0", "epoch": "1"},
            **{"train_accuracy": "0.25", "train_loss": "1.0", "average_val_accuracy": "0.75"},
            **{"val_accuracy": "0.75", "val_loss": "1.0", "val_precision": "0.125"},
            **{"val_recall": "0.25", "val_f1": "0.75", "val_auroc": "", "test_accuracy": "0.5"},
            **{"test_f1": "0.5", "test_auroc": "", "parameters": "641034"},
            **{"val_precision_weighted": "0.5", "val_recall_weighted": "0.0625"},
            **{"val_f1_weighted": "1.0", "test_f1_weighted": "1.0"},
        }
        assert {name: finished[name] for name in expected} == expected
        unfinished = {**rows[0], "trial": "", "configuration": "", "status": ""}
        given = {"test_fold": "1", "fold": "2", "seed": "0", "train.optimizer.weight_decay": "0.0"}
        assert {k: v for k, v in unfinished.items() if v} == given

    def test_integers_have_no_point_beside_empty_cells(self, tmp_path: Path) -> None:
        plan = product([configuration(), configuration(CnnTransformerSpec(heads=2))], (2,))
        rows = write(tmp_path, plan, [finish(plan.trials[1])])["trials"]
        assert column(rows, "epoch") == ["", "1"]
        assert column(rows, "parameters") == ["", "641034"]
        assert column(rows, "model.heads") == ["", "2"]
        assert column(rows, "model.name") == ["cnn1d", "cnn_transformer"]

    def test_without_a_test_fold(self, tmp_path: Path) -> None:
        plan = product([configuration()], test=None)
        tables = write(tmp_path, plan, [finish(t) for t in plan.trials])
        assert set(column(tables["trials"], "test_fold")) == {""}
        assert set(column(tables["trials"], "test_accuracy")) == {""}
        assert set(column(tables["predictions"], "split")) == {"val"}

    def test_values_of_every_kind(self, tmp_path: Path) -> None:
        params: list[dict[str, object]] = [
            {"sizes": [8, 16], "deep": {"on": True}},
            {"sizes": [8], "deep": {"on": False}},
            {"sizes": None},
        ]
        models = [FactorySpec(name="nets:own", params=p) for p in params]
        rows = write(tmp_path, product([configuration(m) for m in models], (2,)), [])["trials"]
        assert column(rows, "model.params.sizes") == ["[8,16]", "[8]", ""]
        assert column(rows, "model.params.deep.on") == ["true", "false", ""]


class TestEpochs:
    def test_the_finished_trials(self, tmp_path: Path) -> None:
        plan = product(decays(0.0, 0.1), folds=(2,))
        record = finish(plan.trials[1], 0.75)
        tested = replace(record.epochs[0], test_loss=0.5, test_accuracy=0.25)
        record = replace(record, epochs=(tested, record.epochs[1]))
        rows = write(tmp_path, plan, [failure(plan.trials[0]), record])["epochs"]
        assert header(tmp_path, "epochs") == [
            *("trial", "configuration", "test_fold", "fold", "seed", "epoch", "lr"),
            *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
            *("test_loss", "test_accuracy"),
        ]
        trial = plan.trials[1]
        place = [trial.id, trial.configuration.id, "1", "2", "0"]
        assert [list(row.values()) for row in rows] == [
            [*place, "0", "0.001", "2.0", "0.25", "1.0", "0.75", "0.5", "0.25"],
            [*place, "1", "0.001", "1.0", "0.25", "1.0", "0.75", "", ""],
        ]


class TestPredictions:
    def test_split_then_clip_in_string_order(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2,))
        rows = write(tmp_path, plan, [finish(plan.trials[0])])["predictions"]
        names = ["trial", "split", "clip", "label", "predicted", "prob_dog", "prob_sea, waves"]
        assert list(rows[0]) == names
        assert [(row["split"], row["clip"]) for row in rows] == [
            ("val", "a/10.wav"),
            ("val", "a/2.wav"),
            ("val", "b/2.wav"),
            ("test", "a/10.wav"),
            ("test", "ä.wav"),
        ]
        assert set(column(rows, "label")) == {"dog"}
        assert set(column(rows, "predicted")) == {"sea, waves"}
        assert set(column(rows, "prob_dog")) == {"1e-05"}

    def test_each_row_keeps_its_own_values(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2,), test=None)
        record = finish(plan.trials[0])
        mixed = Predictions((0, 2, 1), (1, 0, 1), (0, 0, 1), ((0.9, 0.1), (0.7, 0.3), (0.4, 0.6)))
        record = replace(record, val=replace(record.val, predictions=mixed))
        rows = write(tmp_path, plan, [record])["predictions"]
        assert [list(row.values())[2:] for row in rows] == [
            ["a/10.wav", "sea, waves", "sea, waves", "0.4", "0.6"],
            ["a/2.wav", "dog", "dog", "0.7", "0.3"],
            ["b/2.wav", "sea, waves", "dog", "0.9", "0.1"],
        ]


class TestConfigurations:
    def test_header(self, tmp_path: Path) -> None:
        plan = replace(product(decays(0.0, 0.1), folds=(3, 2)), metric="val_auroc")
        write(tmp_path, plan, [])
        metrics = ("val_accuracy", "test_accuracy", "val_f1", "val_loss", "val_auroc")
        stems = ("split3", "split2", "mean", "std", "rank")
        assert header(tmp_path, "configurations") == [
            *("configuration", "param_train.optimizer.weight_decay"),
            *(f"{stem}_{metric}" for metric in metrics for stem in stems),
            "folds_finished",
        ]

    def test_header_with_repeats(self, tmp_path: Path) -> None:
        write(tmp_path, product([configuration()], folds=(2, 3), seeds=(5, 6)), [])
        assert header(tmp_path, "configurations")[1:8] == [
            *("split2_seed5_val_accuracy", "split2_seed6_val_accuracy"),
            *("split3_seed5_val_accuracy", "split3_seed6_val_accuracy"),
            *("mean_val_accuracy", "std_val_accuracy", "rank_val_accuracy"),
        ]

    def test_scores_over_folds(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2, 0.3))
        values = [0.5, 0.25, 0.75, 1.0, 0.5, None]  # fold 2, then fold 3
        results = [
            None if value is None else finish(trial, value, loss=2 * value)
            for trial, value in zip(plan.trials, values, strict=True)
        ]
        rows = write(tmp_path, plan, results)["configurations"]
        assert column(rows, "configuration") == [c.id for c in plan.configurations]
        assert column(rows, "param_train.optimizer.weight_decay") == ["0.1", "0.2", "0.3"]
        assert column(rows, "split2_val_accuracy") == ["0.5", "0.25", "0.75"]
        assert column(rows, "split3_val_accuracy") == ["1.0", "0.5", ""]
        assert column(rows, "mean_val_accuracy") == ["0.75", "0.375", "0.75"]
        assert column(rows, "std_val_accuracy") == ["0.25", "0.125", "0.0"]
        assert column(rows, "rank_val_accuracy") == ["1", "2", ""]
        assert column(rows, "rank_val_loss") == ["2", "1", ""]
        assert column(rows, "mean_test_accuracy") == ["0.5", "0.125", "0.5"]
        assert column(rows, "folds_finished") == ["2", "2", "1"]

    @pytest.mark.parametrize("missing", [2, 3])
    def test_a_fold_counts_when_every_repeat_has_finished(
        self, tmp_path: Path, missing: int
    ) -> None:
        plan = product([configuration()], folds=(2, 3), seeds=(0, 1))
        done = [finish(t) for i, t in enumerate(plan.trials) if i != missing]
        rows = write(tmp_path, plan, done)["configurations"]
        assert column(rows, "folds_finished") == ["1"]
        assert column(rows, "rank_val_accuracy") == [""]

    def test_nothing_has_finished(self, tmp_path: Path) -> None:
        tables = write(tmp_path, product([configuration()]), [])
        (row,) = tables["configurations"]
        assert {name for name, cell in row.items() if cell} == {"configuration", "folds_finished"}
        assert row["folds_finished"] == "0"
        for name in ("epochs", "predictions", "timings", "parameters", "best_hyperparameters"):
            assert tables[name] == []

    def test_a_metric_missing_in_a_fold(self, tmp_path: Path) -> None:
        plan = replace(product([configuration()]), metric="val_auroc")
        results = [finish(plan.trials[0], auroc=None), finish(plan.trials[1], auroc=0.75)]
        (row,) = write(tmp_path, plan, results)["configurations"]
        assert (row["mean_val_auroc"], row["rank_val_auroc"]) == ("0.75", "")
        assert row["rank_val_accuracy"] == "1"

    def test_each_test_fold_in_turn_is_named_by_the_validation_fold(self, tmp_path: Path) -> None:
        plan = plan_of(Trial(configuration(), i, (i + 1) % 3, 0) for i in range(3))
        write(tmp_path, plan, [])
        assert header(tmp_path, "configurations")[1:4] == [
            f"split{fold}_val_accuracy" for fold in (1, 2, 0)
        ]

    @settings(deadline=None)
    @given(
        st.integers(1, 4).flatmap(
            lambda folds: st.lists(
                st.lists(
                    st.none() | st.sampled_from([0.1, 0.2, 0.3]) | SCORES,
                    min_size=folds,
                    max_size=folds,
                ),
                min_size=1,
                max_size=6,
            )
        ),
        st.sampled_from(["max", "min"]),
    )
    def test_against_numpy_and_pandas(self, values: list[list[float | None]], mode: str) -> None:
        configurations = decays(*(i / 10 for i in range(len(values))))
        plan = product(configurations, folds=range(len(values[0])))
        by_trial = {
            trial.id: value
            for trial in plan.trials
            if (value := values[configurations.index(trial.configuration)][trial.fold]) is not None
        }
        scores = configuration_scores(plan, by_trial)
        for one, given_values in zip(scores, values, strict=True):
            there = [value for value in given_values if value is not None]
            if not there:
                assert one.mean is None
                assert one.std is None
                continue
            scale = max(map(abs, there))
            assert one.mean == pytest.approx(np.mean(there), rel=1e-12, abs=1e-12 * scale)
            assert one.std == pytest.approx(np.std(there), rel=1e-9, abs=1e-12 * scale)
        means = [
            None if one.mean is None or None in row else round(one.mean, 12)
            for one, row in zip(scores, values, strict=True)
        ]
        expected = pd.Series(means, dtype=float).rank(method="min", ascending=mode == "min")
        assert ranks(scores, mode) == [None if np.isnan(r) else int(r) for r in expected]


class TestBest:
    def test_only_complete_configurations_and_ties_by_plan_order(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2, 0.3, 0.4))
        values = [0.25, 0.5, 0.75, 1.0, 0.25, 0.75, 0.5, None]
        results = [
            finish(t, v) if v is not None else None
            for t, v in zip(plan.trials, values, strict=True)
        ]
        tables = write(tmp_path, plan, results)
        best = best_of(Results.read(tmp_path))
        assert best is not None
        assert best.configuration == plan.configurations[1]
        assert (best.metric, best.mean, best.std) == ("val_accuracy", 0.625, 0.125)
        assert [(f.trial.fold, f.value) for f in best.folds] == [(2, 0.5), (3, 0.75)]
        assert [tuple(row.values()) for row in tables["best_hyperparameters"]] == [
            ("train.optimizer.weight_decay", "0.2"),
            ("optimizer", "sgd"),
            ("lr", "0.01"),
            ("momentum", "0.0"),
            ("nesterov", "false"),
            ("weight_decay", "0.2"),
            ("epochs", "2"),
            ("batch_size", "16"),
            ("init", "random"),
        ]
        assert header(tmp_path, "best_hyperparameters") == ["Hyperparameter", "Value"]

    def test_equal_folds_in_another_order_are_a_tie(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2), folds=(2, 3, 4))
        values = [0.1, 0.3, 0.2, 0.2, 0.3, 0.1]
        records = [finish(t, v) for t, v in zip(plan.trials, values, strict=True)]
        tables = write(tmp_path, plan, records)
        assert column(tables["configurations"], "rank_val_accuracy") == ["1", "1"]
        assert tables["best_hyperparameters"][0]["Value"] == "0.1"

    def test_sums_that_are_equal_on_paper_are_a_tie(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2))
        # As floats the second mean is higher: 0.775, and 0.7749999999999999.
        values = [78 / 80, 79 / 80, 46 / 80, 45 / 80]
        records = [finish(t, v) for t, v in zip(plan.trials, values, strict=True)]
        tables = write(tmp_path, plan, records)
        assert column(tables["configurations"], "rank_val_accuracy") == ["1", "1"]
        assert tables["best_hyperparameters"][0]["Value"] == "0.1"

    def test_by_the_loss(self, tmp_path: Path) -> None:
        plan = replace(product(decays(0.1, 0.2), folds=(2,)), metric="val_loss", mode="min")
        records = [finish(t, loss=v) for t, v in zip(plan.trials, (2.0, 1.0), strict=True)]
        rows = write(tmp_path, plan, records)["best_hyperparameters"]
        assert rows[0]["Value"] == "0.2"

    def test_rank_one_is_the_best_where_the_mode_is_turned_around(self, tmp_path: Path) -> None:
        plan = replace(product(decays(0.1, 0.2), folds=(2,)), mode="min")
        records = [finish(t, v) for t, v in zip(plan.trials, (0.75, 0.5), strict=True)]
        tables = write(tmp_path, plan, records)
        assert column(tables["configurations"], "rank_val_accuracy") == ["2", "1"]
        assert tables["best_hyperparameters"][0]["Value"] == "0.2"

    def test_none_yet(self) -> None:
        plan = product([configuration()])
        one = [finish(plan.trials[0])]
        assert (
            best_configuration(plan, {r.trial: metric_of(r, "val_accuracy") for r in one}) is None
        )

    def test_of_each_model(self, tmp_path: Path) -> None:
        points = [
            configuration(),
            configuration(Cnn1dSpec(init="xavier")),
            configuration(CnnTransformerSpec(heads=2), AdamSpec()),
        ]
        plan = product(points, folds=(2,))
        records = [finish(t, v) for t, v in zip(plan.trials, (0.75, 1.0, 0.5), strict=True)]
        tables = write(tmp_path, plan, records)
        assert tables["best_hyperparameters"] == tables["best_hyperparameters_cnn1d"]
        cnn1d, other = (
            {row["Hyperparameter"]: row["Value"] for row in tables[f"best_hyperparameters_{name}"]}
            for name in ("cnn1d", "cnn_transformer")
        )
        assert (cnn1d["init"], cnn1d["model.heads"]) == ("xavier", "")
        assert (other["optimizer"], other["momentum"], other["nesterov"]) == ("adam", "", "")
        assert list(cnn1d) == list(other)

    def test_stale_tables_of_models_go(self, tmp_path: Path) -> None:
        write(tmp_path, product([configuration(), configuration(CnnTransformerSpec())]), [])
        tables = write(tmp_path, product([configuration()]), [])
        assert not [name for name in tables if name.startswith("best_hyperparameters_")]


class TestOtherTables:
    def test_hyperparameters(self, tmp_path: Path) -> None:
        plan = product([configuration(), configuration(optimizer=AdamSpec(lr=1e-05))], (2,))
        rows = write(tmp_path, plan, [finish(plan.trials[1], 0.75)])["hyperparameters"]
        assert header(tmp_path, "hyperparameters") == [
            *("configuration", "test_fold", "fold", "seed"),
            *plan.varying,
            *("optimizer", "lr", "momentum", "nesterov", "weight_decay", "epochs", "batch_size"),
            *("init", "epoch", "train_accuracy", "train_loss", "val_accuracy", "val_loss"),
            *("test_accuracy", "test_loss"),
        ]
        assert column(rows, "optimizer") == ["sgd", "adam"]
        assert column(rows, "lr") == ["0.01", "1e-05"]
        assert column(rows, "nesterov") == ["false", ""]
        assert column(rows, "epochs") == ["2", "2"]
        assert column(rows, "epoch") == ["", "1"]
        assert column(rows, "test_accuracy") == ["", "0.5"]

    def test_parameters(self, tmp_path: Path) -> None:
        heads = [configuration(CnnTransformerSpec(heads=h)) for h in (1, 2)]
        plan = product([configuration(), *heads])
        sizes = {"cnn1d": ParameterCount(641034, 641034), "cnn_transformer": ParameterCount(9, 7)}
        records = [
            replace(finish(t), parameters=sizes[t.configuration.model.name]) for t in plan.trials
        ]
        rows = write(tmp_path, plan, records)["parameters"]
        assert header(tmp_path, "parameters") == ["model", "total", "trainable", "non_trainable"]
        assert [tuple(row.values()) for row in rows] == [
            ("cnn1d", "641034", "641034", "0"),
            ("cnn_transformer", "9", "7", "2"),
        ]

    def test_timings_of_finished_and_failed_trials(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2, 0.3), folds=(2,))
        rows = write(tmp_path, plan, [failure(plan.trials[0]), finish(plan.trials[2])])["timings"]
        assert [tuple(row.values()) for row in rows] == [
            (plan.trials[0].id, "2026-01-02T00:00:00+00:00", "0.5", "0.25", "3", "host", "cpu"),
            (plan.trials[2].id, "2026-01-01T00:00:00+00:00", "1.5", "1.25", "1", "host", "cpu"),
        ]

    def test_clips_left_out(self, tmp_path: Path) -> None:
        plan = product([configuration()])
        bad = replace(plan, clips=(*CLIPS, ClipRow("z.wav", 1, "no audio")))
        tables = write(tmp_path, bad, [])
        assert tables["skipped_clips"] == [
            {"clip": "z.wav", "label": "sea, waves", "problem": "no audio"}
        ]
        assert "skipped_clips" not in write(tmp_path, plan, [])

    def test_a_clip_whose_name_is_not_utf8(self, tmp_path: Path) -> None:
        clips = (ClipRow("a\udcff.wav", 0), *CLIPS[1:])
        plan = replace(product([configuration()], folds=(2,)), clips=clips)
        rows = write(tmp_path, plan, [finish(plan.trials[0])])["predictions"]
        assert "a\\udcff.wav" in column(rows, "clip")

    def test_allowed_leakage_is_in_every_table(self, tmp_path: Path) -> None:
        plan = replace(product(decays(0.1, 0.2)), leakage_allowed=True)
        tables = write(tmp_path, plan, [finish(t) for t in plan.trials])
        last = {"Hyperparameter": "leakage_allowed", "Value": "true"}
        assert tables.pop("best_hyperparameters")[-1] == last
        for name, rows in tables.items():
            assert header(tmp_path, name)[-1] == "leakage_allowed"
            assert set(column(rows, "leakage_allowed")) == {"true"}
            assert rows

    def test_no_leakage_is_not_mentioned(self, tmp_path: Path) -> None:
        plan = product([configuration()])
        write(tmp_path, plan, [finish(t) for t in plan.trials])
        for path in (tmp_path / "tables").iterdir():
            assert "leakage" not in path.read_text(encoding="utf-8")


def contents(run_dir: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (run_dir / "tables").iterdir()}


class TestTheRunDirectory:
    def test_equal_records_give_equal_bytes_in_any_order(self, tmp_path: Path) -> None:
        points = [configuration(), configuration(CnnTransformerSpec(heads=2))]
        plan = product(points, folds=(2, 3, 4), seeds=(0, 1))
        records = [finish(t, i / 7, loss=1 / (i + 1)) for i, t in enumerate(plan.trials)]
        write(tmp_path / "one", plan, records)
        shuffled = list(records)
        random.Random(0).shuffle(shuffled)
        other = tmp_path / "other"
        write(other, plan, [failure(plan.trials[2]), *shuffled[:5]])
        elsewhere = Timing("2027-01-01T00:00:00+00:00", 9.0, 8.0, 2, "elsewhere", "cpu")
        write(other, plan, [replace(record, timing=elsewhere) for record in shuffled[5:]])
        one, again = contents(tmp_path / "one"), contents(other)
        assert one.pop("timings.csv") != again.pop("timings.csv")
        assert one == again

    def test_plan_and_trials_are_all_that_is_read(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2))
        write(tmp_path / "one", plan, [finish(plan.trials[0]), failure(plan.trials[1])])
        moved = tmp_path / "moved"
        moved.mkdir()
        shutil.copy(tmp_path / "one" / "plan.json", moved)
        shutil.copytree(tmp_path / "one" / "trials", moved / "trials")
        write_tables(moved)
        assert contents(moved) == contents(tmp_path / "one")

    def test_every_number_reads_back(self, tmp_path: Path) -> None:
        plan = product(decays(*(i / 97 for i in range(5))), folds=(2, 3, 4))
        draw = random.Random(1)
        records = [finish(t, draw.random(), 10 * draw.random()) for t in plan.trials]
        rows = write(tmp_path, plan, records)["trials"]
        assert [float(row["val_accuracy"]) for row in rows] == [
            r.val.scores.accuracy for r in records
        ]
        assert [float(row["val_loss"]) for row in rows] == [r.val.scores.loss for r in records]
        settings = column(rows, "train.optimizer.weight_decay")
        assert [float(cell) for cell in settings] == [i / 97 for i in range(5)] * 3

    def test_pandas_reads_it(self, tmp_path: Path) -> None:
        plan = product(decays(0.1, 0.2), folds=(2, 3, 4))
        records = [finish(t, i / 7) for i, t in enumerate(plan.trials)]
        write(tmp_path, plan, records)
        table = pd.read_csv(tmp_path / "tables" / "trials.csv")
        assert table["parameters"].dtype == np.int64
        averages = table.groupby("configuration", sort=False)["val_accuracy"].expanding().mean()
        expected = averages.reset_index(level=0, drop=True).sort_index()
        assert table["average_val_accuracy"].to_numpy() == pytest.approx(expected.to_numpy())

    def test_no_run_directory(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "absent"):
            with pytest.raises(RunDirectoryError, match=r"no plan\.json"):
                write_tables(folder)
        assert list(tmp_path.iterdir()) == []

    def test_a_record_of_a_later_version(self, tmp_path: Path) -> None:
        plan = product([configuration()])
        write(tmp_path, plan, [finish(plan.trials[0])])
        before = contents(tmp_path)
        path = tmp_path / "trials" / plan.trials[1].id / "result.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"format_version": FORMAT_VERSION + 1}))
        with pytest.raises(RunDirectoryError, match="format_version"):
            write_tables(tmp_path)
        assert contents(tmp_path) == before

    def test_tables_cannot_be_written(self, tmp_path: Path) -> None:
        Ledger.open(tmp_path).write_plan(product([configuration()]))
        (tmp_path / "tables").write_text("a file")
        with pytest.raises(RunDirectoryError) as caught:
            write_tables(tmp_path)
        assert len(caught.value.lines()) == 1


class TestRenewal:
    def test_beside_the_sweep(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2, 3))
        ledger = Ledger.open(tmp_path)
        ledger.write_plan(plan)
        ledger.record(finish(plan.trials[0]))
        with TableRenewal(tmp_path, seconds=0) as renewal:
            renewal.news()
            wait_for(lambda: (tmp_path / "tables" / "parameters.csv").exists())
        rows = read(tmp_path / "tables" / "trials.csv")
        assert column(rows, "status") == ["finished", "pending"]

    def test_none_is_due_yet(self, tmp_path: Path) -> None:
        Ledger.open(tmp_path).write_plan(product([configuration()]))
        with TableRenewal(tmp_path) as renewal:
            renewal.news()
        assert not (tmp_path / "tables").exists()

    def test_a_fault_comes_to_light_with_the_next_news(self, tmp_path: Path) -> None:
        Ledger.open(tmp_path).write_plan(product([configuration()]))
        (tmp_path / "tables").write_text("a file")
        refused = pytest.raises(RunDirectoryError, match="tables: cannot write")
        with refused, TableRenewal(tmp_path, seconds=0) as renewal:
            wait_for(renewal.news)

    def test_broken_off_it_leaves_the_tables_as_they_were(self, tmp_path: Path) -> None:
        plan = product([configuration()], folds=(2, 3))
        write(tmp_path, plan, [finish(plan.trials[0])])
        before = contents(tmp_path)
        Ledger.open(tmp_path).record(finish(plan.trials[1]))
        with pytest.raises(InterruptionError):
            write_tables(tmp_path, stop=lambda: True)
        assert contents(tmp_path) == before


def wait_for(done: Callable[[], object], seconds: float = 20.0) -> None:
    """Ask until it is done."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
