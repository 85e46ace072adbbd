"""ReportSource: what the report reads of a run directory: its files and the tables just written.

Records hold predictions and epochs, which the report does not show: a table's rows are read in
their place, and a few records where a split's size is asked for.
"""

from __future__ import annotations

import csv
import fcntl
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cached_property

from pydantic import ValidationError

from orchestrator.errors import FoldgridError, RunDirectoryError
from orchestrator.provenance import Environment, runs
from orchestrator.records import Status
from orchestrator.run_directory import RunDirectory
from orchestrator.specification import Settings
from orchestrator.trials import Plan, Trial
from orchestrator.yaml_source import load

_log = logging.getLogger(__name__)

_LOG_BYTES = 2**22
"""Of the log's end that are looked through for warnings."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One row of `trials.csv`.

    Attributes:
        trial: of the plan.
        status: where it stands.
        error: of a failed trial.
        epoch: the one that counts; None for an unfinished trial.
        scores: every metric of the row by its full name, e.g. `val_f1`, `train_loss`.
    """

    trial: Trial
    status: Status
    error: str
    epoch: int | None
    scores: Mapping[str, float]

    def metric(self, name: str) -> float | None:
        """A metric by its full name; None where there is none."""
        return self.scores.get(name)


@dataclass(frozen=True, slots=True)
class TrialTime:
    """One row of `timings.csv`.

    Attributes:
        started: UTC.
        wall_seconds: from the trial's start to its record.
        attempts: how often it was started.
        host: name of the machine.
        device: `cpu` or the name of the GPU.
    """

    started: datetime
    wall_seconds: float
    attempts: int
    host: str
    device: str

    @property
    def ended(self) -> datetime:
        """UTC."""
        return self.started + timedelta(seconds=self.wall_seconds)


@dataclass(frozen=True, slots=True)
class SplitSize:
    """Clips of one split; test 0 without a test fold, all 0 while none of its trials is done."""

    test_fold: int | None
    fold: int | None
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class CsvTable:
    """A table as it stands on disk.

    Attributes:
        name: of the file.
        header: names of the columns.
        rows: cells as text.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ReportSource:
    """The run directory of a report.

    Attributes:
        directory: the reading side.
        plan: every trial.
    """

    directory: RunDirectory
    plan: Plan

    @cached_property
    def trials(self) -> tuple[TrialRow, ...]:
        """Every trial of the plan in plan order, as `trials.csv` has it."""
        return self._rows(self.plan.trials)

    @cached_property
    def outer(self) -> tuple[TrialRow, ...]:
        """Likewise the outer trials of a nested cross-validation."""
        return self._rows(self.plan.outer)

    @cached_property
    def times(self) -> dict[str, TrialTime]:
        """When each trial that ended ran, by its identity."""
        return {row["trial"]: _time(row) for row in self._dicts("timings.csv")}

    @cached_property
    def environments(self) -> tuple[Environment, ...]:
        """Each start of the sweep, the first one first."""
        names = {field.name for field in fields(Environment)}
        return tuple(
            Environment(**{"started": "", "python": ""} | {k: run[k] for k in run if k in names})
            for run in runs(self.directory.path)
        )

    @cached_property
    def specification(self) -> str:
        """`spec.yaml` as it stands; empty where there is none."""
        try:
            path = self.directory.path / "spec.yaml"
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @cached_property
    def settings(self) -> Settings | None:
        """The specification's sections without spaces; None where they cannot be read."""
        try:
            data = load(self.specification, "spec.yaml").data
            known = {f.alias or name for name, f in Settings.model_fields.items()}
            return Settings.model_validate({k: v for k, v in data.items() if k in known})
        except (FoldgridError, ValidationError, AttributeError):
            return None

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the log warns of, each line once, from every start."""
        try:
            with (self.directory.path / "log.txt").open("rb") as stream:
                stream.seek(0, 2)
                stream.seek(max(stream.tell() - _LOG_BYTES, 0))
                text = stream.read().decode("utf-8", errors="replace")
        except OSError:
            return ()
        lines = (line.partition(" WARNING ") for line in text.splitlines())
        return tuple(dict.fromkeys(rest.partition(": ")[2] for _, mark, rest in lines if mark))

    @cached_property
    def splits(self) -> tuple[SplitSize, ...]:
        """Every split in plan order, its size from the record of one of its trials."""
        done: dict[tuple[int | None, int | None], Trial | None] = {}
        for row in self.trials:
            split = (row.trial.test_fold, row.trial.fold)
            if done.get(split) is None:
                done[split] = row.trial if row.status is Status.FINISHED else None
        usable = sum(not clip.problem for clip in self.plan.clips)
        sizes = [self._size(split, trial, usable) for split, trial in done.items()]
        if self.plan.protocol != "nested":
            return tuple(sizes)
        # An inner split leaves the test fold alone, whose size is known where it validates.
        unseen = {size.fold: size.val for size in sizes}
        return tuple(
            replace(size, train=size.train - unseen.get(size.test_fold, 0)) if size.val else size
            for size in sizes
        )

    def values(self, metric: str) -> dict[str, float | None]:
        """A metric of the finished trials by identity, as `configuration_scores` takes it."""
        return {
            row.trial.id: row.metric(metric) for row in self.trials if row.status is Status.FINISHED
        }

    def table(self, name: str) -> CsvTable | None:
        """One of the tables; None where there is none."""
        try:
            with (self.directory.tables / name).open(encoding="utf-8", newline="") as stream:
                rows = [tuple(row) for row in csv.reader(stream)]
        except (OSError, csv.Error):
            return None
        return CsvTable(name, rows[0], tuple(rows[1:])) if rows else None

    def driven(self) -> bool:
        """Whether a driver holds the run directory's lock, this process included."""
        try:
            # Only reading, and only beside other readers: nothing changes for the driver.
            with (self.directory.path / ".lock").open("rb") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        except OSError:
            return False
        return False

    def _size(
        self, split: tuple[int | None, int | None], trial: Trial | None, usable: int
    ) -> SplitSize:
        record = self.directory.record(trial) if trial else None
        if record is None:
            return SplitSize(*split, 0, 0, 0)
        val = len(record.val.predictions.clips) if record.val else 0
        test = len(record.test.predictions.clips) if record.test else 0
        return SplitSize(*split, usable - val - test, val, test)

    def _rows(self, trials: Sequence[Trial]) -> tuple[TrialRow, ...]:
        return tuple(_trial_row(trial, self._found.get(trial.id, {})) for trial in trials)

    @cached_property
    def _found(self) -> dict[str, dict[str, str]]:
        return {row["trial"]: row for row in self._dicts("trials.csv")}

    def _dicts(self, name: str) -> Iterator[dict[str, str]]:
        path = self.directory.tables / name
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                yield from csv.DictReader(stream)
        except (OSError, csv.Error) as error:
            raise RunDirectoryError(f"{path}: cannot read: write the tables first") from error


def _trial_row(trial: Trial, row: Mapping[str, str]) -> TrialRow:
    scores = {
        name: float(cell)
        for name, cell in row.items()
        if cell and name.startswith(("train_", "val_", "test_")) and name != "test_fold"
    }
    epoch = row.get("epoch")
    return TrialRow(
        trial=trial,
        status=Status(row.get("status", Status.PENDING)),
        error=row.get("error", ""),
        epoch=int(epoch) if epoch else None,
        scores=scores,
    )


def _time(row: Mapping[str, str]) -> TrialTime:
    return TrialTime(
        started=datetime.fromisoformat(row["started"]),
        wall_seconds=float(row["wall_seconds"]),
        attempts=int(row["attempts"]),
        host=row["host"],
        device=row["device"],
    )
