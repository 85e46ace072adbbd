"""How often the winner of a full grid survives a pruner, and what the pruner saves.

    python tests/benchmarks/pruning.py [RUN_DIR] [--epochs 10]

Replays a finished grid: its folds in every order (at most 120), each pruner fed with the scores
and epochs that the grid has recorded. Without RUN_DIR one is run first: `cnn1d` with 24
configurations on ESC-10 (ESC10_DIR; without it the synthetic sounds), five folds, no test fold.

The columns: orders in which the winner of the full grid is the winner again; what the winner found
loses to it otherwise, points of accuracy, mean and most; trials that are not run to their end; the
share of the training time that is saved.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from itertools import islice, permutations
from pathlib import Path
from random import Random
from statistics import fmean

from orchestrator.configuration_scores import best_configuration
from orchestrator.outcomes import Results
from orchestrator.pruning import Known, Pruner, stage
from orchestrator.records import EpochRow
from orchestrator.specification import HalvingPruner, WilcoxonPruner
from orchestrator.trials import Plan

SPEC = """\
name: pruning
data: {DATA}
features: {kind: waveform, sample_rate: 16000, seconds: 5.0, windows: {seconds: 1.0, hop: 0.5}}
folds: {protocol: cross_validation}
model: {name: cnn1d, init: {grid: [random, xavier]}}
train:
  epochs: EPOCHS
  batch_size: {grid: [8, 16, 32]}
  optimizer: {name: sgd, lr: {grid: [0.0003, 0.001, 0.003, 0.01]}, momentum: 0.9}
"""

PRUNERS: dict[str, Pruner] = {
    "halving": HalvingPruner(),
    "halving, folds: 2": HalvingPruner(folds=2),
    "halving, factor: 3": HalvingPruner(factor=3),
    "halving, epochs: 1": HalvingPruner(epochs=1),
    "halving, epochs: 1, folds: 2": HalvingPruner(epochs=1, folds=2),
    "halving, epochs: 1, folds: 5": HalvingPruner(epochs=1, folds=5),
    "wilcoxon, folds: 4": WilcoxonPruner(folds=4),
    "wilcoxon, epochs: 1, folds: 5": WilcoxonPruner(epochs=1, folds=5),
}

Curves = dict[str, tuple[EpochRow, ...]]

MOST_ORDERS = 120


def recorded(folder: Path, epochs: int) -> Path:
    """Run the grid."""
    data = "dataset: esc10, root: '${ESC10_DIR}'"
    if "ESC10_DIR" not in os.environ:
        data = "dataset: synthetic"
    spec = folder / "pruning.yaml"
    spec.write_text(SPEC.replace("DATA", data).replace("EPOCHS", str(epochs)), encoding="utf-8")
    command = [sys.executable, "-m", "orchestrator", "run", str(spec), "--out", str(folder / "run")]
    subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


def orders(plan: Plan) -> list[Plan]:
    """The plan with its folds in other orders."""
    folds = defaultdict(list)
    for trial in plan.trials:
        folds[trial.test_fold, trial.fold].append(trial)
    keys = list(folds)
    # All of them where they are few, else some by chance.
    found = list(islice(permutations(keys), MOST_ORDERS + 1))
    if len(found) > MOST_ORDERS:
        rng = Random(0)
        found = [tuple(rng.sample(keys, len(keys))) for _ in range(MOST_ORDERS)]
    return [replace(plan, trials=tuple(t for key in order for t in folds[key])) for order in found]


def replay(
    plan: Plan, pruner: Pruner, scores: dict[str, float | None], curves: Curves
) -> tuple[dict[str, float | None], Curves]:
    """The scores that a sweep with this pruner would have, and the epochs that it would run."""
    values: dict[str, float | None] = {}
    seen: Curves = {}
    while True:
        now = stage(plan, pruner, Known(values, values.keys(), seen))
        until = {t.id: len(curves[t.id][: now.epochs]) for t in now.trials}
        due = [t for t in until if t not in values and len(seen.get(t, ())) < until[t]]
        if not due:
            return values, seen
        seen |= {trial: curves[trial][: until[trial]] for trial in due}
        values |= {trial: scores[trial] for trial in due if len(seen[trial]) == len(curves[trial])}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run_dir = options.run_dir or recorded(Path(name), options.epochs)
        results = Results.read(run_dir)
        with (run_dir / "tables" / "timings.csv").open(encoding="utf-8", newline="") as stream:
            seconds = {row["trial"]: float(row["train_seconds"]) for row in csv.DictReader(stream)}
        curves = {one.trial: one.epochs for one in results.directory.records(results.plan)}
    plan = replace(results.plan, pruned=frozenset())
    scores = results.values(plan.metric)
    winner = best_configuration(plan, scores)
    assert winner is not None, "no configuration has every fold"
    means = {c: fmean(scores[t.id] or 0.0 for t in ts) for c, ts in plan.trials_of.items()}
    print(f"{len(means)} configurations, winner {winner.metric} {winner.mean:.4f}")
    print(f"{'':30}{'orders':>8}{'won':>6}{'loses':>8}{'most':>7}{'trials saved':>14}{'time':>7}")
    for title, pruner in PRUNERS.items():
        lost, saved, time = [], [], []
        every = orders(plan)
        for ordered in every:
            values, seen = replay(ordered, pruner, scores, curves)
            found = best_configuration(ordered, values)
            assert found is not None
            lost.append(100 * abs(winner.mean - means[found.configuration.id]))
            saved.append(1 - len(values) / len(scores))
            ran = (seconds[trial] * len(seen[trial]) / len(curves[trial]) for trial in seen)
            time.append(1 - sum(ran) / sum(seconds.values()))
        won = sum(points == 0 for points in lost)
        print(
            f"{title:30}{len(every):8}{won:6}{fmean(lost):8.2f}{max(lost):7.2f}"
            f"{fmean(saved):14.0%}{fmean(time):7.0%}"
        )


if __name__ == "__main__":
    main()
