"""run_sweep: the story of a sweep, from the specification to the tables."""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
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
from orchestrator.continuation import (
    left_out_before,
    refuse_other,
    refuse_within_data,
    write_specification,
)
from orchestrator.costs import Costs, longest_first
from orchestrator.course import Course
from orchestrator.errors import DamagedPlanError, LostError, RunDirectoryError, SpecificationError
from orchestrator.executors import Executor, Job, Observer, SerialExecutor
from orchestrator.experiment import Experiment, load_dataset, make_experiment
from orchestrator.extraction import bad_clip_lines, extract
from orchestrator.interrupts import interruptible
from orchestrator.kept_weights import KeptWeights
from orchestrator.ledger import Ledger
from orchestrator.outer_results import estimate
from orchestrator.progress import SweepProgress, SweepState, epochs_of, say
from orchestrator.provenance import capture, changes, runs, write_runs
from orchestrator.records import EpochRow, TrialFailure, TrialPause, TrialRecord, Weights
from orchestrator.remaining import Remaining
from orchestrator.renewal import TableRenewal
from orchestrator.run_directory import RunDirectory
from orchestrator.runs import Run
from orchestrator.session import TOLD, logged, warned
from orchestrator.suggestions import restored
from orchestrator.summary import INTERRUPTED, Summary, load_drawing, summarize
from orchestrator.sweep import Sweep
from orchestrator.tracking import Tracking, refuse_missing, tracking
from orchestrator.trials import Trial

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the specification.

    Attributes:
        sweep: the specification.
        out: the run directory; None for `results/<name>` below the working directory.
        extend: accept a plan that holds every trial of the run directory and more.
        keep_failed: do not run failed trials again.
        executor: `ray` or `serial`.
        address: of an existing Ray cluster.
        jobs: most trials at once.
    """

    sweep: Sweep
    out: Path | None = None
    extend: bool = False
    keep_failed: bool = False
    executor: str = "ray"
    address: str | None = None
    jobs: int | None = None


def run_sweep(options: RunOptions, console: Console) -> Run:
    """Run a sweep, or continue it.

    Args:
        options: what to run, where and how.
        console: where progress is shown.

    Raises:
        FoldgridError: nothing was started, or (LostError) the disk or cluster was lost.
    """
    with warned(console):
        return _run_sweep(options, console)


def _run_sweep(options: RunOptions, console: Console) -> Run:
    sweep = options.sweep
    refuse_missing(sweep)
    run_dir = (options.out or Path("results") / sweep.settings.name).absolute()
    directory = RunDirectory(run_dir)
    sweep = restored(sweep, directory)
    experiment = make_experiment(sweep, load_dataset(sweep))
    refuse_within_data(sweep, run_dir)
    if options.executor == "ray" and options.address is None:
        capacity = measure(experiment)
        refuse_too_large(experiment, capacity)
        refuse_too_weak(experiment, capacity)
    refuse_other(experiment, directory, options.extend)
    shared = _storage(experiment)
    ledger = Ledger.open(run_dir)
    with ledger.locked(), logged(run_dir), interruptible() as stop:
        # Again, since another driver may have written it before the lock was ours.
        refuse_other(experiment, directory, options.extend)
        if shared is not None:
            ledger = ledger.stored_in(shared)
        course = Course(experiment, ledger, options.keep_failed)
        return _Run(course, ledger, options, console, stop).run()


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

    course: Course
    ledger: Ledger
    options: RunOptions
    console: Console
    stop: threading.Event
    timed_out: bool = False

    @property
    def experiment(self) -> Experiment:
        return self.course.experiment

    def run(self) -> Run:
        self.course.advance()
        self.ledger.drop_old_checkpoints(self.experiment.plan)
        pending = self.course.due()
        self._limit_time()
        if pending and self.options.executor == "ray":
            # Ray takes a second to import, which can pass while the features are extracted.
            threading.Thread(target=executor, args=(self.options,), daemon=True).start()
        arrays = self._features() if pending else self._as_before()
        self.course.advance()
        self._store()
        try:
            with self._tracking() as trackers:
                if pending and not self.stop.is_set():
                    self._say(pending)
                    self._execute_all(pending, arrays, trackers)
                self.ledger.close_storage()
                return self._result(self._summarize())
        except RunDirectoryError as error:
            # After the start it is no fault of the call any more: the disk was lost.
            raise LostError(*error.faults) from error

    def _tracking(self) -> AbstractContextManager[Tracking]:
        specs = self.experiment.sweep.settings.trackers
        return tracking(self.experiment.plan, specs, self.ledger.directory, self.stop)

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
        self.course.found_near(leakage.guarded(self.experiment, near))
        return {spec: extraction.array for spec, extraction in found.items()}

    def _leave_out(self, bad: Sequence[tuple[Clip, str]]) -> None:
        sweep = self.experiment.sweep
        if sweep.settings.data.on_bad_clip == "refuse":
            raise SpecificationError(*bad_clip_lines(sweep, bad))
        self.course.leave_out(bad)
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
        clips = left_out_before(self.experiment, stored)
        if clips:
            self.course.leave_out(clips)
        self.course.found_near(stored.near_duplicates)
        return {}

    def _store(self) -> None:
        """Write what a continuation and the summarizer need: specification, plan, environment."""
        run_dir, experiment = self.ledger.run_dir, self.experiment
        now = capture(
            experiment.sweep.path,
            experiment.dataset.fingerprint(),
            self.options.executor,
        )
        before = runs(run_dir)
        for line in changes(before[-1], now) if before else []:
            _log.warning(f"not as in the last run on this directory: {line}")
        for line in experiment.warnings:
            _log.warning(line)
        near = experiment.plan.near_duplicates
        leakage.warn(experiment.dataset.clips, near, leakage.TABLE)
        write_runs(run_dir, [*before, now.to_json()])
        write_specification(run_dir, experiment.document)
        self.ledger.write_plan(self.course.grown)

    def _say(self, pending: Sequence[Trial]) -> None:
        plan, done = self.experiment.plan, len(self.course.values)
        skipped = f", {done} of them done before" if done else ""
        _log.info("%d trials, %d to run now", len(plan.every), len(pending))
        say(self.console, f"{plan.name}: {self.experiment.product}{skipped}")

    def _execute_all(
        self, pending: list[Trial], arrays: dict[FeatureSpec, FeatureArray], trackers: Tracking
    ) -> None:
        """Run what is left, and then what that has chosen."""
        keep = self.experiment.sweep.settings.execution.keep_weights
        kept = KeptWeights(self.ledger, self.experiment.plan, keep, self.course.values)
        stages = self._stages(pending, arrays, trackers, kept)
        with executor(self.options) as running, closing(stages):
            running.run(stages, self.stop)

    def _stages(
        self,
        pending: list[Trial],
        arrays: dict[FeatureSpec, FeatureArray],
        trackers: Tracking,
        kept: KeptWeights,
    ) -> Generator[tuple[Job, Observer], None, None]:
        while pending and not self.stop.is_set():
            saved = self.ledger.saved_epochs(pending)
            job = self._job(longest_first(pending, self.course.costs, saved), arrays)
            with self._observed(job, saved, trackers, kept) as observer:
                yield job, observer
            if self.stop.is_set():
                break
            if news := self.course.advance():
                self._tell(news, trackers, kept)
            pending = self.course.due()

    def _tell(self, news: Sequence[str], trackers: Tracking, kept: KeptWeights) -> None:
        """The plan has grown, or some of it was given up."""
        for line in news:
            _log.info("%s", line)
            say(self.console, line)
        plan = self.course.grown
        self.ledger.write_plan(plan)
        for trial in plan.pruned:
            self.ledger.drop_checkpoint(trial)
        trackers.grow(plan)
        kept.grow(plan)

    @contextmanager
    def _observed(
        self, job: Job, saved: Mapping[str, int], trackers: Tracking, kept: KeptWeights
    ) -> Iterator[_Writer]:
        """Who is told what happens while a job is run, and shows it."""
        ends = {**job.stops, **job.pauses}
        epochs = epochs_of(job.trials, ends)
        remaining = Remaining(job.trials, Costs(job.splits, self.course.costs), saved, ends)
        total = sum(epochs.values())
        scores = dict(self.course.values)
        state = SweepState(self.experiment.plan, len(job.trials), total, remaining, scores=scores)
        progress = SweepProgress(state, epochs, self.console)
        with progress.shown(), TableRenewal(self.ledger.run_dir) as renewal:
            yield _Writer(
                self.ledger,
                self.course,
                kept,
                progress,
                renewal,
                trackers,
                {trial.id for trial in job.trials},
                job.pauses.keys(),
            )

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
            twins={
                first: twin
                for first, twin in self.course.twins.items()
                if twin.id not in self.course.values
            },
            stops=self.course.stops,
            pauses=self.course.pauses,
            keep_weights=settings.execution.keep_weights != "none",
            more=self.course.grows,
        )

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

    def _result(self, summary: Summary) -> Run:
        return Run(
            path=self.ledger.run_dir,
            plan=self.course.grown,
            total=self.course.total,
            finished=len(summary.results.finished),
            failed=len(summary.results.failed),
            pruned=len(summary.results.pruned),
            interrupted=self._interrupted(),
            report=summary.report,
            best=tables.best_of(summary.results),
            estimate=estimate(summary.results),
            selection=summary.selection,
        )


@dataclass
class _Writer:
    """The observer that writes: records to the ledger at once, tables now and then.

    What is in the ledger is safe; only then trackers are told. Of trials that are to wait they are
    told when these have finished: most are given up, and a tracker keeps files open for each.
    """

    ledger: Ledger
    course: Course
    kept: KeptWeights
    progress: SweepProgress
    renewal: TableRenewal
    trackers: Tracking
    unstarted: set[str]
    pausing: Set[str]

    def started(self, trial: str, epoch: int) -> None:
        self.unstarted.discard(trial)
        _log.info("%s %s", trial, f"goes on from epoch {epoch}" if epoch else "begins")
        self.progress.started(trial, epoch)
        if trial not in self.pausing:
            self.trackers.started(trial, epoch)

    def epoch(self, trial: str, row: EpochRow, seconds: float) -> None:
        self.progress.epoch(trial, row, seconds)
        if trial not in self.pausing:
            self.trackers.epoch(trial, row)

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

    def finished(self, record: TrialRecord, weights: Weights | None) -> None:
        if record.twin is not None:
            # First, so that none of the two is missing where the other is there.
            self._record(record.twin, weights.twin if weights else None)
            self.progress.twin(record.twin)
        self._record(record, weights)
        _log.info("%s finished", record.trial)
        self.progress.finished(record)
        self._ended()

    def _record(self, record: TrialRecord, weights: Weights | None) -> None:
        self.kept.save(record, weights)
        self.ledger.record(record)
        self.kept.recorded(record)
        self.course.note(record)
        self.trackers.finished(record)

    def failed(self, failure: TrialFailure) -> None:
        self.ledger.fail(failure)
        self.course.fail(failure)
        _log.error("%s failed: %s", failure.trial, failure.error)
        self.progress.failed(failure.trial, failure.error)
        self.trackers.failed(failure)
        self._ended()

    def paused(self, pause: TrialPause) -> None:
        self.ledger.pause(pause)
        self.course.pause(pause)
        _log.info("%s waits after %d epochs", pause.trial, len(pause.epochs))
        self.progress.paused(pause.trial)

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
