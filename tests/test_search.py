"""Search: Optuna's suggestions and configurations that are given up, from runs and from scores."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import read_run, suggestions
from orchestrator.errors import RunDirectoryError
from orchestrator.experiment import load_dataset, make_experiment
from orchestrator.ledger import Ledger
from orchestrator.pruning import Known, stage
from orchestrator.records import EpochRow, TrialPause
from orchestrator.specification import HalvingPruner, WilcoxonPruner
from orchestrator.sweep import load_sweep
from orchestrator.yaml_source import dump

TRAIN: dict[str, Any] = {
    "epochs": 1,
    "batch_size": {"grid": [4, 8]},
    "optimizer": {"name": "sgd", "lr": {"loguniform": [0.0001, 0.1]}},
}
OPTUNA: dict[str, Any] = {
    "model": {"name": "cnn1d"},
    "train": TRAIN,
    "search": {"method": "optuna", "samples": 4},
}


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_factory(path: Path, parameter: str, first: str) -> None:
    """A linear model of the user's, whose `build` begins with a line of its own."""
    path.write_text(
        "import os\nfrom pathlib import Path\n\nfrom torch import nn\n\n"
        f"def build(input_shape, classes, {parameter}):\n"
        f"    {first}\n"
        "    inputs = input_shape[0] * input_shape[1]\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))\n"
    )


# Optuna


def test_a_search_goes_on_after_a_kill_as_it_would_have(
    run, write_spec, tables_of, ray_address
) -> None:
    spec = write_spec(**OPTUNA)
    whole, said = run(spec, name="whole")
    tables = tables_of(whole)
    assert "8 of 8 trials finished" in said
    assert len({row["configuration"] for row in rows(whole, "trials")}) == 4
    other, _ = run(spec, "--address", ray_address, name="other")
    assert tables_of(other) == tables
    # What a kill in the third suggestion leaves: the plan of three, and one of its records.
    plan = json.loads((whole / "plan.json").read_text(encoding="utf-8"))
    by_suggestion = [row["trial"] for row in rows(whole, "trials")[:4]]
    for trial in (*by_suggestion[3:], *(t.replace("-f2-", "-f3-") for t in by_suggestion[2:])):
        (whole / "trials" / trial / "result.json").unlink()
    plan["suggestions"] = plan["suggestions"][:3]
    plan["trials"] = [row for row in plan["trials"] if row[0] < 3]
    kept = whole / "trials" / by_suggestion[0] / "result.json"
    stamp = kept.stat().st_mtime_ns
    (whole / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    run(spec, name="whole")
    assert tables_of(whole) == tables
    # Without any plan the records say what was suggested.
    (whole / "plan.json").unlink()
    run(spec, name="whole")
    assert tables_of(whole) == tables
    assert kept.stat().st_mtime_ns == stamp


def test_more_suggestions_keep_those_before(run, write_spec) -> None:
    first, _ = run(write_spec(**OPTUNA | {"search": {"method": "optuna", "samples": 2}}))
    before = {row["trial"] for row in rows(first, "trials")}
    more, _ = run(write_spec(**OPTUNA), "--extend", "--executor", "serial")
    after = {row["trial"] for row in rows(more, "trials")}
    assert before < after
    assert len(after) == 8


def test_what_is_yet_to_be_suggested_is_not_done(run, write_spec, tmp_path) -> None:
    write_factory(tmp_path / "ending.py", "width", "os.kill(os.getpid(), 2)")
    model = {"name": "ending:build", "params": {"width": {"randint": [1, 99]}}}
    spec = write_spec(**OPTUNA | {"model": model, "folds": {"test": 1, "validate": [2]}})
    out, _ = run(spec, code=130)
    assert [row["status"] for row in rows(out, "trials")] == ["finished"]
    found = read_run(out)
    assert (found.finished, found.total, found.exit_code) == (1, 4, 1)


def test_a_failed_suggestion_does_not_end_the_search(run, write_spec, tmp_path) -> None:
    write_factory(tmp_path / "brittle.py", "width", "assert width % 2, 'even'")
    model = {"name": "brittle:build", "params": {"width": {"randint": [1, 9]}}}
    spec = write_spec(model=model, search={"method": "optuna", "samples": 5}, train={"epochs": 1})
    out, said = run(spec, code=1)
    status = {row["status"] for row in rows(out, "trials")}
    assert status == {"finished", "failed"}
    assert "to continue: foldgrid run" in said
    suggested = json.loads((out / "plan.json").read_text(encoding="utf-8"))["suggestions"]
    assert len(suggested) == 5


def test_workers_are_kept_from_one_suggestion_to_the_next(
    run, write_spec, tmp_path, ray_address
) -> None:
    first = "Path(__file__).with_name(f'{os.getpid()}.pid').touch()"
    write_factory(tmp_path / "signed.py", "width", first)
    model = {"name": "signed:build", "params": {"width": {"randint": [1, 99]}}}
    spec = write_spec(model=model, search={"method": "optuna", "samples": 4}, train={"epochs": 1})
    _, said = run(spec, "--address", ray_address)
    assert "8 of 8 trials finished" in said
    assert len(list(tmp_path.rglob("*.pid"))) <= 2


def test_a_search_without_any_possible_configuration_is_refused(
    foldgrid, write_spec, tmp_path
) -> None:
    model = {"name": "absent_module:build", "params": {"width": {"randint": [1, 9]}}}
    search = {"method": "optuna", "samples": 3}
    out = tmp_path / "run"
    result = foldgrid("run", write_spec(model=model, search=search), "--out", out, "--quiet")
    assert result.code == 2
    assert "model.name: found absent_module:build" in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(out.glob("tables/*"))


def searched(write_spec: Any, samples: int, **search: Any) -> list[tuple[float, bool]]:
    """How far from the best rate, 0.01, and whether the batch size is the good one."""
    spec = write_spec(**OPTUNA | {"search": {"method": "optuna", "samples": samples, **search}})
    sweep = load_sweep(spec)
    dataset = load_dataset(sweep)
    values: dict[str, float | None] = {}
    while len(sweep.suggestions) < samples:
        plan = make_experiment(sweep, dataset).plan
        sweep = suggestions.more(sweep, plan, values, set())
        for trial in make_experiment(sweep, dataset).plan.trials:
            train = trial.configuration.train
            values[trial.id] = (train.batch_size == 8) - abs(math.log10(train.optimizer.lr) + 2)
    found = [one.configuration.train for one in sweep.suggestions if one.configuration]
    return [(abs(math.log10(train.optimizer.lr) + 2), train.batch_size == 8) for train in found]


def test_suggestions_come_near_what_scores_well(write_spec) -> None:
    near = searched(write_spec, 40)
    assert median(d for d, _ in near[-10:]) < 0.7 * median(d for d, _ in near[:10])
    assert sum(good for _, good in near[-10:]) >= 8
    assert near == searched(write_spec, 40)
    assert near != searched(write_spec, 40, seed=1)
    # Told to look for the worst, it does not come near the best.
    far = searched(write_spec, 40, mode="min")
    assert median(d for d, _ in far[-10:]) > 1


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsgaii", "random"])
def test_other_samplers_and_batches(write_spec, sampler) -> None:
    found = searched(write_spec, 12, sampler=sampler, batch=4)
    assert len(found) == 12
    assert len(set(found)) > 8


@pytest.mark.parametrize(
    ("changes", "path", "allowed"),
    [
        ({"search": {"method": "optuna"}}, "search.samples", "a number with method optuna"),
        ({"search": {"method": "grid", "sampler": "tpe"}}, "search.sampler", "none without"),
        ({"folds": {"protocol": "nested"}}, "search.method", "grid or random"),
        (
            {"features": {"kind": "log_mel", "n_mels": {"randint": [20, 40]}}},
            "features",
            "grid or choice",
        ),
        (
            {"search": {"method": "optuna", "samples": 3, "pruner": "halving"}},
            "search.pruner",
            "null with method optuna",
        ),
        ({"train": TRAIN | {"batch_size": {"randint": [0, 4]}}}, "train.batch_size", "from 1"),
    ],
)
def test_what_a_search_cannot_have(foldgrid, write_spec, changes, path, allowed) -> None:
    result = foldgrid("plan", write_spec(**OPTUNA | changes))
    assert result.code == 2
    assert path in result.err
    assert allowed in result.err


# Pruning


GRID: dict[str, Any] = {
    "model": {"name": "cnn1d"},
    "folds": {"test": 1, "validate": [2, 3, 4]},
    "train": {"epochs": 2, "batch_size": 8, "optimizer": {"name": "sgd", "lr": {"grid": []}}},
}


def grid(rates: list[float], **changes: Any) -> dict[str, Any]:
    train = GRID["train"] | {"optimizer": {"name": "sgd", "lr": {"grid": rates}}}
    return GRID | {"train": train} | changes


RATES = [0.05, 1e-6, 0.01, 2e-6]


def test_halving_gives_up_the_worse_half_fold_by_fold(run, write_spec, tables_of) -> None:
    full, _ = run(write_spec(**grid(RATES)), name="full")
    spec = write_spec(**grid(RATES, search={"pruner": "halving", "metric": "val_loss"}))
    out, said = run(spec, name="halved")
    scores: dict[str, dict[str, float]] = {}
    for row in rows(full, "trials"):
        scores.setdefault(row["fold"], {})[row["configuration"]] = -float(row["val_loss"])
    status = {(row["configuration"], row["fold"]): row["status"] for row in rows(out, "trials")}
    cut = sorted(scores["2"].values(), reverse=True)[1]
    after_one = {c for c in scores["2"] if scores["2"][c] >= cut}
    means = {c: scores["2"][c] + scores["3"][c] for c in after_one}
    keep = -(-len(after_one) // 2)
    after_two = {c for c in means if means[c] >= sorted(means.values(), reverse=True)[keep - 1]}
    for fold, left in (("2", set(scores["2"])), ("3", after_one), ("4", after_two)):
        assert {c for c in scores["2"] if status[c, fold] == "finished"} == left
        assert {c for c in scores["2"] if status[c, fold] == "pruned"} == set(scores["2"]) - left
    assert (len(after_one), len(after_two)) == (2, 1)
    number = sum(one == "pruned" for one in status.values())
    assert f"{12 - number} of {12 - number} trials finished, 0 failed; {number} more" in said
    # A pruned row has no scores, and its configuration no rank.
    pruned = [row for row in rows(out, "trials") if row["status"] == "pruned"]
    assert not any(row["val_accuracy"] or row["error"] for row in pruned)
    ranks = {row["configuration"]: row["rank_val_loss"] for row in rows(out, "configurations")}
    assert {c for c, rank in ranks.items() if rank} == after_two
    # What finished is as in the full grid; continued, or with a record lost, nothing changes.
    wanted = {row["trial"]: row for row in rows(full, "trials")}
    for row in rows(out, "trials"):
        if row["status"] == "finished":
            assert row["val_loss"] == wanted[row["trial"]]["val_loss"]
    tables = tables_of(out)
    (out / "trials" / rows(out, "trials")[0]["trial"] / "result.json").unlink()
    run(spec, name="halved")
    assert tables_of(out) == tables


def experiment(write_spec: Any, **changes: Any) -> Any:
    sweep = load_sweep(write_spec(**grid([0.1, 0.01, 0.001], **changes)))
    return make_experiment(sweep, load_dataset(sweep)).plan


def writer(spec_of: Any, tmp_path_factory: Any) -> Any:
    """`write_spec` for a property test, whose examples share their fixtures."""

    def write(**changes: Any) -> Path:
        path = tmp_path_factory.getbasetemp() / "property.yaml"
        path.write_text(dump(spec_of(**changes)), encoding="utf-8")
        return path

    return write


@given(data=st.data(), factor=st.integers(2, 4), first=st.integers(1, 3), seeds=st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_only_equal_folds_are_compared(spec_of, tmp_path_factory, data, factor, first, seeds):
    plan = experiment(writer(spec_of, tmp_path_factory), repeats=seeds)
    score = st.sampled_from([0.1, 0.2, 0.3])
    scores = {trial.id: data.draw(score) for trial in plan.trials}
    pruner = HalvingPruner(folds=first, factor=factor)
    values: dict[str, float | None] = {}
    for _ in range(10):
        now = stage(plan, pruner, Known(values, values.keys()))
        waiting = [trial for trial in now.trials if trial.id not in values]
        # All that run now are on folds that every configuration left has in common.
        left = {trial.configuration.id for trial in now.trials}
        places = {
            c: {(t.fold, t.seed) for t in now.trials if t.configuration.id == c} for c in left
        }
        runnable = {c for c in left if any(t.configuration.id == c for t in waiting)}
        assert len({frozenset(places[c]) for c in runnable}) <= 1
        if not waiting:
            break
        values |= {trial.id: scores[trial.id] for trial in waiting if trial.id not in now.pruned}
    else:
        raise AssertionError("it does not end")
    assert values.keys() | now.pruned == scores.keys()
    assert not values.keys() & now.pruned
    # The best on the first folds is never given up there.
    complete = [c for c in plan.trials_of if all(t.id in values for t in plan.trials_of[c])]
    assert complete


def test_wilcoxon_gives_up_what_is_worse_on_every_fold(write_spec) -> None:
    folds = {"protocol": "cross_validation"}
    plan = experiment(write_spec, folds=folds, repeats=2)
    good, like, bad = plan.trials_of
    values: dict[str, float | None] = {}
    pruner = WilcoxonPruner(folds=2, p=0.2)
    spread = iter(range(1000))
    ran = 0
    while True:
        now = stage(plan, pruner, Known(values, values.keys()))
        waiting = [t for t in now.trials if t.id not in values and t.id not in now.pruned]
        if not waiting:
            break
        ran += len(waiting)
        for trial in waiting:
            step = next(spread)
            base = {good: 0.8, like: 0.8, bad: 0.5}[trial.configuration.id]
            values[trial.id] = base + 0.01 * ((step * 7) % 5) / 5
    given_up = {trial.configuration.id for trial in plan.trials if trial.id in now.pruned}
    # Seeds are no further pairs: one-sided, two folds can give 1/4, three 1/8.
    assert given_up == {bad}
    assert ran == 2 * 8 + 6
    assert not stage(plan, WilcoxonPruner(folds=2, p=0.01), Known({}, set())).pruned


PRUNERS = [HalvingPruner(), WilcoxonPruner(folds=1, p=0.9)]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_fold_that_does_not_define_the_metric_gives_up_nobody(write_spec, pruner) -> None:
    plan = experiment(write_spec, folds={"protocol": "cross_validation"})
    first, second = ({trial.id for trial in plan.trials if trial.fold == fold} for fold in (1, 2))
    values: dict[str, float | None] = dict.fromkeys(first)
    assert not stage(plan, pruner, Known(values, first)).pruned
    values |= dict(zip(sorted(second), (0.1, 0.5, 0.1), strict=True))
    now = stage(plan, pruner, Known(values, first | second))
    left = {trial.configuration.id for trial in plan.trials if trial.id not in now.pruned}
    assert sorted(second)[1].partition("-t")[0] in left


@pytest.mark.parametrize("pruner", PRUNERS)
def test_where_all_have_failed_the_other_folds_are_run(write_spec, pruner) -> None:
    plan = experiment(write_spec)
    settled = {trial.id for trial in plan.trials if trial.fold == 2}
    now = stage(plan, pruner, Known({}, settled))
    assert not now.pruned
    assert {trial.fold for trial in now.trials} == {2, 3}


RATE = {"optimizer": {"name": "sgd", "lr": {"grid": [0.1, 0.01]}}}
EARLY = {"pruner": {"name": "halving", "epochs": 1, "folds": 2}, "metric": "val_loss"}


def epochs_by_trial(run_dir: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows(run_dir, "epochs"):
        found.setdefault(row["trial"], []).append(row)
    return found


def chosen_loss(epochs: list[dict[str, str]], select: str) -> float:
    """Of the last epoch, or of the most accurate one, then of the lowest loss."""
    best = min(epochs, key=lambda row: (-float(row["val_accuracy"]), float(row["val_loss"])))
    return float((best if select == "best" else epochs[-1])["val_loss"])


def halved(losses: dict[str, float]) -> set[str]:
    last = sorted(losses.values())[-(-len(losses) // 2) - 1]
    return {configuration for configuration in losses if losses[configuration] <= last}


@pytest.mark.parametrize("select", ["best", "last"])
def test_halving_over_epochs_compares_equal_folds_after_equal_epochs(
    run, write_spec, select
) -> None:
    changes = grid([0.05, 1e-6, 0.01, 0.002, 2e-6])
    changes["train"] |= {"epochs": 5, "select": select}
    full, _ = run(write_spec(**changes), name="full")
    out, said = run(write_spec(**changes, search=EARLY), name="halved")
    curves = epochs_by_trial(full)
    place = {row["trial"]: (row["configuration"], row["fold"]) for row in rows(full, "trials")}
    left, reached = {configuration for configuration, _ in place.values()}, {}
    # On the first two folds after 1, 2 and 4 epochs, and at their end.
    for epochs in (1, 2, 4, 5):
        losses = dict.fromkeys(left, 0.0)
        for trial, (configuration, fold) in place.items():
            if configuration in left and fold in ("2", "3"):
                losses[configuration] += chosen_loss(curves[trial][:epochs], select)
                reached[trial] = epochs
        left = halved(losses)
    reached |= {trial: 5 for trial, (c, fold) in place.items() if c in left and fold == "4"}
    found = epochs_by_trial(out)
    assert {trial: len(epochs) for trial, epochs in found.items()} == reached
    assert all(found[trial] == curves[trial][:n] for trial, n in reached.items())
    status = {row["trial"]: row["status"] for row in rows(out, "trials")}
    assert {t for t in status if status[t] == "finished"} == {t for t in reached if reached[t] == 5}
    assert set(status.values()) == {"finished", "pruned"}
    assert f"{sum(one == 'pruned' for one in status.values())} more were pruned" in said
    assert {row["attempts"] for row in rows(out, "timings")} == {"1"}
    assert not list(out.rglob("checkpoint.pt"))


@pytest.mark.ray
@pytest.mark.parametrize("storage", [False, True])
def test_pauses_on_workers_are_as_in_one_process(
    run, write_spec, tables_of, ray_address, tmp_path, storage
) -> None:
    changes = grid(RATES, search=EARLY)
    changes["train"] |= {"epochs": 3}
    serial, _ = run(write_spec(**changes), name="serial")
    if storage:
        changes["execution"] = {"storage": str(tmp_path)}
    parallel, _ = run(write_spec(**changes), "--address", ray_address, name="parallel")
    assert tables_of(parallel) == tables_of(serial)
    assert {row["attempts"] for row in rows(parallel, "timings")} == {"1"}
    assert not list(tmp_path.rglob("*.pt"))


def test_a_kill_between_a_checkpoint_and_its_pause_changes_nothing(
    run, write_spec, tables_of, monkeypatch
) -> None:
    changes = grid(RATES, search=EARLY)
    changes["train"] |= {"epochs": 3}
    spec = write_spec(**changes)
    whole, _ = run(spec, name="whole")
    pruned = [row["trial"] for row in rows(whole, "trials") if row["status"] == "pruned"]
    lost = next(trial for trial in pruned if (whole / "trials" / trial / "pause.json").exists())
    pause = Ledger.pause

    def full(ledger: Ledger, one: TrialPause) -> None:
        if one.trial == lost:
            raise RunDirectoryError("the disk is full")
        pause(ledger, one)

    monkeypatch.setattr(Ledger, "pause", full)
    out, _ = run(spec, code=1)
    assert (out / "trials" / lost / "checkpoint.pt").exists()
    monkeypatch.setattr(Ledger, "pause", pause)
    run(spec)
    assert tables_of(out) == tables_of(whole)


def test_a_pause_gives_no_further_time(run, write_spec, tmp_path) -> None:
    write_factory(tmp_path / "slow.py", "width", "import time; time.sleep(0.4)")
    source = (tmp_path / "slow.py").read_text()
    slow = source.replace("nn.Flatten()", "Slow()") + (
        "\n\nclass Slow(nn.Flatten):\n"
        "    def forward(self, x):\n"
        "        import time\n"
        "        time.sleep(0.4 if self.training else 0)\n"
        "        return super().forward(x)\n"
    )
    (tmp_path / "slow.py").write_text(slow)
    changes = grid([0.01, 0.02], model={"name": "slow:build", "params": {"width": 1}}, search=EARLY)
    changes["train"] |= {"epochs": 4, "batch_size": 64}
    changes |= {"folds": {"test": 1, "validate": [2]}, "execution": {"trial_timeout": 1.5}}
    out, _ = run(write_spec(**changes), code=1)
    assert any("TrialTimeout" in row["error"] for row in rows(out, "trials"))


@pytest.mark.parametrize("lost", ["result.json", "pause.json"])
def test_a_sweep_with_pauses_is_continued(run, write_spec, tables_of, lost) -> None:
    changes = grid(RATES, search=EARLY)
    changes["train"] |= {"epochs": 3}
    spec = write_spec(**changes)
    out, _ = run(spec)
    tables = tables_of(out)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/result.json")}
    gone = next(out.glob(f"trials/*/{lost}"))
    gone.unlink()
    run(spec)
    assert tables_of(out) == tables
    for path in finished.keys() - {gone}:
        assert path.stat().st_mtime_ns == finished[path]


def test_what_fails_after_a_pause_does_not_change_who_went_on(run, write_spec, tmp_path) -> None:
    (tmp_path / "later.py").write_text(
        "from torch import nn\n\n"
        "class Later(nn.Module):\n"
        "    def __init__(self, inputs, classes, ends):\n"
        "        super().__init__()\n"
        "        self.layer, self.ends = nn.Linear(inputs, classes), ends\n"
        "        self.register_buffer('passes', self.layer.bias.new_zeros(()))\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            self.passes += 1\n"
        "            assert self.passes < self.ends, 'later'\n"
        "        return self.layer(x.flatten(1))\n\n"
        "def build(input_shape, classes, ends):\n"
        "    return Later(input_shape[0] * input_shape[1], classes, ends)\n"
    )
    model = {"name": "later:build", "params": {"ends": {"grid": [4, 99]}}}
    changes = grid([0.01, 0.001, 0.0001], model=model, search=EARLY | {"metric": "val_accuracy"})
    changes["train"] |= {"epochs": 3}
    spec = write_spec(**changes)
    out, _ = run(spec, code=1)
    status = {row["trial"]: row["status"] for row in rows(out, "trials")}
    assert "failed" in status.values()
    run(spec, "--executor", "serial", "--keep-failed", code=1)
    assert {row["trial"]: row["status"] for row in rows(out, "trials")} == status
    run(spec, code=1)
    assert {row["trial"]: row["status"] for row in rows(out, "trials")} == status


def test_an_estimator_is_compared_with_whole_trainings_only(run, write_spec) -> None:
    changes = grid([0.01, 1e-6], search={"pruner": {"name": "halving", "epochs": 1, "folds": 3}})
    changes["train"] |= {"epochs": 5}
    changes["model"] = {"grid": [{"name": "cnn1d"}, {"name": "sklearn:DummyClassifier"}]}
    out, _ = run(write_spec(**changes))
    status = {(row["configuration"], row["fold"]): row["status"] for row in rows(out, "trials")}
    assert {s for (c, _), s in status.items() if "Dummy" in c} == {"finished"}
    assert {s for (c, _), s in status.items() if "Dummy" not in c} == {"finished", "pruned"}


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        ({"name": "halving", "epochs": 2}, "nothing is compared after 2 of 2"),
        ({"name": "wilcoxon", "epochs": 1}, "over 2 folds the test gives p of 0.25 at best"),
        ({"name": "wilcoxon", "p": 0.01}, "over 2 folds the test gives p of 0.25 at best"),
        ({"name": "wilcoxon", "p": 0.3}, ""),
        ("halving", ""),
    ],
)
def test_a_pruner_that_can_do_nothing_is_named(foldgrid, write_spec, pruner, said) -> None:
    result = foldgrid("plan", write_spec(**grid(RATES, search={"pruner": pruner})))
    assert result.code == 0, result.err
    warned = [line for line in result.out.splitlines() if "search.pruner" in line]
    assert len(warned) == bool(said)
    assert said in "".join(warned)


def test_a_metric_that_epochs_lack_cannot_be_compared_after_epochs(foldgrid, write_spec) -> None:
    result = foldgrid("plan", write_spec(**grid(RATES, search=EARLY | {"metric": "val_f1"})))
    assert result.code == 2
    assert "search.metric: found val_f1; allowed val_accuracy or val_loss" in result.err


@given(data=st.data(), first=st.integers(1, 4), folds=st.integers(1, 3), wilcoxon=st.booleans())
@settings(max_examples=60, deadline=None)
def test_all_that_are_compared_have_equal_epochs(
    spec_of, tmp_path_factory, data, first, folds, wilcoxon
) -> None:
    write = writer(spec_of, tmp_path_factory)
    plan = experiment(write, train=GRID["train"] | {"epochs": {"grid": [2, 3, 5]}} | RATE)
    accuracy = st.sampled_from([0.1, 0.2, 0.3])
    curves = {
        trial.id: [
            EpochRow(i, 0.1, 1.0, 0.5, 1.0, data.draw(accuracy))
            for i in range(trial.configuration.epochs)
        ]
        for trial in plan.trials
    }
    kind = WilcoxonPruner if wilcoxon else HalvingPruner
    pruner = kind(folds=folds, epochs=first)
    values: dict[str, float | None] = {}
    seen: dict[str, list[EpochRow]] = {}
    pruned: frozenset[str] = frozenset()
    compared = {trial.id for trial in plan.trials}
    for _ in range(40):
        now = stage(plan, pruner, Known(values, values.keys(), seen))
        until = {t.id: now.epochs or t.configuration.epochs for t in now.trials}
        waiting = [t for t in now.trials if len(seen.get(t.id, [])) < until[t.id]]
        # Nobody is given up but by what was run just before.
        given_up = {t.configuration.id for t in plan.trials if t.id in now.pruned - pruned}
        assert given_up <= {t.configuration.id for t in plan.trials if t.id in compared}
        if not waiting:
            break
        pruned, compared = now.pruned, set(until)
        left = {trial.configuration.id for trial in now.trials}
        assert {(t.configuration.id, t.fold) for t in now.trials} == {
            (c, t.fold) for c in left for t in now.trials
        }
        assert all(t.configuration.epochs >= until[t.id] for t in now.trials)
        for trial in waiting:
            seen[trial.id] = curves[trial.id][: until[trial.id]]
            if len(seen[trial.id]) == trial.configuration.epochs:
                values[trial.id] = max(row.val_accuracy or 0.0 for row in seen[trial.id])
    else:
        raise AssertionError("it does not end")
    assert values.keys() | now.pruned == curves.keys()
    assert not values.keys() & now.pruned
    assert any(all(t.id in values for t in trials) for trials in plan.trials_of.values())


def test_what_has_failed_is_not_counted_as_pruned(run, write_spec, tmp_path) -> None:
    write_factory(tmp_path / "frail.py", "good", "assert good, 'not good'")
    model = {"name": "frail:build", "params": {"good": {"grid": [False, True]}}}
    changes = {"model": model, "train": {"epochs": 1}, "search": {"pruner": "halving"}}
    out, said = run(write_spec(**GRID | changes), code=1)
    assert "3 of 4 trials finished, 1 failed; 2 more were pruned" in said
    assert "to continue: foldgrid run" in said
    status = [row["status"] for row in rows(out, "trials")]
    assert sorted(status) == ["failed", *["finished"] * 3, "pruned", "pruned"]


def test_nothing_is_pruned_by_default(write_spec) -> None:
    spec = write_spec(**grid(RATES))
    assert load_sweep(spec).settings.search.pruner is None
