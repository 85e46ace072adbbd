"""run_sweep: the story of a sweep, from the specification to the tables."""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from features.arrays import FeatureArray
from features.cache import Extraction
from features.clips import Clip
from features.spec import FeatureSpec
from orchestrator import leakage, tables
from orchestrator.capacity import measure, refuse_too_large, refuse_too_weak
from orchestrator.checkpoint import Checkpoint
from orchestrator.configuration_scores import Best, metric_of
from orchestrator.continuation import refuse_other, write_specification
from orchestrator.costs import Costs, longest_first
from orchestrator.errors import DamagedPlanError, LostError, RunDirectoryError, SpecificationError
from orchestrator.executors import Executor, Job, SerialExecutor
from orchestrator.extraction import bad_clip_lines, extract
from orchestrator.interrupts import interruptible
from orchestrator.ledger import Ledger
from orchestrator.plan import Experiment, load_dataset, make_experiment
from orchestrator.progress import SweepProgress, SweepState, epochs_of, say
from orchestrator.provenance import capture, changes, origin, runs, write_runs
from orchestrator.records import EpochRow, TrialFailure, TrialRecord
from orchestrator.remaining import Remaining
from orchestrator.renewal import TableRenewal
from orchestrator.run_directory import RunDirectory
from orchestrator.session import TOLD, logged, warned
from orchestrator.summary import INTERRUPTED, Summary, load_drawing, summarize
from orchestrator.sweep import load_sweep
from orchestrator.trials import Plan, Trial

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the specification.

    Attributes:
        specification: path of the YAML file.
        overrides: `path.to.key=value`, the last wins.
        out: the run directory; None for `results/<name>` below the working directory.
        extend: accept a plan that holds every trial of the run directory and more.
        keep_failed: do not run failed trials again.
        executor: `ray` or `serial`.
        address: of an existing Ray cluster.
        jobs: most trials at once.
    """

    specification: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    extend: bool = False
    keep_failed: bool = False
    executor: str = "ray"
    address: str | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class RunResult:
    """How a sweep ended.

    Attributes:
        run_dir: absolute.
        plan: every trial.
        finished: how many of them have a record now.
        failed: how many have failed and not finished since.
        interrupted: stopped by SIGINT or SIGTERM.
        report: `report.html`; None where it could not be made.
        best: the best configuration, if one has all its folds.
    """

    run_dir: Path
    plan: Plan
    finished: int
    failed: int
    interrupted: bool
    report: Path | None
    best: Best | None

    @property
    def exit_code(self) -> int:
        """0 every trial finished, 1 some failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 0 if self.finished == len(self.plan.trials) else 1


def run_sweep(options: RunOptions, console: Console) -> RunResult:
    """Run a sweep, or continue it.

    Args:
        options: what to run, where and how.
        console: where progress is shown.

    Raises:
        FoldgridError: nothing was started, or (LostError) the disk or cluster was lost.
    """
    with warned(console):
        return _run_sweep(options, console)


def _run_sweep(options: RunOptions, console: Console) -> RunResult:
    sweep = load_sweep(options.specification, options.overrides, origin(options.specification))
    experiment = make_experiment(sweep, load_dataset(sweep))
    run_dir = (options.out or Path("results") / sweep.settings.name).absolute()
    if options.executor == "ray" and options.address is None:
        capacity = measure(experiment)
        refuse_too_large(experiment, capacity)
        refuse_too_weak(experiment, capacity)
    directory = RunDirectory(run_dir)
    refuse_other(experiment, directory, options.extend)
    shared = _storage(experiment)
    ledger = Ledger.open(run_dir)
    with ledger.locked(), logged(run_dir), interruptible() as stop:
        # Again, since another driver may have written it before the lock was ours.
        refuse_other(experiment, directory, options.extend)
        if shared is not None:
            ledger = ledger.stored_in(shared)
        return _Run(experiment, ledger, options, console, stop).run()


def _storage(experiment: Experiment) -> Path | None:
    """`execution.storage`; None without one.

    Raises:
        SpecificationError: it is no folder to write to.
    """
    sweep = experiment.sweep
    if sweep.settings.execution.storage is None:
        return None
    shared = Path(sweep.settings.execution.storage)
    if not shared.is_dir() or not os.access(shared, os.W_OK):
        allowed = "a folder to write to, which the driver and every worker see"
        raise sweep.fault(("execution", "storage"), str(shared), allowed)
    return shared


@dataclass
class _Run:
    """One call on a locked run directory."""

    experiment: Experiment
    ledger: Ledger
    options: RunOptions
    console: Console
    stop: threading.Event
    timed_out: bool = False

    def run(self) -> RunResult:
        plan = self.experiment.plan
        self.ledger.drop_old_checkpoints(plan)
        pending = self.ledger.pending(plan, self.options.keep_failed)
        self._limit_time()
        if pending and self.options.executor == "ray":
            # Ray takes a second to import, which can pass while the features are extracted.
            threading.Thread(target=executor, args=(self.options,), daemon=True).start()
        arrays = self._features() if pending else self._as_before()
        self._store()
        try:
            if pending and not self.stop.is_set():
                self._say(len(pending))
                self._execute(pending, arrays)
            self.ledger.close_storage()
            return self._result(self._summarize())
        except RunDirectoryError as error:
            # After the start it is no fault of the call any more: the disk was lost.
            raise LostError(*error.faults) from error

    def _interrupted(self) -> bool:
        return self.stop.is_set() and not self.timed_out

    def _limit_time(self) -> None:
        """Stop the sweep, as an interrupt does, when `execution.time_limit` is over."""
        limit = self.experiment.sweep.settings.execution.time_limit
        if limit is None:
            return

        def end() -> None:
            if not self.stop.is_set():
                self.timed_out = True
                self.stop.set()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()

    def _features(self) -> dict[FeatureSpec, FeatureArray]:
        """Extract what the trials need; bad clips are refused or left out of the experiment."""
        found: dict[FeatureSpec, Extraction] = {}
        for spec in self.experiment.features:
            found[spec] = extract(self.experiment, spec, self.console, self._interrupted)
        bad = {left.clip: left.problem for e in found.values() for left in e.bad}
        if bad:
            self._leave_out(sorted(bad.items(), key=lambda item: item[0].path))
        # The same for every kind of features: they are of the audio as it was decoded.
        near = next(iter(found.values())).near_duplicates
        self.experiment = leakage.guarded(self.experiment, near)
        return {spec: extraction.array for spec, extraction in found.items()}

    def _leave_out(self, bad: Sequence[tuple[Clip, str]]) -> None:
        sweep = self.experiment.sweep
        if sweep.settings.data.on_bad_clip == "refuse":
            raise SpecificationError(*bad_clip_lines(sweep, bad))
        self.experiment = make_experiment(sweep, self.experiment.dataset, bad)
        for clip, problem in bad:
            _log.warning("left out: %s: %s", clip.path, problem, extra=TOLD)
        say(self.console, f"{len(bad)} bad clips left out, named in tables/skipped_clips.csv")

    def _as_before(self) -> dict[FeatureSpec, FeatureArray]:
        """Nothing to run: no features, and what was found out about the clips still holds."""
        try:
            stored = self.ledger.read_plan()
        except DamagedPlanError:
            stored = None
        if stored is None:
            return self._features()
        problems = {c.path: c.problem for c in stored.clips if c.problem}
        clips = [(c, problems[c.path]) for c in self.experiment.dataset.clips if c.path in problems]
        if clips:
            sweep, dataset = self.experiment.sweep, self.experiment.dataset
            self.experiment = make_experiment(sweep, dataset, clips)
        plan = replace(self.experiment.plan, near_duplicates=stored.near_duplicates)
        self.experiment = replace(self.experiment, plan=plan)
        return {}

    def _store(self) -> None:
        """Write what a continuation and the summarizer need: specification, plan, environment."""
        run_dir, experiment = self.ledger.run_dir, self.experiment
        now = capture(
            self.options.specification.absolute(),
            experiment.dataset.fingerprint(),
            self.options.executor,
        )
        before = runs(run_dir)
        for line in changes(before[-1], now) if before else []:
            _log.warning(f"not as in the last run on this directory: {line}")
        for line in (*experiment.sweep.warnings, *experiment.leaks):
            _log.warning(line)
        near = experiment.plan.near_duplicates
        leakage.warn(experiment.dataset.clips, near, leakage.TABLE)
        write_runs(run_dir, [*before, now.to_json()])
        write_specification(run_dir, experiment.document)
        self.ledger.write_plan(experiment.plan)

    def _say(self, pending: int) -> None:
        plan = self.experiment.plan
        done = len(plan.trials) - pending
        skipped = f", {done} of them done before" if done else ""
        _log.info("%d trials, %d pending", len(plan.trials), pending)
        say(self.console, f"{plan.name}: {self.experiment.product}{skipped}")

    def _execute(self, pending: list[Trial], arrays: dict[FeatureSpec, FeatureArray]) -> None:
        costs, scores = self._measured()
        saved = self.ledger.saved_epochs(pending)
        job = self._job(longest_first(pending, costs, saved), arrays)
        epochs = epochs_of(pending)
        remaining = Remaining(job.trials, Costs(job.splits, costs), saved)
        total = sum(epochs.values())
        state = SweepState(self.experiment.plan, len(pending), total, remaining, scores=scores)
        progress = SweepProgress(state, epochs, self.console)
        with progress.shown(), TableRenewal(self.ledger.run_dir) as renewal:
            unstarted = {trial.id for trial in pending}
            observer = _Writer(self.ledger, progress, renewal, unstarted)
            executor(self.options).run(job, observer, self.stop)

    def _job(self, ordered: list[Trial], arrays: dict[FeatureSpec, FeatureArray]) -> Job:
        settings = self.experiment.sweep.settings
        dataset = self.experiment.dataset
        return Job(
            trials=ordered,
            arrays=arrays,
            labels=np.array([clip.label for clip in dataset.clips], dtype=np.int64),
            splits=self.experiment.split_of,
            classes=len(dataset.classes),
            import_path=self.experiment.sweep.import_path,
            resources=settings.resources,
            max_failures=settings.execution.max_failures,
            jobs=self.options.jobs,
            checkpoint_every=settings.checkpoint.every,
            timeout=settings.execution.trial_timeout,
            storage=self.ledger.storage,
        )

    def _measured(self) -> tuple[Costs, dict[str, float | None]]:
        """The time and the score of each finished trial."""
        plan = self.experiment.plan
        costs, scores = Costs(self.experiment.split_of), {}
        trials = {trial.id: trial for trial in plan.trials}
        for record in self.ledger.records(plan):
            costs.note_record(trials[record.trial], record)
            scores[record.trial] = metric_of(record, plan.metric)
        return costs, scores

    def _summarize(self) -> Summary:
        say(self.console, "writing tables, plots and report")
        run_dir = self.ledger.run_dir
        summary = summarize(run_dir, running=False, stop=self._interrupted)
        if summary.problem == INTERRUPTED:
            how = shlex.join(["foldgrid", "report", str(run_dir)])
            say(self.console, f"interrupted: no new plots and no report; {how} makes them")
        elif summary.problem:
            _log.warning(f"no plots and no report, see log.txt: {summary.problem}")
        return summary

    def _result(self, summary: Summary) -> RunResult:
        return RunResult(
            run_dir=self.ledger.run_dir,
            plan=self.experiment.plan,
            finished=len(summary.results.finished),
            failed=len(summary.results.failed),
            interrupted=self._interrupted(),
            report=summary.report,
            best=tables.best_of(summary.results),
        )


@dataclass
class _Writer:
    """The observer that writes: records to the ledger at once, tables now and then."""

    ledger: Ledger
    progress: SweepProgress
    renewal: TableRenewal
    unstarted: set[str]

    def started(self, trial: str, epoch: int) -> None:
        self.unstarted.discard(trial)
        _log.info("%s %s", trial, f"goes on from epoch {epoch}" if epoch else "begins")
        self.progress.started(trial, epoch)

    def epoch(self, trial: str, row: EpochRow, seconds: float) -> None:
        self.progress.epoch(trial, row, seconds)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self.ledger.save_checkpoint(checkpoint)

    def last_checkpoint(self, trial: str) -> Checkpoint | None:
        return self.ledger.checkpoint(trial)

    def remark(self, trial: str, text: str) -> None:
        _log.warning("%s: %s", trial, text)

    def gpus_shared(self, text: str) -> None:
        _log.info("%s", text)
        self.progress.note(text)

    def waiting(self, seconds: float) -> None:
        _log.warning("no worker for %.0f s", seconds, extra=TOLD)
        self.progress.waiting(seconds)

    def retried(self, failure: TrialFailure) -> None:
        attempt = failure.timing.attempts
        told = (failure.trial, attempt, failure.error)
        _log.warning("%s: attempt %d: %s", *told, extra=TOLD)
        self.progress.retried(failure.trial, failure.error)

    def finished(self, record: TrialRecord) -> None:
        self.ledger.record(record)
        _log.info("%s finished", record.trial)
        self.progress.finished(record)
        self._ended()

    def failed(self, failure: TrialFailure) -> None:
        self.ledger.fail(failure)
        _log.error("%s failed: %s", failure.trial, failure.error)
        self.progress.failed(failure.trial, failure.error)
        self._ended()

    def _ended(self) -> None:
        self.renewal.news()
        # Who ran this trial has no other: there is a core for what comes next.
        if not self.unstarted:
            load_drawing()


def executor(options: RunOptions) -> Executor:
    """The executor that the options name."""
    if options.executor == "serial":
        return SerialExecutor()
    # Not at module level: ray takes a second to import.
    from orchestrator.ray_executor import RayExecutor

    return RayExecutor(options.address)
