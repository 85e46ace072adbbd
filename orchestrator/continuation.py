"""Continuation: whether a run directory may be gone on with."""

from __future__ import annotations

from pathlib import Path

from orchestrator.document import differences
from orchestrator.errors import RunDirectoryError, SpecificationError
from orchestrator.plan import Experiment
from orchestrator.provenance import runs
from orchestrator.run_directory import RunDirectory
from orchestrator.trials import Plan
from orchestrator.yaml_source import read


def refuse_other(experiment: Experiment, directory: RunDirectory, extend: bool) -> None:
    """Raise RunDirectoryError unless the run directory is new or of the same specification."""
    stored = directory.read_plan()
    if stored is None:
        return
    lines = _differences(experiment, directory.path, stored)
    missing = {t.id for t in stored.trials} - {t.id for t in experiment.plan.trials}
    same_data = [(c.path, c.label) for c in stored.clips] == [
        (c.path, c.label) for c in experiment.plan.clips
    ] and not any(line.startswith("data") for line in lines)
    if not lines and not missing:
        return
    if extend and same_data and not missing and not _other_folds(experiment, lines):
        return
    if missing:
        flag = "--extend: " if extend else ""
        lines.append(f"{flag}{len(missing)} trials of the run directory are not in the new plan")
    head = f"{directory.path}: made from another specification; allowed the same, or another --out"
    raise RunDirectoryError(head, *(f"  {line}" for line in lines))


def _other_folds(experiment: Experiment, lines: list[str]) -> bool:
    """Whether folds of one number may hold other clips than before, where they are made here."""
    made = experiment.sweep.settings.folds.k is not None
    paths = tuple(f"folds.{key}:" for key in ("k", "stratify", "group", "seed"))
    return made and any(line.startswith(paths) for line in lines)


def _differences(experiment: Experiment, run_dir: Path, stored: Plan) -> list[str]:
    try:
        before = read(run_dir / "spec.yaml").data
    except SpecificationError:
        before = {}
    lines = differences(before, experiment.document) if before else []
    old = {run.get("data_fingerprint") for run in runs(run_dir)}
    if old and experiment.dataset.fingerprint() not in old:
        paths = {c.path for c in stored.clips} ^ {c.path for c in experiment.plan.clips}
        names = f": {', '.join(sorted(paths)[:3])}" if paths else ""
        lines.append(f"data: the clips are not those that the run directory was made from{names}")
    return lines
