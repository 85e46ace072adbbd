"""Run summaries: the first course report's tables, their names, columns and running averages."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from features.spec import WaveformSpec
from models.spec import Cnn1dSpec, CnnTransformerSpec, FactorySpec, ModelSpec
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.ledger import Ledger
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Predictions,
    Scores,
    SplitResult,
    Timing,
    TrialRecord,
)
from orchestrator.tables import write_tables
from orchestrator.trials import Configuration, Plan, Trial

ROWS = [
    "Epoch",
    "Test Accuracy (%)",
    "Test F1 Score",
    "Test Loss",
    "Training Accuracy (%)",
    "Training Loss",
    "Validation Accuracy (%)",
    "Validation Loss",
    "Average Val Acc (%)",
]

# First course report, the run summary tables: validation accuracy of each run in percent, and the
# printed average. Folds 2 to 5 in turn; within a fold of the CNN-Transformer 1, 2 and 4 heads.
REPORT_CNN1D = [(42.5, 42.5), (50.0, 46.25), (51.25, 47.91667), (51.25, 48.75)]
REPORT_TRANSFORMER = [
    *[(61.25, 61.25), (65.0, 63.125), (63.75, 63.33333)],
    *[(56.25, 61.5625), (63.75, 62.0), (63.75, 62.29167)],
    *[(60.0, 61.96429), (56.25, 61.25), (57.5, 60.83333)],
    *[(68.75, 61.625), (67.5, 62.15909), (66.25, 62.5)],
]
FOLDS = (2, 3, 4, 5)
PRINTED = 5.1e-6
"""Half of the last digit that the report prints."""


def configuration(model: ModelSpec, weight_decay: float = 0.0) -> Configuration:
    train = TrainSpec(optimizer=SgdSpec(weight_decay=weight_decay))
    return Configuration(WaveformSpec(seconds=1.0), model, train)


def transformers() -> list[Configuration]:
    return [configuration(CnnTransformerSpec(heads=heads)) for heads in (1, 2, 4)]


def plan_of(trials: Iterable[Trial], leakage_allowed: bool = False) -> Plan:
    return Plan(
        name="report",
        metric="val_accuracy",
        mode="max",
        classes=("dog", "rain"),
        clips=(),
        trials=tuple(trials),
        leakage_allowed=leakage_allowed,
    )


def product(
    configurations: Sequence[Configuration],
    folds: Sequence[int] = FOLDS,
    seeds: Sequence[int] = (0,),
) -> Plan:
    return plan_of(Trial(c, 1, f, s) for f in folds for c in configurations for s in seeds)


def scores(accuracy: float) -> Scores:
    return Scores(accuracy, 1.5, 0.25, 0.25, 0.125, None, 0.5, 0.5, 0.5)


def finish(trial: Trial, val_accuracy: float) -> TrialRecord:
    nothing = Predictions((), (), (), ())
    return TrialRecord(
        trial=trial.id,
        epoch=99,
        epochs=(EpochRow(99, 0.001, 0.75, 0.9375, 1.5, val_accuracy),),
        val=SplitResult(scores(val_accuracy), nothing),
        test=None if trial.test_fold is None else SplitResult(scores(0.07), nothing),
        parameters=ParameterCount(10, 10),
        timing=Timing("2026-01-01T00:00:00+00:00", 1.0, 1.0, 1, "host", "cpu"),
    )


Summarize = Callable[..., dict[str, dict[str, list[str]]]]


@pytest.fixture
def summarize(tmp_path: Path) -> Summarize:
    """Write a plan with some accuracies, and read every run summary back: rows by name."""

    def run(plan: Plan, accuracies: Iterable[float | None]) -> dict[str, dict[str, list[str]]]:
        ledger = Ledger.open(tmp_path)
        ledger.write_plan(plan)
        for trial, accuracy in zip(plan.trials, accuracies, strict=True):
            if accuracy is not None:
                ledger.record(finish(trial, accuracy))
        write_tables(tmp_path)
        return {
            path.name: {row[0]: row[1:] for row in rows(path)}
            for path in sorted((tmp_path / "tables").glob("run_summary_*.csv"))
        }

    return run


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def columns(table: dict[str, list[str]], row: str) -> dict[str, str]:
    return dict(zip(table["Metric"], table[row], strict=True))


class TestTheReport:
    def test_one_model_a_plan(self, summarize: Summarize, tmp_path: Path) -> None:
        plan = product([configuration(Cnn1dSpec())])
        tables = summarize(plan, [accuracy / 100 for accuracy, _ in REPORT_CNN1D])
        assert list(tables) == ["run_summary_cnn1d.csv"]
        table = tables["run_summary_cnn1d.csv"]
        assert list(table) == ["Metric", *ROWS]
        assert table["Metric"] == ["Fold 2", "Fold 3", "Fold 4", "Fold 5"]
        assert table["Validation Accuracy (%)"] == ["42.5", "50.0", "51.25", "51.25"]
        printed = [average for _, average in REPORT_CNN1D]
        assert [float(x) for x in table["Average Val Acc (%)"]] == pytest.approx(
            printed, abs=PRINTED
        )

    def test_both_models_in_one_plan(self, summarize: Summarize, tmp_path: Path) -> None:
        plan = product([configuration(Cnn1dSpec()), *transformers()])
        by_fold = [
            (cnn, *REPORT_TRANSFORMER[3 * i : 3 * i + 3]) for i, cnn in enumerate(REPORT_CNN1D)
        ]
        runs = [run for fold in by_fold for run in fold]
        tables = summarize(plan, [accuracy / 100 for accuracy, _ in runs])
        transformer = [f"run_summary_cnn_transformer_fold{fold}.csv" for fold in FOLDS]
        assert list(tables) == ["run_summary_cnn1d.csv", *transformer]
        averages = []
        for name in transformer:
            assert tables[name]["Metric"] == ["Head 1", "Head 2", "Head 4"]
            averages += [float(x) for x in tables[name]["Average Val Acc (%)"]]
        printed = [average for _, average in REPORT_TRANSFORMER]
        assert averages == pytest.approx(printed, abs=PRINTED)
        in_trials = [float(x) for x in columns_of(tmp_path, "average_val_accuracy")]
        assert in_trials == pytest.approx([a / 100 for _, a in runs], abs=PRINTED / 100)

    def test_percent_is_exact(self, summarize: Summarize) -> None:
        plan = product([configuration(Cnn1dSpec())], folds=(2,))
        (table,) = summarize(plan, [0.5125]).values()
        assert [table[row] for row in ROWS] == [
            ["99"],
            ["7.0"],
            ["0.125"],
            ["1.5"],
            ["93.75"],
            ["0.75"],
            ["51.25"],
            ["1.5"],
            ["51.25"],
        ]


def columns_of(run_dir: Path, name: str) -> list[str]:
    header, *body = rows(run_dir / "tables" / "trials.csv")
    return [row[header.index(name)] for row in body]


class TestUnfinished:
    def test_cells_are_empty_and_the_average_goes_on(self, summarize: Summarize) -> None:
        plan = product([configuration(Cnn1dSpec())])
        (table,) = summarize(plan, [0.5, None, 0.75, None]).values()
        assert table["Average Val Acc (%)"] == ["50.0", "", "62.5", ""]
        assert all(table[row][1] == table[row][3] == "" for row in ROWS)

    def test_nothing_has_run(self, summarize: Summarize) -> None:
        (table,) = summarize(product([configuration(Cnn1dSpec())]), [None] * 4).values()
        assert all(table[row] == [""] * 4 for row in ROWS)

    def test_without_a_test_fold(self, summarize: Summarize) -> None:
        plan = plan_of([Trial(configuration(Cnn1dSpec()), None, 0, 0)])
        (table,) = summarize(plan, [0.5]).values()
        assert table["Metric"] == ["Fold 0"]
        assert [table[row] for row in ROWS[1:4]] == [[""]] * 3
        assert table["Validation Accuracy (%)"] == ["50.0"]


class TestSets:
    def test_other_keys_make_sets_of_their_own(self, summarize: Summarize) -> None:
        points = [
            configuration(Cnn1dSpec(init=init), decay)
            for init in ("random", "xavier")
            for decay in (0.001, 0.01)
        ]
        tables = summarize(product(points, folds=(2, 3)), [i / 16 for i in range(8)])
        assert list(tables) == [
            f"run_summary_cnn1d_model.init={init}_train.optimizer.weight_decay={decay}.csv"
            for init in ("random", "xavier")
            for decay in ("0.001", "0.01")
        ]
        averages = [table["Average Val Acc (%)"] for table in tables.values()]
        assert averages == [
            ["0.0", "12.5"],
            ["6.25", "18.75"],
            ["12.5", "25.0"],
            ["18.75", "31.25"],
        ]

    def test_keys_that_vary_in_another_model_only_are_left_out(self, summarize: Summarize) -> None:
        points = [
            configuration(Cnn1dSpec(), 0.1),
            configuration(Cnn1dSpec(), 0.2),
            configuration(CnnTransformerSpec(heads=2), 0.1),
        ]
        tables = summarize(product(points, folds=(2,)), [0.1, 0.2, 0.3])
        assert list(tables) == [
            "run_summary_cnn1d_train.optimizer.weight_decay=0.1.csv",
            "run_summary_cnn1d_train.optimizer.weight_decay=0.2.csv",
            "run_summary_cnn_transformer.csv",
        ]
        assert tables["run_summary_cnn_transformer.csv"]["Metric"] == ["Fold 2"]

    def test_heads_and_another_key(self, summarize: Summarize) -> None:
        points = [
            configuration(CnnTransformerSpec(heads=heads), decay)
            for heads in (4, 1)
            for decay in (0.0, 0.5)
        ]
        tables = summarize(product(points, folds=(5, 2)), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
        stem = "run_summary_cnn_transformer_train.optimizer.weight_decay="
        assert sorted(tables) == sorted(
            f"{stem}{decay}_fold{fold}.csv" for decay in ("0.0", "0.5") for fold in (5, 2)
        )
        later = tables[f"{stem}0.5_fold2.csv"]
        assert columns(later, "Average Val Acc (%)") == {"Head 4": "40.0", "Head 1": "50.0"}

    def test_seeds(self, summarize: Summarize) -> None:
        plan = product(transformers()[:2], folds=(2,), seeds=(7, 8))
        (table,) = summarize(plan, [0.25, 0.5, 0.75, 1.0]).values()
        assert table["Metric"] == [
            f"Head {heads} Seed {seed}" for heads in (1, 2) for seed in (7, 8)
        ]
        assert table["Average Val Acc (%)"] == ["25.0", "37.5", "50.0", "62.5"]

    def test_each_test_fold_in_turn(self, summarize: Summarize) -> None:
        plan = plan_of(Trial(configuration(Cnn1dSpec()), i, (i + 1) % 3, 0) for i in range(3))
        (table,) = summarize(plan, [0.1, 0.2, 0.3]).values()
        assert table["Metric"] == ["Fold 1", "Fold 2", "Fold 0"]

    def test_a_fold_under_several_test_folds(self, summarize: Summarize) -> None:
        pairs = [(0, 1), (0, 2), (1, 2)]
        plan = plan_of(Trial(configuration(Cnn1dSpec()), test, val, 0) for test, val in pairs)
        (table,) = summarize(plan, [0.1, 0.2, 0.3]).values()
        assert table["Metric"] == ["Fold 1", "Fold 2 Test 0", "Fold 2 Test 1"]


def own_model(**params: object) -> Configuration:
    return configuration(FactorySpec(name="nets.own:net", params=params))


class TestNames:
    def test_values_are_made_fit_for_a_file_name(self, summarize: Summarize) -> None:
        points = [own_model(sizes=[8, 16], act="a/b c"), own_model(act="relu", flag=True)]
        tables = summarize(product(points, folds=(2,)), [0.1, 0.2])
        assert list(tables) == [
            "run_summary_nets.own-net_model.params.sizes=-8-16-_model.params.act=a-b-c"
            "_model.params.flag=.csv",
            "run_summary_nets.own-net_model.params.sizes=_model.params.act=relu"
            "_model.params.flag=true.csv",
        ]

    @pytest.mark.parametrize(("length", "short"), [(150, False), (151, True)])
    def test_names_above_150_characters(
        self, summarize: Summarize, tmp_path: Path, length: int, short: bool
    ) -> None:
        stem = "run_summary_nets.own-net_model.params.act="
        long = "x" * (length - len(stem) - len(".csv"))
        plan = product([own_model(act="relu"), own_model(act=long)], folds=(2, 3))
        tables = summarize(plan, [0.1, 0.2, 0.3, 0.4])
        assert len(tables) == 2
        assert f"{stem}relu.csv" in tables
        (other,) = set(tables) - {f"{stem}relu.csv"}
        index = tmp_path / "tables" / "run_summaries.csv"
        if not short:
            assert other == f"{stem}{long}.csv"
            assert not index.exists()
            return
        start, _, digits = other.removesuffix(".csv").rpartition("_")
        assert start == "run_summary_nets.own-net"
        assert len(digits) == 8
        int(digits, 16)
        assert rows(index) == [
            ["file", "model", "fold", "model.params.act"],
            [f"{stem}relu.csv", "nets.own:net", "", "relu"],
            [other, "nets.own:net", "", long],
        ]
        assert tables[other]["Validation Accuracy (%)"] == ["20.0", "40.0"]

    def test_short_names_of_one_table_a_fold(self, summarize: Summarize, tmp_path: Path) -> None:
        points = [
            Configuration(
                WaveformSpec(seconds=seconds, sample_rate=rate),
                CnnTransformerSpec(heads=heads, init=init, dropout=dropout, layers=layers),
                TrainSpec(optimizer=SgdSpec(lr=lr, weight_decay=decay), batch_size=batch),
            )
            for seconds, rate, init, dropout, layers, lr, decay, batch in [
                (1.0, 8000, "random", 0.1, 1, 0.1234567890123, 0.1, 8),
                (2.0, 16000, "xavier", 0.2, 2, 0.2, 0.01, 16),
            ]
            for heads in (1, 2)
        ]
        tables = summarize(product(points, folds=(2, 3)), [i / 10 for i in range(8)])
        assert len(tables) == 4
        for name, table in tables.items():
            start, digits, fold = name.removesuffix(".csv").rsplit("_", 2)
            assert start == "run_summary_cnn_transformer"
            assert len(digits) == 8
            assert fold in ("fold2", "fold3")
            assert table["Metric"] == ["Head 1", "Head 2"]
        header, *body = rows(tmp_path / "tables" / "run_summaries.csv")
        assert [row[2] for row in body] == ["2", "3", "2", "3"]
        assert {row[header.index("model.heads")] for row in body} == {""}
        assert {row[header.index("train.optimizer.lr")] for row in body} == {
            "0.1234567890123",
            "0.2",
        }

    @pytest.mark.parametrize("pair", [("a b", "a-b"), ("A", "a")])
    def test_names_that_would_collide(
        self, summarize: Summarize, tmp_path: Path, pair: tuple[str, str]
    ) -> None:
        plan = product([own_model(act=act) for act in (*pair, "other")], folds=(2,))
        tables = summarize(plan, [0.1, 0.2, 0.3])
        assert len(tables) == 3
        index = rows(tmp_path / "tables" / "run_summaries.csv")[1:]
        shown = {row[3]: tables[row[0]]["Validation Accuracy (%)"] for row in index}
        assert shown == {pair[0]: ["10.0"], pair[1]: ["20.0"], "other": ["30.0"]}

    def test_tables_of_an_earlier_plan_go(self, summarize: Summarize, tmp_path: Path) -> None:
        summarize(product([own_model(act="x" * 200), own_model(act="y")], folds=(2,)), [0.1, 0.2])
        assert (tmp_path / "tables" / "run_summaries.csv").exists()
        foreign = tmp_path / "tables" / "notes.csv"
        foreign.write_text("mine")
        tables = summarize(product([configuration(Cnn1dSpec())], folds=(2,)), [0.1])
        assert list(tables) == ["run_summary_cnn1d.csv"]
        assert not (tmp_path / "tables" / "run_summaries.csv").exists()
        assert foreign.read_text() == "mine"


def test_allowed_leakage_is_said_in_a_last_column(summarize: Summarize) -> None:
    trials = product([configuration(Cnn1dSpec())], folds=(2,)).trials
    (table,) = summarize(plan_of(trials, leakage_allowed=True), [0.5]).values()
    assert table["Metric"] == ["Fold 2", "leakage_allowed"]
    assert {table[row][-1] for row in ROWS} == {"true"}


def test_configurations_that_look_alike_have_tables_of_their_own(tmp_path: Path) -> None:
    alike = [
        configuration(FactorySpec(name="nets:own", params=params))
        for params in ({}, {"gain": None})
    ]
    plan = product(alike, folds=(2, 3))
    ledger = Ledger.open(tmp_path)
    ledger.write_plan(plan)
    write_tables(tmp_path)
    names = sorted(path.name for path in (tmp_path / "tables").glob("run_summary_nets*.csv"))
    assert len(names) == 2
    assert any(alike[1].id in name for name in names)
    for name in names:
        with (tmp_path / "tables" / name).open(encoding="utf-8", newline="") as stream:
            assert next(csv.reader(stream)) == ["Metric", "Fold 2", "Fold 3"]
