"""comparisons.csv, selection_rules.csv and about.csv, computed again from the other tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from features.spec import WaveformSpec
from models.spec import Cnn1dSpec
from orchestrator.comparison_plots import draw_comparisons
from orchestrator.comparisons import compare
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.ledger import Ledger
from orchestrator.outcomes import plan_of
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_style import look
from orchestrator.protocols import Protocol
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Predictions,
    Scores,
    SplitResult,
    Timing,
    TrialRecord,
)
from orchestrator.report import write_report
from orchestrator.right_answers import RightAnswers
from orchestrator.run_digest import read_digest
from orchestrator.run_directory import RunDirectory
from orchestrator.selection_rules import gap_line
from orchestrator.tables import Tables, write_tables
from orchestrator.trials import ClipRow, Configuration, Plan, Trial

CLASSES = ("dog", "rain", "sneeze")
PER_FOLD = 12


def configuration(decay: float, select: str = "last") -> Configuration:
    train = TrainSpec(epochs=5, select=select, optimizer=SgdSpec(weight_decay=decay))  # type: ignore[arg-type]
    return Configuration(WaveformSpec(seconds=1.0), Cnn1dSpec(), train)


def sweep(
    protocol: Protocol = "held_out",
    configurations: int = 4,
    folds: int = 5,
    seeds: int = 1,
    select: str = "last",
    **changes: object,
) -> Plan:
    """Configurations that differ in weight decay; folds from 1, each of `PER_FOLD` clips."""
    every = range(1, folds + 1)
    pairs: list[tuple[int | None, int]] = {
        "held_out": [(1, fold) for fold in every if fold > 1],
        "rotate": [(fold, fold % folds + 1) for fold in every],
        "cross_validation": [(None, fold) for fold in every],
    }[protocol]  # type: ignore[assignment]
    chosen = [configuration(i / 10, select) for i in range(configurations)]
    trials = tuple(
        Trial(c, test, fold, seed) for test, fold in pairs for c in chosen for seed in range(seeds)
    )
    clips = tuple(
        ClipRow(f"{fold}-{i:02}.wav", i % len(CLASSES)) for fold in every for i in range(PER_FOLD)
    )
    plan = Plan("sweep", "val_accuracy", "max", CLASSES, clips, trials, protocol=protocol)
    return replace(plan, **changes)  # type: ignore[arg-type]


def answer(rng: np.random.Generator, fold: int, skill: float) -> SplitResult:
    """Answers to the clips of a fold, with their true accuracy and loss."""
    clips = np.arange((fold - 1) * PER_FOLD, fold * PER_FOLD)
    labels = clips % PER_FOLD % len(CLASSES)
    right = rng.random(PER_FOLD) < skill
    predicted = np.where(right, labels, (labels + 1) % len(CLASSES))
    accuracy = float(np.mean(right))
    share = (0.5, 0.25, 0.25)
    return SplitResult(
        Scores(accuracy, 2 - accuracy, 0.5, 0.5, accuracy, None, 0.5, 0.5, 0.5),
        Predictions(
            tuple(clips.tolist()),
            tuple(labels.tolist()),
            tuple(predicted.tolist()),
            (share,) * PER_FOLD,
        ),
    )


def finish(
    trial: Trial, rng: np.random.Generator, *, tested: bool = False, epochs: int = 5
) -> TrialRecord:
    """A record whose chosen epoch is the one that `train.select` names.

    Accuracies of epochs are few, so that there are ties.
    """
    decay = trial.configuration.parameters["train.optimizer.weight_decay"]
    skill = 0.8 - float(str(decay))
    val = answer(rng, trial.fold, skill)
    test = None if trial.test_fold is None else answer(rng, trial.test_fold, skill)
    rows = [
        EpochRow(
            i,
            0.001,
            2.0,
            0.5,
            float(rng.random()),
            int(rng.integers(0, 5)) / 5,
            float(rng.random()) if tested else None,
            int(rng.integers(0, 5)) / 5 if tested else None,
        )
        for i in range(epochs)
    ]
    chosen = epochs - 1
    if trial.configuration.train.select == "best":
        chosen = min(range(epochs), key=lambda i: (-rows[i].val_accuracy, rows[i].val_loss))
    # The split's own scores are those of that epoch.
    row = replace(rows[chosen], val_accuracy=val.scores.accuracy, val_loss=val.scores.loss)
    if trial.configuration.train.select == "best":
        row = replace(row, val_accuracy=rows[chosen].val_accuracy, val_loss=rows[chosen].val_loss)
    if tested and test is not None:
        row = replace(row, test_accuracy=test.scores.accuracy, test_loss=test.scores.loss)
    rows[chosen] = row
    timing = Timing("2026-01-01T00:00:00+00:00", 1.5, 1.25, 1, "host", "cpu")
    return TrialRecord(trial.id, chosen, tuple(rows), val, test, ParameterCount(9, 9), timing)


def run(
    folder: Path, plan: Plan, *, left_out: Sequence[int] = (), tested: bool = False, seed: int = 0
) -> Tables:
    """A run directory in which every trial but those left out has finished; its tables."""
    rng = np.random.default_rng(seed)
    ledger = Ledger.open(folder)
    ledger.write_plan(plan)
    for i, trial in enumerate(plan.trials):
        record = finish(trial, rng, tested=tested, epochs=5 - (i % 7 == 0))
        if i not in left_out:
            ledger.record(record)
    return write_tables(folder)


def table(folder: Path, name: str) -> pd.DataFrame:
    found = pd.read_csv(folder / "tables" / f"{name}.csv")
    text = (folder / "tables" / f"{name}.csv").read_text(encoding="utf-8").lower()
    assert "nan" not in text
    assert "inf" not in text
    return found


def fold_means(trials: pd.DataFrame, metric: str) -> pd.Series:
    return trials.groupby("fold")[metric].mean()


def right(folder: Path, split: str) -> pd.DataFrame:
    predictions = table(folder, "predictions").merge(
        table(folder, "trials")[["trial", "configuration", "test_fold", "fold", "seed"]]
    )
    predictions = predictions[predictions["split"] == split]
    return predictions.assign(right=predictions["label"] == predictions["predicted"])


def check_scores(folder: Path, metric: str, split: str) -> None:
    """Means, deviations and intervals from trials.csv and predictions.csv alone."""
    trials, rows = table(folder, "trials"), table(folder, "comparisons")
    answers = right(folder, split)
    for _, row in rows.iterrows():
        of_one = trials[trials["configuration"] == row["configuration"]]
        values = of_one[metric].dropna()
        assert row["scores"] == len(values)
        if values.empty:
            continue
        assert row["mean"] == pytest.approx(values.mean())
        assert row["std_ddof0"] == pytest.approx(values.std(ddof=0))
        assert row["std_ddof1"] == pytest.approx(values.std(ddof=1))
        means = fold_means(of_one, metric).dropna()
        assert row["folds"] == len(means)
        interval = scipy.stats.ttest_1samp(means, 0).confidence_interval(0.95)
        assert (row["t_low"], row["t_high"]) == pytest.approx((interval.low, interval.high))
        mine = answers[answers["configuration"] == row["configuration"]]
        clips = mine["clip"].nunique()
        given = [row[f"pooled_{name}"] for name in ("clips", "answers", "hits")]
        assert given == [clips, len(mine), mine["right"].sum()]
        assert row["pooled_accuracy"] == pytest.approx(mine["right"].mean())
        p, z = mine["right"].mean(), scipy.stats.norm.ppf(0.975)
        # The roots of (p - x)^2 = z^2 x (1 - x) / n.
        roots = np.roots([1 + z**2 / clips, -(2 * p + z**2 / clips), p**2])
        assert (row["wilson_low"], row["wilson_high"]) == pytest.approx(
            tuple(sorted(roots)), abs=1e-7
        )


def check_differences(folder: Path, metric: str, mode: str, split: str, ratio: float) -> None:
    """Every test beside the best, again from the other tables."""
    trials, rows = table(folder, "trials"), table(folder, "comparisons")
    means = table(folder, "configurations").set_index("configuration")[f"mean_{metric}"]
    complete = trials.groupby("configuration")["status"].agg(lambda s: (s == "finished").all())
    ranked = means[complete[complete].index].reindex(means.index).dropna()
    best = ranked.idxmax() if mode == "max" else ranked.idxmin()
    assert set(rows["best"]) == {best}
    answers = right(folder, split)
    place = ["test_fold", "fold", "seed"]
    for name in rows.columns[rows.columns.get_loc("best") + 1 : -1]:
        assert rows.set_index("configuration")[name].isna()[best], name
    for _, row in rows[rows["configuration"] != best].iterrows():
        a, b = (
            trials[trials["configuration"] == one].fillna({"test_fold": 0})
            for one in (best, row["configuration"])
        )
        both = a.merge(b, on=place, suffixes=("_a", "_b"))
        both = both.assign(d=both[f"{metric}_a"] - both[f"{metric}_b"]).dropna(subset="d")
        assert row["pairs"] == len(both)
        d = both.groupby("fold")["d"].mean()
        assert row["paired_folds"] == len(d)
        assert row["difference"] == pytest.approx(d.mean(), abs=1e-12)
        assert row["test_to_train"] == pytest.approx(ratio)
        error = d.std(ddof=1) * math.sqrt(1 / len(d) + ratio)
        t = scipy.stats.t(len(d) - 1, loc=d.mean(), scale=error)
        assert row["corrected_standard_error"] == pytest.approx(error)
        assert row["corrected_t"] == pytest.approx(d.mean() / error, abs=1e-9)
        assert row["corrected_df"] == len(d) - 1
        assert (row["corrected_low"], row["corrected_high"]) == pytest.approx(t.interval(0.95))
        p = 2 * scipy.stats.t.sf(abs(d.mean() / error), len(d) - 1)
        assert row["corrected_p"] == pytest.approx(p)
        rope = 0.0 if metric.endswith("loss") else 0.01
        outside = (t.sf(rope), t.cdf(-rope))
        better, worse = outside if mode == "max" else outside[::-1]
        three = [row[f"probability_{n}"] for n in ("best_better", "equivalent", "this_better")]
        assert three == pytest.approx([better, t.cdf(rope) - t.cdf(-rope), worse], abs=1e-9)
        check_mcnemar(row, answers, best, both[place])


def check_mcnemar(row: pd.Series, answers: pd.DataFrame, best: str, places: pd.DataFrame) -> None:
    """Each clip once, for the one that more of the paired models answer rightly."""
    kept = answers.fillna({"test_fold": 0}).merge(places)
    hits = kept.groupby(["configuration", "clip"])["right"].sum().unstack(0, fill_value=0)
    lead = hits[best] - hits[row["configuration"]]
    b, c = int((lead > 0).sum()), int((lead < 0).sum())
    assert (row["mcnemar_best_only"], row["mcnemar_this_only"]) == (b, c)
    if b + c == 0:
        assert pd.isna(row["mcnemar_p"])
    elif b + c < 25:
        assert row["mcnemar_test"] == "exact binomial"
        assert row["mcnemar_p"] == pytest.approx(scipy.stats.binomtest(b, b + c).pvalue)
    else:
        assert row["mcnemar_test"] == "chi-squared, continuity corrected"
        p = scipy.stats.chi2.sf(max(0, abs(b - c) - 1) ** 2 / (b + c), 1)
        assert row["mcnemar_p"] == pytest.approx(p)


def check_holm(folder: Path) -> None:
    rows = table(folder, "comparisons")
    for name in ("corrected_p", "wilcoxon_p", "mcnemar_p"):
        ordered = rows[name].dropna().sort_values()
        factors = np.arange(len(ordered), 0, -1)
        adjusted = np.maximum.accumulate(ordered.to_numpy() * factors).clip(max=1.0)
        assert rows[f"{name}_holm"].dropna().loc[ordered.index].to_list() == pytest.approx(
            adjusted.tolist()
        )
        assert rows[f"{name}_holm"].isna().equals(rows[name].isna())


class TestComparisons:
    @pytest.mark.parametrize(
        ("protocol", "folds", "seeds", "split", "ratio"),
        [
            ("held_out", 5, 1, "test", 1 / 3),
            ("held_out", 5, 3, "test", 1 / 3),
            ("rotate", 5, 1, "test", 1 / 3),
            ("rotate", 4, 2, "test", 1 / 2),
            ("cross_validation", 5, 1, "val", 1 / 4),
            ("cross_validation", 10, 2, "val", 1 / 9),
        ],
    )
    def test_as_the_other_tables_give_it(
        self, tmp_path: Path, protocol: Protocol, folds: int, seeds: int, split: str, ratio: float
    ) -> None:
        run(tmp_path, sweep(protocol, folds=folds, seeds=seeds))
        rows = table(tmp_path, "comparisons")
        assert set(rows["protocol"]) == {protocol}
        assert set(rows["metric"]) == {"val_accuracy"}
        assert set(rows["pooled_split"]) == {split}
        assert rows["param_train.optimizer.weight_decay"].to_list() == [0.0, 0.1, 0.2, 0.3]
        assert set(rows["rope"].dropna()) == {0.01}
        check_scores(tmp_path, "val_accuracy", split)
        check_differences(tmp_path, "val_accuracy", "max", split, ratio)
        check_holm(tmp_path)
        enough = folds >= 10
        assert rows["wilcoxon_p"].notna().sum() == (3 if enough else 0)

    def test_wilcoxon_over_folds(self, tmp_path: Path) -> None:
        run(tmp_path, sweep("cross_validation", folds=12))
        rows, trials = table(tmp_path, "comparisons"), table(tmp_path, "trials")
        by_fold = trials.pivot_table("val_accuracy", "fold", "configuration")
        for _, row in rows[rows["configuration"] != rows["best"]].iterrows():
            d = (by_fold[row["best"]] - by_fold[row["configuration"]]).round(12)
            d = d[d != 0]
            resampled = scipy.stats.PermutationMethod(n_resamples=np.inf)
            p = scipy.stats.wilcoxon(d, method=resampled).pvalue
            assert row["wilcoxon_p"] == pytest.approx(p)

    def test_a_loss_is_better_lower_and_has_no_region_of_equivalence(self, tmp_path: Path) -> None:
        run(tmp_path, sweep(metric="val_loss", mode="min"))
        check_scores(tmp_path, "val_loss", "test")
        check_differences(tmp_path, "val_loss", "min", "test", 1 / 3)
        rows = table(tmp_path, "comparisons")
        others = rows[rows["configuration"] != rows["best"]]
        assert (others["difference"] <= 0).all()
        assert set(others["rope"]) == {0.0}
        assert (others["probability_best_better"] > 0.5).all()

    def test_folds_that_are_missing(self, tmp_path: Path) -> None:
        plan = sweep(configurations=3)
        run(tmp_path, plan, left_out=[1, 5, 8])
        check_scores(tmp_path, "val_accuracy", "test")
        rows = table(tmp_path, "comparisons").set_index("configuration")
        complete, incomplete, other = (c.id for c in plan.configurations)
        assert set(rows["best"]) == {complete}
        assert rows.loc[incomplete, "paired_folds"] == 3
        assert "on the 3 finished folds" in rows.loc[incomplete, "sentence"]
        assert rows.loc[other, "pairs"] == 2
        assert "on the 2 finished folds" in rows.loc[other, "sentence"]

    def test_a_missing_seed_leaves_no_interval_beside_the_mean(self, tmp_path: Path) -> None:
        plan = sweep(configurations=3, seeds=2)
        by_configuration = [
            [i for i, t in enumerate(plan.trials) if t.configuration is c]
            for c in plan.configurations
        ]
        # One seed of one fold; both seeds of another fold.
        run(tmp_path, plan, left_out=[by_configuration[1][0], *by_configuration[2][:2]])
        rows = table(tmp_path, "comparisons")
        assert rows["t_low"].isna().to_list() == [False, True, False]
        even = rows[rows["t_low"].notna()]
        assert ((even["t_low"] + even["t_high"]) / 2).to_list() == pytest.approx(even["mean"])

    def test_before_any_configuration_is_complete(self, tmp_path: Path) -> None:
        plan = sweep(configurations=2)
        run(tmp_path, plan, left_out=[0, 1, 2, 5, 7])
        rows = table(tmp_path, "comparisons")
        assert rows["folds"].to_list() == [2, 1]
        empty = rows.columns[rows.columns.get_loc("best") :]
        assert rows[empty].isna().all(axis=None)
        assert rows["t_low"].isna().to_list() == [False, True]
        assert rows["std_ddof0"].to_list()[1] == 0.0
        assert np.isnan(rows["std_ddof1"].to_list()[1])

    def test_nothing_finished(self, tmp_path: Path) -> None:
        plan = sweep(configurations=2)
        run(tmp_path, plan, left_out=range(8))
        rows = table(tmp_path, "comparisons")
        assert rows["scores"].to_list() == [0, 0]
        assert rows["pooled_clips"].isna().all()
        rules = table(tmp_path, "selection_rules")
        assert rules["trials"].to_list() == [0] * 8
        assert rules["mean_val_accuracy"].isna().all()

    def test_inner_folds_without_test_results(self, tmp_path: Path) -> None:
        """Every ordered pair of folds, nothing tested: a clip validates several models."""
        pairs = [(t, v) for t in (1, 2, 3, 4) for v in (1, 2, 3, 4) if t != v]
        plan = sweep("cross_validation", configurations=2, folds=4)
        trials = tuple(Trial(c, t, v, 0) for t, v in pairs for c in plan.configurations)
        rng, ledger = np.random.default_rng(0), Ledger.open(tmp_path)
        plan = replace(plan, trials=trials)
        ledger.write_plan(plan)
        for trial in trials:
            ledger.record(replace(finish(trial, rng), test=None))
        write_tables(tmp_path)
        check_scores(tmp_path, "val_accuracy", "val")
        check_differences(tmp_path, "val_accuracy", "max", "val", 1 / 2)
        rows = table(tmp_path, "comparisons")
        assert rows["folds"].to_list() == [4, 4]
        assert rows["scores"].to_list() == [12, 12]

    def test_where_some_trials_have_test_results_the_pool_is_of_these(self, tmp_path: Path) -> None:
        plan = sweep(configurations=1)
        rng, ledger = np.random.default_rng(0), Ledger.open(tmp_path)
        ledger.write_plan(plan)
        for i, trial in enumerate(plan.trials):
            record = finish(trial, rng)
            ledger.record(replace(record, test=None) if i < 2 else record)
        write_tables(tmp_path)
        row = table(tmp_path, "comparisons").iloc[0]
        assert row["pooled_split"] == "test"
        assert [row["pooled_clips"], row["pooled_answers"]] == [PER_FOLD, 2 * PER_FOLD]

    def test_equal_models_differ_in_nothing(self, tmp_path: Path) -> None:
        plan = sweep("cross_validation", configurations=2)
        ledger = Ledger.open(tmp_path)
        ledger.write_plan(plan)
        for trial in plan.trials:
            same = finish(replace(trial, configuration=plan.configurations[0]), _rng(trial.fold))
            ledger.record(replace(same, trial=trial.id))
        write_tables(tmp_path)
        row = table(tmp_path, "comparisons").iloc[1]
        assert row["difference"] == 0
        assert pd.isna(row["corrected_p"])
        assert pd.isna(row["mcnemar_p"])
        assert row["sentence"].startswith("weight_decay 0.1 scores like weight_decay 0 here")

    def test_the_sentence(self, tmp_path: Path) -> None:
        run(tmp_path, sweep("cross_validation", configurations=4, folds=10), seed=4)
        rows = table(tmp_path, "comparisons")
        for _, row in rows[rows["configuration"] != rows["best"]].iterrows():
            shown = row["corrected_p_holm"] < 0.05
            points = [100 * row[n] for n in ("difference", "corrected_low", "corrected_high")]
            figures = "(difference {:.1f} points, 95 % interval {:.1f} to {:.1f})".format(*points)
            assert ("is better than" in row["sentence"]) == shown
            assert ("is not shown to be better than" in row["sentence"]) != shown
            assert row["sentence"].endswith(figures)
            # The interval leaves out 0, and yet three comparisons find such a one by chance.
            lost = row["corrected_p"] < 0.05 and not shown
            assert ("once 3 comparisons are allowed for" in row["sentence"]) == lost
        p, adjusted = rows["corrected_p"], rows["corrected_p_holm"]
        kinds = [adjusted < 0.05, (p < 0.05) & (adjusted >= 0.05), p >= 0.05]
        assert [kind.sum() for kind in kinds] == [1, 1, 1], "the example has each"


def _rng(fold: int) -> np.random.Generator:
    return np.random.default_rng(fold)


def rule(folder: Path, configuration: str, name: str) -> pd.Series:
    rows = table(folder, "selection_rules")
    chosen = (rows["configuration"] == configuration) & (rows["rule"] == name)
    return rows[chosen].iloc[0]


class TestSelectionRules:
    @pytest.mark.parametrize("protocol", ["held_out", "rotate"])
    @pytest.mark.parametrize("select", ["last", "best"])
    @pytest.mark.parametrize("seeds", [1, 2])
    def test_as_epochs_csv_gives_it(
        self, tmp_path: Path, protocol: Protocol, select: str, seeds: int
    ) -> None:
        plan = sweep(protocol, select=select, seeds=seeds)
        run(tmp_path, plan, tested=True)
        epochs = table(tmp_path, "epochs")
        for one in plan.configurations:
            mine = epochs[epochs["configuration"] == one.id].set_index(["trial", "epoch"])
            order = [t.id for t in plan.trials_of[one.id]]
            chosen = _chosen(mine, order)
            base = mine.loc[list(zip(order, chosen["validation_epoch"], strict=True))]
            for name, at in chosen.items():
                row = rule(tmp_path, one.id, name)
                assert row["epochs"] == str(list(at)).replace(" ", "")
                assert row["trials"] == len(order)
                assert row["optimistic"] == (name == "test_epoch")
                used = {"last": "last_epoch", "best": "validation_epoch"}[select]
                assert row["used"] == (name == used)
                values = mine.loc[list(zip(order, at, strict=True))]
                for split in ("val", "test"):
                    column = f"{split}_accuracy"
                    assert row[f"mean_{column}"] == pytest.approx(values[column].mean())
                    assert row[f"std_{column}"] == pytest.approx(values[column].std(ddof=0))
                    gap = values[column].mean() - base[column].mean()
                    assert row[f"gap_{column}"] == pytest.approx(gap, abs=1e-12)

    def test_the_rule_in_use_is_the_trials_own_score(self, tmp_path: Path) -> None:
        plan = sweep()
        run(tmp_path, plan, tested=True)
        means = table(tmp_path, "configurations").set_index("configuration")
        for one in plan.configurations:
            row = rule(tmp_path, one.id, "last_epoch")
            assert row["used"]
            for name in ("mean_val_accuracy", "mean_test_accuracy", "std_test_accuracy"):
                assert row[name] == pytest.approx(means.loc[one.id, name])

    @pytest.mark.parametrize(
        ("select", "known"), [("last", "last_epoch"), ("best", "validation_epoch")]
    )
    def test_without_test_scores_of_every_epoch(
        self, tmp_path: Path, select: str, known: str
    ) -> None:
        plan = sweep(select=select, configurations=2)
        tables = run(tmp_path, plan)
        means = table(tmp_path, "configurations").set_index("configuration")["mean_test_accuracy"]
        rows = table(tmp_path, "selection_rules")
        for one in plan.configurations:
            found = rule(tmp_path, one.id, known)["mean_test_accuracy"]
            assert found == pytest.approx(means[one.id])
            last = rule(tmp_path, one.id, known)["epochs"]
            for name in ("validation_epoch", "common_epoch", "last_epoch"):
                row = rule(tmp_path, one.id, name)
                assert np.isnan(row["mean_test_accuracy"]) == (row["epochs"] != last)
        by_test = rows[rows["rule"] == "test_epoch"]
        assert by_test["optimistic"].all()
        assert by_test.loc[:, "epochs":].isna().all(axis=None)
        assert rows["mean_val_accuracy"].notna().sum() == 6
        assert tables.rules is not None
        assert gap_line(tables.rules) == ""

    def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch(self, tmp_path: Path) -> None:
        plan = sweep("cross_validation", configurations=1, folds=2)
        curves = [
            # Means 0.6, 0.6, 0.6, 0.5; mean losses 1.0, 0.5, 0.5, 0.1. In binary 0.5 + 0.7 is
            # not 0.6 + 0.6.
            [(0.5, 1.0), (0.6, 0.5), (0.55, 0.4), (0.5, 0.1)],
            [(0.7, 1.0), (0.6, 0.5), (0.65, 0.6), (0.5, 0.1)],
        ]
        ledger = Ledger.open(tmp_path)
        ledger.write_plan(plan)
        for trial, curve in zip(plan.trials, curves, strict=True):
            rows = tuple(EpochRow(i, 0.1, 1.0, 0.5, b, a) for i, (a, b) in enumerate(curve))
            ledger.record(replace(finish(trial, _rng(0)), epoch=3, epochs=rows))
        write_tables(tmp_path)
        own = plan.configurations[0].id
        assert rule(tmp_path, own, "common_epoch")["epochs"] == "[1,1]"
        assert rule(tmp_path, own, "validation_epoch")["epochs"] == "[1,0]"
        assert rule(tmp_path, own, "last_epoch")["epochs"] == "[3,3]"


def _chosen(rows: pd.DataFrame, order: Sequence[str]) -> dict[str, list[int]]:
    """The epochs of each rule by plain sorting."""

    def best(of: pd.DataFrame, split: str) -> int:
        ordered = of.sort_values(
            [f"{split}_accuracy", f"{split}_loss", "epoch"], ascending=[False, True, True]
        )
        return int(ordered.index[0])

    by_trial = {trial: rows.loc[trial] for trial in order}
    shared = [i for i in by_trial[order[0]].index if all(i in by_trial[t].index for t in order)]
    columns = ["val_accuracy", "val_loss"]
    means = sum(by_trial[trial].loc[shared, columns] for trial in order) / len(order)
    means["val_accuracy"] = means["val_accuracy"].round(9)
    return {
        "validation_epoch": [best(by_trial[trial], "val") for trial in order],
        "common_epoch": [best(means, "val")] * len(order),
        "last_epoch": [int(by_trial[trial].index[-1]) for trial in order],
        "test_epoch": [best(by_trial[trial], "test") for trial in order],
    }


class TestAbout:
    @pytest.mark.parametrize("protocol", ["held_out", "rotate", "cross_validation"])
    def test_every_table_has_its_row(self, tmp_path: Path, protocol: Protocol) -> None:
        run(tmp_path, sweep(protocol))
        rows = table(tmp_path, "about")
        assert list(rows.columns) == ["table", "protocol", "score"]
        assert rows["table"].to_list() == sorted(p.name for p in (tmp_path / "tables").iterdir())
        assert set(rows["protocol"]) == {protocol}
        assert rows["score"].str.len().min() >= 4
        words = rows.set_index("table")["score"]
        assert ("no unbiased estimate" in words["configurations.csv"]) == (
            protocol == "cross_validation"
        )
        split = "validation" if protocol == "cross_validation" else "test"
        assert f"pooled answers are those on {split}" in words["comparisons.csv"]
        assert words["timings.csv"] == "none"


class TestReport:
    def test_says_what_the_tables_say(self, tmp_path: Path) -> None:
        run(tmp_path, sweep(), tested=True)
        page = write_report(tmp_path).read_text(encoding="utf-8")
        page = page.replace("\N{NO-BREAK SPACE}", " ")
        rows = table(tmp_path, "comparisons")
        for words in rows["sentence"]:
            assert words in page
        best = rows["best"][0]
        for name in ("validation_epoch", "common_epoch", "last_epoch", "test_epoch"):
            row = rule(tmp_path, best, name)
            mean, std = 100 * row["mean_test_accuracy"], 100 * row["std_test_accuracy"]
            assert f"{mean:.2f} ± {std:.2f}" in page
        assert "optimistic" in page
        assert "test_every_epoch" not in page.split('id="statistics"')[1].split("</section>")[1]

    def test_says_how_to_get_what_is_not_known(self, tmp_path: Path) -> None:
        run(tmp_path, sweep())
        assert "train.test_every_epoch: true evaluates the test split" in write_report(
            tmp_path
        ).read_text(encoding="utf-8")

    @pytest.mark.pictures
    def test_a_picture_of_the_differences(self, tmp_path: Path) -> None:
        tables = run(tmp_path, sweep("cross_validation", folds=3))
        digest = read_digest(tables.results)
        folder = PlotFolder(tmp_path / "plots")
        folder.make()
        with look():
            draw_comparisons(folder, digest, tables.comparisons)
        (plot,) = folder.plots
        assert plot.path.read_bytes().startswith(b"\x89PNG")
        shown = int((table(tmp_path, "comparisons")["corrected_p_holm"] < 0.05).sum())
        assert f"{shown or 'none'} of 3 differences is shown" in plot.description

    def test_no_picture_of_one_configuration(self, tmp_path: Path) -> None:
        tables = run(tmp_path, sweep("cross_validation", folds=3, configurations=1))
        folder = PlotFolder(tmp_path / "plots")
        draw_comparisons(folder, read_digest(tables.results), tables.comparisons)
        assert folder.plots == []


def test_the_command_line_says_the_gap(foldgrid, write_spec, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec = write_spec(model={"name": "cnn1d"}, folds={"test": 1, "validate": [2]})
    every = ["--set", "train.test_every_epoch=true"]
    done = foldgrid("run", str(spec), "--executor", "serial", "--out", str(tmp_path / "a"), *every)
    assert done.code == 0, done.err
    line = "test accuracy of the best configuration by validation_epoch: mean "
    said = next(one for one in done.out.splitlines() if one.startswith(line))
    best = table(tmp_path / "a", "comparisons")["best"][0]
    for name in ("common_epoch", "last_epoch", "test_epoch"):
        gap = rule(tmp_path / "a", best, name)["gap_test_accuracy"]
        assert f"{name} {gap:+.4f}" in said
    assert said.endswith("(optimistic)")
    assert said in foldgrid("report", str(tmp_path / "a")).out


def test_answers_do_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    """Comparing is a function of the plan, the scores and the answers alone."""
    plan = sweep()
    tables = run(tmp_path, plan)
    directory = RunDirectory(tmp_path)
    values = tables.results.values("val_accuracy")
    empty = compare(plan_of(directory), values, RightAnswers(plan))
    assert [row.pooled for row in empty.rows] == [None] * 4
    assert all(row.against_best is None or not row.against_best.corrected for row in empty.rows)
