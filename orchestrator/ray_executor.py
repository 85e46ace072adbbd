"""RayExecutor: trials on Ray Tune; the only module that imports ray.

One class Trainable whose actors are reused: a function trainable starts a process and imports
torch anew for each trial, about two seconds, a reused actor takes milliseconds. The features are
put into the object store once; a worker maps them without a copy.
"""

from __future__ import annotations

import os

from features.arrays import FeatureArray, let_go

# Read by ray when it is imported: no usage statistics, no handler of its own for SIGINT, no
# result files beside the ledger, no snapshot of Tune's state (the ledger is what resumes).
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000000"
os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
# Ray's workers would give way to every other process of the machine, as a plain script does not.
os.environ.setdefault("RAY_worker_niceness", "0")

import functools
import gc
import logging
import math
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import ray
from ray import tune
from ray._private import ray_constants
from ray.air._internal import usage
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from features.spec import FeatureSpec
from orchestrator.checkpoint import (
    Checkpoint,
    read_checkpoint,
    storage_file,
    write_checkpoint,
)
from orchestrator.deaths import death
from orchestrator.errors import ClusterError, LostError, RunDirectoryError
from orchestrator.executors import Job, Observer, Stages, tell, trial_input
from orchestrator.guard import Guard
from orchestrator.head import knock, watched
from orchestrator.packing import CONTEXT_BYTES, Need, Packing, Room, kinds, pack, sentence, worse
from orchestrator.provenance import usable_cores, visible_gpus
from orchestrator.records import (
    Cause,
    EpochRow,
    TrialFailure,
    TrialPause,
    TrialRecord,
    Weights,
)
from orchestrator.retries import Retries, larger_share
from orchestrator.session_folder import session_folder

if TYPE_CHECKING:
    from orchestrator.trial import TrialRun

_log = logging.getLogger(__name__)
_ray_log = logging.getLogger("ray")

_Array = FeatureArray

_FIRST_STEP_SECONDS, _STEP_SECONDS = 0.5, 2.0
"""A step runs as many epochs as fit: each report to Tune costs ten milliseconds of a busy machine,
in which its trial waits. The first one is shorter: it says that the trial is under way."""

_SAVE_SECONDS = 10.0
"""How long running trials have to save themselves when a sweep is stopped."""

_WAIT_SECONDS = 60.0
"""How long no trial runs before the user is told, again and again."""

_JOIN_SECONDS = 30.0
"""How long a cluster that has no core yet is waited for."""

_LOST = "the Ray cluster was lost"

_IDLE_MILLISECONDS = 600_000
"""How long a process that Ray has started in advance may wait for a trial. By default it is one
second, and it ends just when the cores are reserved for the trial that it was started for."""

_PROBE_SECONDS = 120.0
"""How long trials are tried out for `gpu: auto`; kinds that are left are guessed."""

_MOST_PROBES = 8
"""Kinds of trials that are tried out, those of the largest batches; the others are guessed."""

_SPARE_STORE = 256 * 2**20
"""Bytes of object store beside the features, for the job, the records and checkpoints."""


@dataclass(frozen=True)
class _Share:
    """What every worker is given.

    Attributes:
        arrays: where the features are stored.
        folder: the driver's, which workers on other machines do not see.
        stop_key: what the cluster is told when workers are to save their trials.
        gpu_context: bytes of a GPU that every process takes beside its tensors.
    """

    arrays: Mapping[FeatureSpec, ray.ObjectRef[_Array]]
    folder: Path
    stop_key: bytes
    gpu_context: int = CONTEXT_BYTES

    def stacks_file(self, index: int) -> Path:
        """What the process of a trial was doing shortly before its deadline."""
        return self.folder / f"stacks-{index}.txt"


@dataclass
class _Held:
    """Something in the object store that goes with a trial; None where it has been let go of.

    Tune keeps what a trial was given to the end of the sweep.
    """

    stored: ray.ObjectRef[Any] | None

    def __deepcopy__(self, memo: object) -> _Held:
        # Tune copies configurations; the copy of a reference would never be let go.
        return self

    def __str__(self) -> str:
        return "held"


class _Trainable(tune.Trainable):
    """Runs one trial after another in an actor that is kept."""

    def setup(self, config: dict[str, Any], share: _Share) -> None:  # type: ignore[override]
        """Take the share, and the first trial."""
        from orchestrator.trial import warm_up

        self._share = share
        self._stored: dict[FeatureSpec, _Array] = {}
        self._guard = Guard()
        self._run: TrialRun | None = None
        self._reference: ray.ObjectRef[Job] | None = None
        self.reset_config(config)
        warm_up(self._job.trials[config["index"]].configuration.model)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._task, self._run = new_config, None
        reference: ray.ObjectRef[Job] = new_config["job"].stored
        if reference != self._reference:
            self._reference, self._job = reference, ray.get(reference)
        return True

    def step(self) -> dict[str, Any]:
        """Epochs for some time or until the next checkpoint; at last the trial's record."""
        end = time.monotonic() + (_STEP_SECONDS if self._run else _FIRST_STEP_SECONDS)
        run = self._run or self._begin()
        result: dict[str, Any] = {"rows": [], "saved": _told(self._share.stop_key)}
        try:
            checkpoint = self._saved(run.checkpoint(now=True)) if result["saved"] else None
            while not result["saved"] and run.outcome is None and checkpoint is None:
                row = run.step()
                if row is not None:
                    result["rows"].append((row, run.step_seconds))
                checkpoint = self._saved(run.checkpoint())
                if time.monotonic() >= end:
                    break
        except RunDirectoryError as error:
            # Of the storage: no fault of the trial, and it would befall every other one too.
            return result | {"lost": str(error), "done": True}
        if run.outcome is not None:
            self._guard.disarm()
        result |= {"outcome": run.outcome, "checkpoint": checkpoint, "remark": run.remark}
        return result | {"weights": run.weights, "done": run.outcome is not None}

    def _begin(self) -> TrialRun:
        from orchestrator.trial import TrialRun

        job = self._job
        if job.timeout is not None:
            self._guard.arm(job.timeout, self._share.stacks_file(self._task["index"]))
        trial = job.trials[self._task["index"]]
        features = self._features(trial.configuration.features)
        given = trial_input(
            job,
            trial,
            features,
            self._task["gpus"],
            self._last(trial.id),
            gpu_context=self._share.gpu_context,
        )
        self._run = TrialRun(given)
        return self._run

    def _last(self, trial: str) -> Checkpoint | None:
        last: _Held | None = self._task["last"]
        if last is None:
            return None
        if last.stored is not None:
            return cast(Checkpoint, ray.get(last.stored))
        assert self._job.storage is not None
        return read_checkpoint(storage_file(self._job.storage, trial), trial)

    def _saved(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """The checkpoint if the driver is to keep it; else it is in the storage."""
        if checkpoint is None or self._job.storage is None:
            return checkpoint
        write_checkpoint(storage_file(self._job.storage, checkpoint.trial), checkpoint)
        return None

    def _features(self, spec: FeatureSpec) -> _Array:
        if spec not in self._stored:
            self._stored[spec] = ray.get(self._share.arrays[spec])
        return self._stored[spec]


def _told(key: bytes) -> bool:
    """Whether the cluster has been told something."""
    return bool(ray.experimental.internal_kv._internal_kv_exists(key))


class _NotKept:
    """Pickled empty: Tune stores what drives a sweep for a restore, which the ledger replaces."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Work:
    """The trials at hand, and after them those that their results call for.

    Attributes:
        job: without its arrays.
        observer: who is told what becomes of its trials.
        held: the job, for the workers.
        error: what the observer or the next job's making raised (the disk is full, say): Tune
            would take it for the trial's own fault and try the trial again.
        following: a job that the workers at hand cannot run.
        gpus: of one trial, where GPUs are not shared.
    """

    def __init__(self, job: Job, observer: Observer, stages: Stages, gpus: float) -> None:
        self.error: Exception | None = None
        self.following: tuple[Job, Observer] | None = None
        self._stages = stages
        self.gpus = gpus
        self._specs = job.arrays.keys()
        self._take(job, observer)

    def _take(self, job: Job, observer: Observer) -> None:
        self.job, self.observer = replace(job, arrays={}), observer
        self.held = _Held(ray.put(self.job))

    def advance(self) -> bool:
        """Go on to the next job; whether there is one that the workers at hand can run."""
        found = None
        with self.kept():
            found = next(self._stages, None)
        if found is None:
            return False
        # Trials of other kinds are to be tried out first, with the GPUs free.
        packed = self.gpus > 0 and self.job.resources.gpu == "auto"
        if packed or found[0].arrays.keys() - self._specs:
            self.following = found
            return False
        self.held.stored = None
        self._take(*found)
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is raised."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error


class _Queue(_NotKept, Searcher):
    """Suggests trials to Tune: first those to be started again, then the others in order.

    Tune's own retries would count the death of a node, and know no other resources.
    """

    def __init__(self, work: _Work, gpus: Sequence[float]) -> None:
        super().__init__()
        self._work = work
        self._waiting = deque(enumerate(gpus))
        self._given: dict[int, int] = {}
        self.closed = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial; None while all that are left run."""
        self._fill()
        if self.closed or not (self._waiting or self._given):
            return Searcher.FINISHED
        job = self._work.job
        if not self._waiting or len(self._given) >= (job.jobs or math.inf):
            return None
        index, gpus = self._waiting.popleft()
        last = self._work.observer.last_checkpoint(job.trials[index].id)
        self._given[index] = 0 if last is None else last.epoch
        return {"index": index, "gpus": gpus, "last": self._held(last), "job": self._work.held}

    def _fill(self) -> None:
        """Go on to the next job where every trial has ended."""
        if self.closed or self._waiting or self._given:
            return
        if self._work.advance():
            self._waiting.extend(enumerate(_whole(self._work.job, self._work.gpus)))
        else:
            self.closed = True

    def _held(self, last: Checkpoint | None) -> _Held | None:
        if last is None:
            return None
        return _Held(None if self._work.job.storage else ray.put(last))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the messenger, which knows how the trial ended, tells us."""

    def first_epoch(self, index: int) -> int:
        """Where a trial that was given out goes on."""
        return self._given.get(index, 0)

    def ended(self, index: int) -> None:
        """A trial has come to its end."""
        self._given.pop(index, None)

    def again(self, index: int, gpus: float) -> None:
        """A trial is to be started again."""
        self._given.pop(index, None)
        self._waiting.appendleft((index, gpus))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what a sweep is continued from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class _Scheduler(_NotKept, FIFOScheduler):
    """Lets a worker that is free take a trial for which no process is being started.

    Tune's own would give it the first in line, and end the process that is on its way for that
    one: where trials are shorter than a process's start, no second worker would ever arrive.
    """

    def __init__(self, kept: int) -> None:
        """Take the number of workers that are to be kept while no trial waits for one."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept
        self._waiting: list[TuneTrial] = []

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Take note of a trial."""
        self._waiting.append(trial)
        if self._kept:
            cache = tune_controller._tune_controller._actor_cache
            cache.increase_max(trial.placement_group_factory, by=self._kept)
            self._kept = 0

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """The first trial that nothing has been started for."""
        controller = tune_controller._tune_controller
        actors, manager = controller._trial_to_actor, controller._actor_manager
        self._waiting = [trial for trial in self._waiting if trial.status == TuneTrial.PENDING]
        for trial in self._waiting:
            if trial not in actors or not manager.is_actor_started(actors[trial]):
                return trial
        return None


class _Messenger(_NotKept, Callback):
    """Hands what Tune hears from the workers to the observer, and failed trials to the queue.

    Attributes:
        running: when each running trial was started, by index.
        saved: those that have reported since the sweep was stopped.
    """

    def __init__(self, share: _Share, work: _Work, queue: _Queue) -> None:
        self.running: dict[int, float] = {}
        self.saved: set[int] = set()
        self._share = share
        self._work = work
        self._queue = queue
        self._retries = Retries(work.job.max_failures)
        self._idle_since, self._patience = time.monotonic(), _WAIT_SECONDS

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        now = time.monotonic()
        if self.running:
            self._idle_since, self._patience = now, _WAIT_SECONDS
        elif now - self._idle_since > self._patience:
            with self._work.kept():
                self._work.observer.waiting(now - self._idle_since)
            self._patience += _WAIT_SECONDS

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        index = trial.config["index"]
        self.running[index] = time.monotonic()
        identity = self._work.job.trials[index].id
        self._retries.started(identity)
        with self._work.kept():
            self._work.observer.started(identity, self._queue.first_epoch(index))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        index = trial.config["index"]
        # Taken out, since Tune keeps the last result of every trial.
        rows: list[tuple[EpochRow, float]] = result.pop("rows", [])
        outcome = result.pop("outcome", None)
        weights = result.pop("weights", None)
        checkpoint = result.pop("checkpoint", None)
        identity = self._work.job.trials[index].id
        if result.get("saved"):
            self.saved.add(index)
        with self._work.kept():
            if "lost" in result:
                raise LostError(result["lost"])
            if result.get("remark") and any(row.epoch == 0 for row, _ in rows):
                self._work.observer.remark(identity, result["remark"])
            for row, seconds in rows:
                self._work.observer.epoch(identity, row, seconds)
            if checkpoint is not None:
                self._work.observer.checkpoint(checkpoint)
            if isinstance(outcome, TrialPause):
                self._left(trial.config)
                self._retries.paused(identity)
                self._queue.ended(index)
                tell(outcome, None, self._work.observer)
            elif isinstance(outcome, TrialRecord | TrialFailure):
                self._ended(trial.config, outcome, weights)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        index = trial.config["index"]
        seconds = time.monotonic() - self.running.get(index, math.inf)
        with self._work.kept():
            story = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
            failure = death(self._work.job.trials[index].id, story, seconds, self._work.job.timeout)
            if failure.cause is Cause.TIMEOUT:
                failure = replace(failure, traceback=self._stacks(index) + story)
            self._ended(trial.config, failure)

    def _stacks(self, index: int) -> str:
        path = self._share.stacks_file(index)
        return path.read_text(encoding="utf-8") + "\n" if path.exists() else ""

    def _ended(
        self,
        task: dict[str, Any],
        outcome: TrialRecord | TrialFailure,
        weights: Weights | None = None,
    ) -> None:
        index = task["index"]
        self._left(task)
        known = self._retries.attempts.get(outcome.trial, 1)
        timing = replace(outcome.timing, attempts=max(known, outcome.timing.attempts))
        outcome = replace(outcome, timing=timing)
        if isinstance(outcome, TrialRecord) and outcome.twin is not None:
            outcome = replace(outcome, twin=replace(outcome.twin, timing=timing))
        if isinstance(outcome, TrialFailure) and self._again(index, task["gpus"], outcome):
            return
        self._queue.ended(index)
        tell(outcome, weights, self._work.observer)

    def _left(self, task: dict[str, Any]) -> None:
        """A trial has no worker any more, and its checkpoint in the object store no use."""
        self.running.pop(task["index"], None)
        if task["last"] is not None:
            task["last"].stored = None

    def _again(self, index: int, gpus: float, failure: TrialFailure) -> bool:
        """Queue a trial again if it may be; whether it may."""
        if not self._retries.again(failure.trial, failure.cause, gpus):
            return False
        more = larger_share(gpus) if failure.cause is Cause.GPU_MEMORY else None
        self._queue.again(index, more or gpus)
        self._work.observer.retried(failure)
        return True


class _Stop(_NotKept, Stopper):
    """Ends the sweep when it is stopped from outside, or its records can go nowhere."""

    def __init__(
        self,
        share: _Share,
        work: _Work,
        stop: threading.Event,
        messenger: _Messenger,
        queue: _Queue,
    ) -> None:
        self._share = share
        self._work = work
        self._stop = stop
        self._messenger = messenger
        self._queue = queue
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether to end: once the running trials are saved, or had the time to be."""
        if self._work.error is not None:
            return True
        if not self._stop.is_set():
            return False
        if self._since is None:
            self._since = time.monotonic()
            self._queue.closed = True
            ray.experimental.internal_kv._internal_kv_put(self._share.stop_key, b"1")
        late = time.monotonic() - self._since > _SAVE_SECONDS
        return late or set(self._messenger.running) <= self._messenger.saved


class RayExecutor:
    """Trials in parallel on a Ray of our own, or on an existing cluster."""

    def __init__(self, address: str | None = None) -> None:
        """Take the cluster's address; None starts a Ray on this machine and ends it again."""
        self._address = address
        self._kept = ExitStack()
        self._folder: Path | None = None
        self._arrays: dict[FeatureSpec, ray.ObjectRef[_Array]] = {}

    def __enter__(self) -> Self:
        """Ray starts with the first job."""
        return self

    def __exit__(self, *error: object) -> None:
        """Disconnect from Ray; end it where it is our own."""
        self._arrays.clear()
        self._kept.close()

    def run(self, stages: Stages, stop: threading.Event) -> None:
        """Run the trials; see `Executor`."""
        try:
            following = next(stages, None)
            while following is not None and not stop.is_set():
                following = self._run(*following, stages, stop)
        except SystemExit:
            # Ray's own answer to a SIGTERM while it starts.
            if not stop.is_set():
                raise

    def _run(
        self, job: Job, observer: Observer, stages: Stages, stop: threading.Event
    ) -> tuple[Job, Observer] | None:
        """Run a job and those after it; the first that needs other workers."""
        if self._folder is None:
            self._folder = self._kept.enter_context(_ray(self._address, job))
            _await_cores(stop)
        if stop.is_set():
            return None
        work = _Work(job, observer, stages, _gpus(job))
        for spec in job.arrays.keys() - self._arrays.keys():
            self._arrays[spec] = _put(job.arrays[spec])
        _run_in(self._folder, work, self._arrays, stop)
        return work.following


def _run_in(
    folder: Path,
    work: _Work,
    arrays: Mapping[FeatureSpec, ray.ObjectRef[_Array]],
    stop: threading.Event,
) -> None:
    """Run the trials on the Ray that this process is connected to."""
    share = _Share(arrays, folder, secrets.token_bytes(16))
    try:
        with watched(_head(), _give_up):
            packing = _packing(share, work, stop)
            if stop.is_set():
                return
            share = replace(share, gpu_context=packing.context)
            queue = _Queue(work, packing.shares)
            messenger = _Messenger(share, work, queue)
            stopper = _Stop(share, work, stop, messenger, queue)
            with _workers_as_they_are(), _untagged():
                _tuner(share, work, queue, messenger, stopper).fit()
    except (ray.exceptions.RayError, OSError) as error:
        raise LostError(f"{_LOST}: {_line(error)}") from error
    if work.error is not None:
        raise work.error


def _put(array: _Array) -> ray.ObjectRef[_Array]:
    """An array in the object store, and no longer in this process."""
    # A memory map is a subclass, and only plain arrays come out of the store uncopied.
    stored = ray.put(np.asarray(array))
    let_go(array)
    return stored


def _head() -> str:
    """HOST:PORT of the cluster's head."""
    return str(ray.get_runtime_context().gcs_address)


def _give_up(reason: str) -> None:
    """End this process: its main thread waits in Ray, which would end it a little later."""
    _log.error("%s: %s", _LOST, reason)
    print(f"{_LOST}: {reason}", file=sys.stderr, flush=True)
    os._exit(LostError.exit_code)


def _gpus(job: Job) -> float:
    """The GPUs of one trial; refuses what no node has."""
    available = ray.cluster_resources()
    wanted = job.resources
    found = 1.0 if available.get("GPU", 0) >= 1 else 0.0
    gpus = found if wanted.gpu == "auto" else float(wanted.gpu)
    for name, key, need in (("cpu", "CPU", wanted.cpu), ("gpu", "GPU", gpus)):
        have = max((node["Resources"].get(key, 0) for node in ray.nodes()), default=0)
        if need > have:
            raise ClusterError(f"resources.{name}: found {need:g}; allowed at most {have:g}")
    return gpus


def _await_cores(stop: threading.Event) -> None:
    """Give a cluster's workers time to join: a head often comes first and has no cores."""
    if ray.cluster_resources().get("CPU"):
        return
    _log.warning("no node has a core yet: waiting up to %g s for one", _JOIN_SECONDS)
    deadline = time.monotonic() + _JOIN_SECONDS
    while not stop.wait(0.2) and time.monotonic() < deadline:
        if ray.cluster_resources().get("CPU"):
            return


class _Prober:
    """Tries trials out, one after the other, in a process that has a GPU alone."""

    def __init__(self, share: _Share, job: Job) -> None:
        self._share = share
        self._job = job

    def need(self, index: int) -> Need | str:
        """What a trial needs of the GPU, or why that cannot be said."""
        from orchestrator.probe import probe

        job = self._job
        trial = job.trials[index]
        try:
            features = ray.get(self._share.arrays[trial.configuration.features])
            return probe(trial_input(job, trial, features, 1.0))
        except Exception as error:
            # A model of the user's may raise whatever it likes; its trials will, too.
            return _line(error)


def _whole(job: Job, gpus: float) -> tuple[float, ...]:
    """The GPUs of each trial where they are not shared."""
    # An estimator computes on a CPU, whatever its neighbours in the plan have.
    trained = [trial.configuration.train is not None for trial in job.trials]
    return tuple(gpus if needs_it else 0.0 for needs_it in trained)


def _packing(share: _Share, work: _Work, stop: threading.Event) -> Packing:
    """The GPUs of each trial: for `gpu: auto` as many to a GPU as a short try says will fit."""
    job, nodes = work.job, _gpu_nodes()
    whole = Packing(_whole(job, work.gpus))
    if job.resources.gpu != "auto" or not any(whole.shares) or not nodes:
        return whole
    room = _room(job, nodes)
    if room.most == 1:
        return whole
    clips = {key: len(s.train) + len(s.val) + len(s.test) for key, s in job.splits.items()}
    groups = kinds(job.trials, clips)
    tried = "one trial" if len(groups) == 1 else f"trials of {min(len(groups), _MOST_PROBES)} kinds"
    work.observer.gpus_shared(f"gpu: auto: trying out {tried}")
    needs = _needs(share, job, groups, nodes, stop)
    packing = pack(groups, needs, room, len(job.trials))
    if not stop.is_set():
        work.observer.gpus_shared(sentence(packing, needs))
    return packing


def _gpu_nodes() -> list[dict[str, Any]]:
    """Nodes with a GPU."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [node for node in alive if node["Resources"].get("GPU", 0) >= 1]


def _room(job: Job, nodes: Sequence[dict[str, Any]]) -> Room:
    found = [node["Resources"] for node in nodes]
    return Room(
        trials=min(len(job.trials), job.jobs or len(job.trials)),
        gpus=sum(int(resources["GPU"]) for resources in found),
        cores=min(resources.get("CPU", 0) / int(resources["GPU"]) for resources in found),
        cpu=job.resources.cpu,
    )


def _needs(
    share: _Share,
    job: Job,
    groups: Sequence[Sequence[int]],
    nodes: Sequence[dict[str, Any]],
    stop: threading.Event,
) -> dict[int, Need | None]:
    """What each kind of trials needs; see `pack`. Something is tried on every node: GPUs differ."""
    probers = [_prober(share, job, node["NodeID"]) for node in nodes]
    asked: dict[ray.ObjectRef[Need | str], int] = {}
    tried = min(len(groups), _MOST_PROBES)
    for i in range(max(tried, len(nodes))):
        kind = i % tried
        asked[probers[i % len(nodes)].need.remote(groups[kind][0])] = kind
    try:
        return _answers(asked, stop)
    finally:
        for prober in probers:
            ray.kill(prober)


def _prober(share: _Share, job: Job, node: str) -> Any:
    options: dict[str, Any] = {
        "num_gpus": 1,
        "num_cpus": job.resources.cpu,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(_Prober).options(**options).remote(share, job)


def _answers(
    asked: Mapping[ray.ObjectRef[Need | str], int], stop: threading.Event
) -> dict[int, Need | None]:
    needs: dict[int, Need | None] = {}
    left, end = list(asked), time.monotonic() + _PROBE_SECONDS
    while left and not stop.is_set() and time.monotonic() < end:
        done, left = ray.wait(left, timeout=0.5)
        for answer in done:
            need = _answer(answer)
            needs[asked[answer]] = worse(needs.get(asked[answer], need), need)
    return needs


def _answer(answer: ray.ObjectRef[Need | str]) -> Need | None:
    try:
        need = ray.get(answer)
    except ray.exceptions.RayError as error:
        need = _line(error)
    if isinstance(need, Need):
        return need
    _log.warning("gpu: auto: a trial could not be tried out: %s", need)
    return None


@contextmanager
def _workers_as_they_are() -> Iterator[None]:
    """Let Tune's actors be those processes that Ray has started in advance.

    Tune gives them environment variables that nothing here reads, for which Ray starts others.
    """
    variables = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = variables


@contextmanager
def _untagged() -> Iterator[None]:
    """Let Tune not look which trackers' callbacks it was given, for statistics that nobody sends.

    It imports MLflow, W&B and Comet for that where they are installed: four seconds.
    """
    tag = usage.tag_callbacks
    usage.tag_callbacks = lambda callbacks: False
    try:
        yield
    finally:
        usage.tag_callbacks = tag


def _tuner(
    share: _Share, work: _Work, queue: _Queue, messenger: _Messenger, stop: _Stop
) -> tune.Tuner:
    cpu = work.job.resources.cpu

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([{"CPU": cpu, "GPU": config["gpus"]}])

    # Enough that a worker need not wait for its next trial, few enough that one that is to be
    # started again need not wait long.
    slots = int(ray.cluster_resources().get("CPU", 1) / cpu)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(8, 2 * slots))
    # With GPUs a trial that is tried again may need another share than its neighbours have.
    kept = slots if work.job.more and work.gpus == 0 else 0
    trainable = tune.with_resources(tune.with_parameters(_Trainable, share=share), resources)
    return tune.Tuner(
        trainable,
        tune_config=TuneConfig(
            reuse_actors=True, search_alg=queue, scheduler=_Scheduler(kept), num_samples=-1
        ),
        run_config=RunConfig(
            name="sweep",
            storage_path=str(share.folder / "tune"),
            stop=stop,
            callbacks=[messenger],
            # Tune saves a class trainable at its end by default; the record is all that counts.
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            failure_config=FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


@contextmanager
def _ray(address: str | None, job: Job) -> Iterator[Path]:
    """A connected Ray for as long as the context lasts, and a folder for its files."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    with session_folder() as folder:
        try:
            with _connected(lambda: _connect(address, job, folder)), _quiet():
                yield folder
        finally:
            if token is None:
                os.environ.pop("RAY_AUTH_TOKEN", None)


@contextmanager
def _connected(connect: Callable[[], None]) -> Iterator[None]:
    """Connect in a thread: in the main one Ray takes SIGTERM for itself, from its first moment.

    The thread lives as long as the connection: the processes that it starts end with it.
    """
    _ray_log.setLevel(logging.ERROR)
    with ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(connect).result()
            yield
        finally:
            with _no_collection():
                ray.shutdown()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let go of what nobody holds any more, and collect no garbage in any thread for a while.

    Ray ends the process at once when a reference to an object is dropped while it shuts down.
    """
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Ray tell of deaths in `log.txt` only: on the terminal they are told in our words."""
    handlers, printer = _ray_log.handlers, ray._private.worker.print_to_stdstream
    _ray_log.handlers = list(logging.getLogger("orchestrator").handlers)

    def note(data: dict[str, Any], ignore_prefix: bool) -> None:
        _log.info("ray: %s", " ".join(data["lines"]))

    # There is no setting for what the raylet has to say; see listen_error_messages there.
    ray._private.worker.print_to_stdstream = note
    try:
        yield
    finally:
        _ray_log.handlers = handlers
        ray._private.worker.print_to_stdstream = printer


@contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Start Ray's processes where no signal comes that is sent to all of this process's group.

    A terminal sends such ones when it is closed, and for Ctrl-C: running trials are to be saved
    then, which takes Ray. Blocked, they would keep Ray's agents alive, which end by SIGTERM.
    """
    services: Any = ray._private.services
    before = services.ConsolePopen
    services.ConsolePopen = functools.partial(before, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = before


@contextmanager
def _bare() -> Iterator[None]:
    """Start Ray without the helpers that nobody here asks.

    They watch logs that are not shown, scale a cluster that has one node, and serve a dashboard
    without pages: together two seconds of a sweep's start, and one of its end.
    """
    parameter: Any = ray._private.parameter
    node: Any = ray._private.node.Node
    params, api_server = parameter.RayParams, node.start_api_server
    parameter.RayParams = functools.partial(params, no_monitor=True, include_log_monitor=False)
    node.start_api_server = lambda self, **_: None
    try:
        yield
    finally:
        parameter.RayParams, node.start_api_server = params, api_server


def _preloaded(job: Job, cores: int) -> list[str]:
    """What each process imports that Ray starts in advance, one a core, if all of them will train.

    They do so while this process connects and hands the features over.
    """
    trials = min(len(job.trials), job.jobs or cores)
    on_cores = job.resources.gpu == 0 or (job.resources.gpu == "auto" and not visible_gpus())
    if trials < cores or job.resources.cpu > 1 or not on_cores:
        return []
    return [__name__, "orchestrator.trial"]


def _connect(address: str | None, job: Job, folder: Path) -> None:
    try:
        if address is not None:
            knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            return
        # Else Ray makes up a token of its own and leaves it in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        cores = usable_cores()
        nbytes = sum(array.nbytes for array in job.arrays.values())
        with _loopback(), _groups_of_their_own(), _bare():
            ray.init(
                # Whatever RAY_ADDRESS says: a Ray of our own, which nobody else can reach.
                address="local",
                num_cpus=cores,
                object_store_memory=int(nbytes * 1.1) + _SPARE_STORE,
                include_dashboard=False,
                _temp_dir=str(folder / "ray"),
                logging_level=logging.ERROR,
                log_to_driver=False,
                _system_config={
                    "preload_python_modules": _preloaded(job, cores),
                    "idle_worker_killing_time_threshold_ms": _IDLE_MILLISECONDS,
                },
            )
    except Exception as error:
        # Of many types, a bare Exception among them: a full disk is "timed out during startup".
        where = f"--address {address}" if address else "a Ray on this machine"
        raise ClusterError(f"{where}: found no Ray to use ({_line(error)})") from error


@contextmanager
def _loopback() -> Iterator[None]:
    """Let a Ray that starts here listen on loopback only.

    Otherwise it looks for the address that other machines reach this one by, even where it is
    given 127.0.0.1, and its servers listen on every interface.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
