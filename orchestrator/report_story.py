"""The story behind a report's numbers: what went wrong, on what it ran, how to repeat it."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from itertools import pairwise
from typing import Final

from orchestrator.provenance import Environment, changes
from orchestrator.records import Status
from orchestrator.report_results import moment
from orchestrator.report_view import (
    Cell,
    Column,
    Command,
    FailureView,
    Pair,
    Part,
    TableView,
    TroubleView,
)
from orchestrator.score_text import counted
from orchestrator.standing import Standing

_MOST_ERRORS = 50
_MOST_TRIALS = 12
_MOST_CLIPS = 200
_MOST_WARNINGS = 50

_FILES: Final = (
    ("spec.yaml", "the specification as run, every default filled in"),
    ("environment.json", "versions, hardware, commit and data fingerprint of each start"),
    ("log.txt", "the full story"),
    ("plan.json", "every trial that belongs to the sweep"),
    ("trials/", "one folder a trial: its result, or its failure and traceback"),
    ("tables/trials.csv", "one row a trial"),
    ("tables/epochs.csv", "one row a trial and epoch"),
    ("tables/configurations.csv", "one row a configuration: the score over its folds"),
    ("tables/comparisons.csv", "how sure each configuration's place is"),
    ("tables/selection_rules.csv", "each configuration by four ways of choosing the epoch"),
    ("tables/about.csv", "of each table its protocol and what its scores say"),
    ("tables/run_summary_*.csv", "one column a run, one row a metric"),
    ("tables/hyperparameters.csv", "one row a trial: parameters and run summary"),
    ("tables/best_hyperparameters.csv", "of the best configuration"),
    ("tables/parameters.csv", "parameter counts of each model"),
    ("tables/predictions.csv", "each clip's label, prediction and class probabilities"),
    ("tables/timings.csv", "when, where and how long each trial ran"),
    ("plots/", "the plots of this report as PNG files"),
)


def trouble_view(standing: Standing) -> TroubleView:
    """Failed trials by their error, clips left out, warnings of the log."""
    by_error: dict[str, list[str]] = {}
    for row in standing.source.trials + standing.source.outer:
        if row.status is Status.FAILED:
            by_error.setdefault(row.error, []).append(row.trial.id)
    failures = [
        FailureView(
            error=error or "no error was written",
            trials=tuple(trials[:_MOST_TRIALS]),
            more=max(len(trials) - _MOST_TRIALS, 0),
            traceback=f"trials/{trials[0]}/traceback.txt",
        )
        for error, trials in list(by_error.items())[:_MOST_ERRORS]
    ]
    left_out = max(len(by_error) - _MOST_ERRORS, 0)
    warnings = standing.source.warnings
    shown = list(warnings[:_MOST_WARNINGS])
    if len(warnings) > len(shown):
        shown.append(f"and {len(warnings) - len(shown):,} more in log.txt")
    return TroubleView(tuple(failures), left_out, _skipped(standing), tuple(shown))


def _skipped(standing: Standing) -> TableView | None:
    plan = standing.plan
    skipped = [clip for clip in plan.clips if clip.problem]
    if not skipped:
        return None
    rows = tuple(
        (Cell(clip.path), Cell(plan.classes[clip.label]), Cell(clip.problem))
        for clip in skipped[:_MOST_CLIPS]
    )
    columns = (
        Column("Clip", code=True, long=True),
        Column("Class", long=True),
        Column("Problem", long=True),
    )
    note = ""
    if len(skipped) > len(rows):
        note = f"The first {len(rows)} of {len(skipped):,}; all: tables/skipped_clips.csv."
    return TableView("Clips left out", columns, rows, note)


def environment_parts(standing: Standing) -> tuple[Part, ...]:
    """The last start of the sweep, the packages, and what differed before."""
    starts = standing.source.environments
    if not starts:
        return ()
    last = starts[-1]
    parts = [Part("Machine", (), _machine(last, standing))]
    packages = [Pair(name, version, code=True) for name, version in last.packages.items()]
    parts.append(Part("Versions", (), (Pair("python", last.python, code=True), *packages)))
    if len(starts) > 1:
        parts.append(Part("Starts", tuple(_starts(starts))))
    return tuple(parts)


def _machine(last: Environment, standing: Standing) -> tuple[Pair, ...]:
    devices = sorted({time.device for time in standing.source.times.values()})
    hosts = sorted({time.host for time in standing.source.times.values()})
    values = (
        ("system", last.platform),
        ("processor", last.processor),
        ("cores", str(last.cores) if last.cores else ""),
        ("GPUs", str(last.gpus)),
        ("trials ran on", ", ".join(devices)),
        ("machines", str(len(hosts)) if len(hosts) > 1 else ""),
        ("executor", last.executor),
        ("git commit", last.git_commit or "none"),
        ("data fingerprint", last.data_fingerprint),
    )
    code = ("git commit", "data fingerprint")
    return tuple(Pair(name, value, name in code) for name, value in values if value)


def _starts(starts: tuple[Environment, ...]) -> list[str]:
    lines = [f"{moment(starts[0].started)}: first start, {starts[0].executor}"]
    for before, now in pairwise(starts):
        changed = changes(asdict(before), now) or ["versions and hardware as before"]
        lines.append(f"{moment(now.started)}: continued, {now.executor}; {'; '.join(changed)}")
    return lines


def commands(standing: Standing) -> tuple[Command, ...]:
    """What to type, in the folder that the run directory lies in."""
    name = standing.source.directory.path.name or "RUN_DIR"
    spec = f"{name}/spec.yaml"
    left = standing.to_go + standing.counts.get(Status.FAILED, 0)
    again = ("Repeat everything in a new run directory", ["run", spec, "--out", f"{name}-again"])
    goes_on = (f"Run the {counted(left, 'trial')} left", ["run", spec, "--out", name])
    renew = ("Make the tables, the plots and this page again", ["report", name])
    chosen = [again, *([goes_on] if left else []), renew]
    return tuple(Command(what, shlex.join(["foldgrid", *words])) for what, words in chosen)


def files(standing: Standing) -> tuple[Pair, ...]:
    """What else lies in the run directory."""
    skipped = any(clip.problem for clip in standing.plan.clips)
    more = [("tables/skipped_clips.csv", "the clips left out")] if skipped else []
    if standing.plan.near_duplicates:
        more.append(("tables/near_duplicates.csv", "clips of near-identical audio in two folds"))
    return tuple(Pair(name, what) for name, what in (*_FILES, *more))
