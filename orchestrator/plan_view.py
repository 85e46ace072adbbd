"""The plan as `foldgrid plan` shows it: lines for people, values for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.capacity import Capacity, size
from orchestrator.experiment import Experiment
from orchestrator.forecast import Forecast
from orchestrator.progress import duration

_MOST_LINES = 30
"""Configurations listed one by one."""


def as_values(experiment: Experiment, capacity: Capacity, time: Forecast) -> dict[str, Any]:
    """The plan as JSON values."""
    plan = experiment.plan
    return {
        "name": plan.name,
        "clips": len(plan.clips),
        "classes": list(plan.classes),
        "metric": plan.metric,
        "mode": plan.mode,
        "merged": plan.merged,
        "varying": list(plan.varying),
        "splits": [
            {
                "test_fold": split.test_fold,
                "fold": split.fold,
                "train": len(split.train),
                "val": len(split.val),
                "test": len(split.test),
            }
            for split in experiment.splits
        ],
        "features": [
            {"parameters": f.model_dump(mode="json"), "shape": list(f.shape)}
            for f in experiment.features
        ],
        "configurations": [
            {"configuration": c.id, "parameters": c.parameters} for c in plan.configurations
        ],
        "trials": [
            {
                "trial": t.id,
                "configuration": t.configuration.id,
                "test_fold": t.test_fold,
                "fold": t.fold,
                "seed": t.seed,
            }
            for t in plan.trials
        ],
        "feature_bytes": capacity.feature_bytes,
        "object_store_bytes": capacity.store_bytes,
        "resources": {"cpu": capacity.cpu, "gpu": "auto" if capacity.measured else capacity.gpu},
        "concurrency": capacity.concurrency,
        "finished": time.finished,
        "whole_seconds": time.whole_seconds,
        "left_seconds": time.left_seconds,
        "warnings": list(experiment.warnings),
    }


def as_lines(
    experiment: Experiment, capacity: Capacity, time: Forecast, run_dir: Path
) -> list[str]:
    """The plan for people; the time is from what has finished in the run directory."""
    plan = experiment.plan
    folds = sorted(set(experiment.folds))
    lines = [
        f"{plan.name}: {experiment.product}",
        f"data: {len(plan.clips)} clips, {len(plan.classes)} classes, folds {_join(folds)}",
    ]
    for split in experiment.splits:
        test = "no test fold" if split.test_fold is None else f"test fold {split.test_fold}"
        lines.append(
            f"  {test}, validation fold {split.fold}: {len(split.train)} train,"
            f" {len(split.val)} validation, {len(split.test)} test"
        )
    for configuration in plan.configurations[:_MOST_LINES]:
        parameters = configuration.parameters
        values = [f"{p}={parameters[p]}" for p in plan.varying if p in parameters]
        lines.append(f"  {configuration.id}  {' '.join(values)}".rstrip())
    if len(plan.configurations) > _MOST_LINES:
        lines.append(f"  and {len(plan.configurations) - _MOST_LINES} more configurations")
    epochs = sum(trial.configuration.epochs for trial in plan.trials)
    shapes = _join([list(f.shape) for f in experiment.features])
    return [
        *lines,
        f"ranked by {plan.metric} ({plan.mode}), the mean over the folds; {epochs} epochs in all",
        f"features: {shapes} a clip, {size(capacity.feature_bytes)} of at most"
        f" {size(capacity.store_bytes)} object store",
        f"a trial: {capacity.cpu:g} CPU, {_gpu(capacity)} at once on this machine"
        f" ({capacity.cores} cores, {capacity.gpus} GPUs)",
        _time(experiment, capacity, time, run_dir),
        *(f"warning: {line}" for line in experiment.warnings),
    ]


def _time(experiment: Experiment, capacity: Capacity, time: Forecast, run_dir: Path) -> str:
    if capacity.measured:
        return "time: not known before a run has measured how many trials share a GPU"
    if time.whole_seconds is None or time.left_seconds is None:
        return f"time: not known before a trial has finished in {run_dir}"
    trials, at_once = len(experiment.plan.trials), capacity.concurrency
    return (
        f"time: about {duration(time.whole_seconds)} for all trials, {at_once} at once,"
        f" {duration(time.left_seconds)} of it left ({trials - time.finished} of {trials} trials),"
        f" by what has finished in {run_dir}"
    )


def _gpu(capacity: Capacity) -> str:
    if capacity.measured:
        return f"a GPU's share as measured when the run starts; at least {capacity.concurrency}"
    return f"{capacity.gpu:g} GPU; {capacity.concurrency}"


def _join(values: list[Any]) -> str:
    return ", ".join(str(value) for value in values)
