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
import secrets
import sys
import threading
import time
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
from orchestrator.checkpoint import Checkpoint, read_checkpoint, storage_file
from orchestrator.dispatch import Dispatch, whole
from orchestrator.errors import ClusterError, LostError
from orchestrator.executors import Job, Observer, Stages, trial_input
from orchestrator.head import knock, watched
from orchestrator.packing import CONTEXT_BYTES, Need, Packing, Room, kinds, pack, sentence, worse
from orchestrator.provenance import usable_cores, visible_gpus
from orchestrator.session_folder import session_folder
from orchestrator.worker import Worker

if TYPE_CHECKING:
    from orchestrator.trial import TrialInput

_log = logging.getLogger(__name__)
_ray_log = logging.getLogger("ray")

_Array = FeatureArray

_SAVE_SECONDS = 10.0
"""How long running trials have to save themselves when a sweep is stopped."""

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


@dataclass(frozen=True)
class _Task:
    """What Tune gives a worker to run.

    Attributes:
        index: of the trial in its job.
        gpus: its share of a GPU, or how many.
        job: in the object store.
        last: the checkpoint that the trial goes on from, there too or in the job's storage.
    """

    index: int
    gpus: float
    job: _Held
    last: _Held | None

    def __str__(self) -> str:
        return f"trial {self.index}"


class _Trainable(tune.Trainable):
    """A worker that Tune keeps in an actor."""

    def setup(self, config: dict[str, Any], share: _Share) -> None:  # type: ignore[override]
        """Take the share, and the first trial."""
        from orchestrator.trial import warm_up

        self._share = share
        self._stored: dict[FeatureSpec, _Array] = {}
        self._worker = Worker(lambda: _told(share.stop_key))
        self._reference: ray.ObjectRef[Job] | None = None
        self.reset_config(config)
        warm_up(self._job.trials[self._task.index].configuration.model)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial."""
        self._task: _Task = new_config["task"]
        self._begun = False
        reference: ray.ObjectRef[Job] | None = self._task.job.stored
        if reference != self._reference:
            assert reference is not None
            self._reference, self._job = reference, ray.get(reference)
        return True

    def step(self) -> dict[str, Any]:
        """Some epochs of the trial."""
        if not self._begun:
            self._begun = True
            self._worker.begin(
                self._given,
                storage=self._job.storage,
                timeout=self._job.timeout,
                stacks=self._share.stacks_file(self._task.index),
            )
        step = self._worker.step()
        return {"step": step, "done": step.last}

    def _given(self) -> TrialInput:
        job, task = self._job, self._task
        trial = job.trials[task.index]
        spec = trial.configuration.features
        if spec not in self._stored:
            self._stored[spec] = ray.get(self._share.arrays[spec])
        return trial_input(
            job,
            trial,
            self._stored[spec],
            task.gpus,
            self._last(trial.id),
            gpu_context=self._share.gpu_context,
        )

    def _last(self, trial: str) -> Checkpoint | None:
        last = self._task.last
        if last is None:
            return None
        if last.stored is not None:
            return cast(Checkpoint, ray.get(last.stored))
        assert self._job.storage is not None
        return read_checkpoint(storage_file(self._job.storage, trial), trial)


def _told(key: bytes) -> bool:
    """Whether the cluster has been told something."""
    return bool(ray.experimental.internal_kv._internal_kv_exists(key))


class _NotKept:
    """Pickled empty: Tune stores what drives a sweep for a restore, which the ledger replaces."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Queue(_NotKept, Searcher):
    """Suggests the trials of a dispatch to Tune.

    Tune's own retries would count the death of a node, and know no other resources.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        super().__init__()
        self._dispatch = dispatch
        self._job: Job | None = None
        self._stored = _Held(None)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial; None while all that are left run."""
        found = self._dispatch.next()
        if found is None:
            return Searcher.FINISHED if self._dispatch.over else None
        start, last = found
        return {"task": _Task(start.index, start.gpus, self._job_held(), self._held(last))}

    def _job_held(self) -> _Held:
        """The job at hand; the one before it is let go of."""
        job = self._dispatch.job
        if job is not self._job:
            self._stored.stored = None
            self._job, self._stored = job, _Held(ray.put(job))
        return self._stored

    def _held(self, last: Checkpoint | None) -> _Held | None:
        if last is None:
            return None
        return _Held(None if self._dispatch.job.storage else ray.put(last))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the messenger, which knows how the trial ended, tells the dispatch."""

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
    """Hands what Tune hears from the workers to the dispatch."""

    def __init__(self, share: _Share, dispatch: Dispatch) -> None:
        self._share = share
        self._dispatch = dispatch

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._dispatch.passes()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._dispatch.started(trial.config["task"].index)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        # Taken out, since Tune keeps the last result of every trial: a step, and what was stored
        # for the trial, as its worker has sent it back.
        result.pop("config", None)
        step = result.pop("step", None)
        if step is not None:
            self._dispatch.heard(trial.config["task"].index, step)
        self._let_go(trial.config["task"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        index = trial.config["task"].index
        with self._dispatch.kept():
            story = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
            path = self._share.stacks_file(index)
            stacks = path.read_text(encoding="utf-8") if path.exists() else ""
            self._dispatch.died(index, story, stacks)
        self._let_go(trial.config["task"])

    def _let_go(self, task: _Task) -> None:
        """Of a trial that has no worker any more, the checkpoint in the object store."""
        if task.last is not None and not self._dispatch.runs(task.index):
            task.last.stored = None


class _Stop(_NotKept, Stopper):
    """Ends the sweep when it is stopped from outside, or its records can go nowhere."""

    def __init__(self, share: _Share, dispatch: Dispatch, stop: threading.Event) -> None:
        self._share = share
        self._dispatch = dispatch
        self._stop = stop
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether to end: once the running trials are saved, or had the time to be."""
        if self._dispatch.error is not None:
            return True
        if not self._stop.is_set():
            return False
        if self._since is None:
            self._since = time.monotonic()
            self._dispatch.closed = True
            ray.experimental.internal_kv._internal_kv_put(self._share.stop_key, b"1")
        late = time.monotonic() - self._since > _SAVE_SECONDS
        return late or self._dispatch.all_saved


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
        dispatch = Dispatch(job, observer, stages, _gpus(job))
        for spec in job.arrays.keys() - self._arrays.keys():
            self._arrays[spec] = _put(job.arrays[spec])
        _run_in(self._folder, dispatch, self._arrays, stop)
        return dispatch.following


def _run_in(
    folder: Path,
    dispatch: Dispatch,
    arrays: Mapping[FeatureSpec, ray.ObjectRef[_Array]],
    stop: threading.Event,
) -> None:
    """Run the trials on the Ray that this process is connected to."""
    share = _Share(arrays, folder, secrets.token_bytes(16))
    try:
        with watched(_head(), _give_up):
            packing = _packing(share, dispatch, stop)
            if stop.is_set():
                return
            share = replace(share, gpu_context=packing.context)
            dispatch.share(packing.shares)
            with _workers_as_they_are(), _untagged():
                _tuner(share, dispatch, stop).fit()
    except (ray.exceptions.RayError, OSError) as error:
        raise LostError(f"{_LOST}: {_line(error)}") from error
    if dispatch.error is not None:
        raise dispatch.error


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


def _packing(share: _Share, dispatch: Dispatch, stop: threading.Event) -> Packing:
    """The GPUs of each trial: for `gpu: auto` as many to a GPU as a short try says will fit."""
    job, nodes = dispatch.job, _gpu_nodes()
    unshared = Packing(whole(job, dispatch.gpus))
    if job.resources.gpu != "auto" or not any(unshared.shares) or not nodes:
        return unshared
    room = _room(job, nodes)
    if room.most == 1:
        return unshared
    clips = {key: len(s.train) + len(s.val) + len(s.test) for key, s in job.splits.items()}
    groups = kinds(job.trials, clips)
    tried = "one trial" if len(groups) == 1 else f"trials of {min(len(groups), _MOST_PROBES)} kinds"
    dispatch.observer.gpus_shared(f"gpu: auto: trying out {tried}")
    needs = _needs(share, job, groups, nodes, stop)
    packing = pack(groups, needs, room, len(job.trials))
    if not stop.is_set():
        dispatch.observer.gpus_shared(sentence(packing, needs))
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


def _tuner(share: _Share, dispatch: Dispatch, stop: threading.Event) -> tune.Tuner:
    cpu = dispatch.job.resources.cpu

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([{"CPU": cpu, "GPU": config["task"].gpus}])

    # Enough that a worker need not wait for its next trial, few enough that one that is to be
    # started again need not wait long.
    slots = int(ray.cluster_resources().get("CPU", 1) / cpu)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(8, 2 * slots))
    # With GPUs a trial that is tried again may need another share than its neighbours have.
    kept = slots if dispatch.job.more and dispatch.gpus == 0 else 0
    trainable = tune.with_resources(tune.with_parameters(_Trainable, share=share), resources)
    return tune.Tuner(
        trainable,
        tune_config=TuneConfig(
            reuse_actors=True,
            search_alg=_Queue(dispatch),
            scheduler=_Scheduler(kept),
            num_samples=-1,
        ),
        run_config=RunConfig(
            name="sweep",
            storage_path=str(share.folder / "tune"),
            stop=_Stop(share, dispatch, stop),
            callbacks=[_Messenger(share, dispatch)],
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
