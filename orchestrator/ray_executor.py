"""RayExecutor: trials on Ray Tune; the only module that imports ray.

One class Trainable whose actors are reused: a function trainable starts a process and imports
torch anew for each trial, about two seconds, a reused actor takes milliseconds. The features are
put into the object store once; a worker maps them without a copy.
"""

from __future__ import annotations

import os

from features.arrays import FeatureArray

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

import logging
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray._private import ray_constants
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from ray.tune.stopper import Stopper

from features.spec import FeatureSpec
from orchestrator.errors import ClusterError, LostError
from orchestrator.executors import Job, Observer, tell, trial_input
from orchestrator.provenance import usable_cores
from orchestrator.records import EpochRow, Timing, TrialFailure, TrialRecord

_Array = FeatureArray

_STEP_SECONDS = 0.5
"""A step runs as many epochs as fit: each report to Tune costs about three milliseconds."""

_PREFIX = "foldgrid-"

_SPARE_STORE = 256 * 2**20
"""Bytes of object store beside the features, for the job and the records."""


@dataclass(frozen=True)
class _Share:
    """What every worker is given: the job without its arrays, and where those are stored."""

    job: Job
    arrays: Mapping[FeatureSpec, ray.ObjectRef[_Array]]
    gpus: float


class _Trainable(tune.Trainable):
    """Runs one trial after another in an actor that is kept."""

    def setup(self, config: dict[str, Any], share: _Share) -> None:  # type: ignore[override]
        """Take the share, and the first trial."""
        from orchestrator import metrics
        from orchestrator.trial import warm_up

        warm_up()
        # Needed at the first trial's end only, so that its first epoch need not wait for it.
        threading.Thread(target=metrics.load, daemon=True).start()
        self._share = share
        self._stored: dict[FeatureSpec, _Array] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        from orchestrator.trial import TrialRun

        trial = self._share.job.trials[new_config["index"]]
        features = self._features(trial.configuration.features)
        self._run = TrialRun(trial_input(self._share.job, trial, features, self._share.gpus))
        return True

    def step(self) -> dict[str, Any]:
        """Epochs for half a second, at least one; with the last one the trial's record."""
        begun = time.monotonic()
        rows = []
        while self._run.outcome is None:
            row = self._run.step()
            if row is not None:
                rows.append(row)
            if time.monotonic() - begun > _STEP_SECONDS:
                break
        outcome = self._run.outcome
        return {"rows": rows, "outcome": outcome, "done": outcome is not None}

    def _features(self, spec: FeatureSpec) -> _Array:
        if spec not in self._stored:
            self._stored[spec] = ray.get(self._share.arrays[spec])
        return self._stored[spec]


class _NotKept:
    """Pickled empty: Tune stores what drives a sweep for a restore, which the ledger replaces."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Messenger(_NotKept, Callback):
    """Hands what Tune hears from the workers to the observer.

    Attributes:
        error: what the observer raised (the disk is full, say): Tune would take it for the
            trial's own fault and try the trial again.
    """

    def __init__(self, job: Job, observer: Observer) -> None:
        self.error: Exception | None = None
        self._job = job
        self._observer = observer
        self._attempts: dict[int, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        index = trial.config["index"]
        self._attempts[index] = self._attempts.get(index, 0) + 1
        with self._kept():
            self._observer.started(self._job.trials[index].id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        index = trial.config["index"]
        rows: list[EpochRow] = result.pop("rows", [])
        outcome = result.pop("outcome", None)
        with self._kept():
            for row in rows:
                self._observer.epoch(self._job.trials[index].id, row)
            if isinstance(outcome, TrialRecord | TrialFailure):
                timing = replace(outcome.timing, attempts=self._attempts.get(index, 1))
                tell(replace(outcome, timing=timing), self._observer)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        index = trial.config["index"]
        attempts = self._attempts.get(index, 1)
        times = "once" if attempts == 1 else f"{attempts} times"
        timing = Timing(datetime.now(UTC).isoformat(), 0.0, 0.0, attempts, "", "")
        story = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        error = f"WorkerDied: the process of the trial died {times}"
        with self._kept():
            self._observer.failed(TrialFailure(self._job.trials[index].id, error, story, timing))

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = self.error or error


class _Stop(_NotKept, Stopper):
    """Ends the sweep when it is stopped from outside, or its records can go nowhere."""

    def __init__(self, stop: threading.Event, messenger: _Messenger) -> None:
        self._stop = stop
        self._messenger = messenger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.is_set() or self._messenger.error is not None


class RayExecutor:
    """Trials in parallel on a Ray of our own, or on an existing cluster."""

    def __init__(self, address: str | None = None) -> None:
        """Take the cluster's address; None starts a Ray on this machine and ends it again."""
        self._address = address

    def run(self, job: Job, observer: Observer, stop: threading.Event) -> None:
        """Run the trials; see `Executor`."""
        nbytes = sum(array.nbytes for array in job.arrays.values())
        with _ray(self._address, nbytes) as folder:
            share = self._share(job)
            messenger = _Messenger(job, observer)
            try:
                _tuner(job, share, messenger, _Stop(stop, messenger), folder).fit()
            except (ray.exceptions.RaySystemError, ConnectionError) as error:
                raise LostError(f"the Ray cluster was lost: {_line(error)}") from error
            if messenger.error is not None:
                raise messenger.error

    def _share(self, job: Job) -> _Share:
        available = ray.cluster_resources()
        wanted = job.resources
        found = 1.0 if available.get("GPU", 0) >= 1 else 0.0
        gpus = found if wanted.gpu == "auto" else wanted.gpu
        for name, key, need in (("cpu", "CPU", wanted.cpu), ("gpu", "GPU", float(gpus))):
            have = max((node["Resources"].get(key, 0) for node in ray.nodes()), default=0)
            if need > have:
                raise ClusterError(f"resources.{name}: found {need:g}; allowed at most {have:g}")
        # A memory map is a subclass, and only plain arrays come out of the store without a copy.
        arrays = {spec: ray.put(np.asarray(array)) for spec, array in job.arrays.items()}
        return _Share(replace(job, arrays={}), arrays, float(gpus))


def _tuner(job: Job, share: _Share, messenger: _Messenger, stop: _Stop, folder: Path) -> tune.Tuner:
    trainable = tune.with_resources(
        tune.with_parameters(_Trainable, share=share),
        {"cpu": job.resources.cpu, "gpu": share.gpus},
    )
    return tune.Tuner(
        trainable,
        param_space={"index": tune.grid_search(list(range(len(job.trials))))},
        tune_config=TuneConfig(reuse_actors=True, max_concurrent_trials=job.jobs),
        run_config=RunConfig(
            name="sweep",
            storage_path=str(folder / "tune"),
            stop=stop,
            callbacks=[messenger],
            # Tune saves a class trainable at its end by default; the record is all that counts.
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            failure_config=FailureConfig(max_failures=job.max_failures),
            verbose=0,
        ),
    )


@contextmanager
def _ray(address: str | None, nbytes: int) -> Iterator[Path]:
    """A connected Ray for as long as the context lasts, and a folder for its files."""
    _sweep_leftovers()
    token = os.environ.get("RAY_AUTH_TOKEN")
    # Short, since sockets below it may have no path of more than 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        with _connected(lambda: _connect(address, nbytes, folder)):
            yield folder
    finally:
        if token is None:
            os.environ.pop("RAY_AUTH_TOKEN", None)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _connected(connect: Callable[[], None]) -> Iterator[None]:
    """Connect in a thread: in the main one Ray takes SIGTERM for itself, from its first moment.

    The thread lives as long as the connection: the processes that it starts end with it.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    with ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(connect).result()
            yield
        finally:
            ray.shutdown()


def _connect(address: str | None, nbytes: int, folder: Path) -> None:
    try:
        if address is not None:
            _knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            return
        # Else Ray makes up a token of its own and leaves it in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        cores = usable_cores()
        with _loopback():
            ray.init(
                # Whatever RAY_ADDRESS says: a Ray of our own, which nobody else can reach.
                address="local",
                num_cpus=cores,
                object_store_memory=int(nbytes * 1.1) + _SPARE_STORE,
                include_dashboard=False,
                _temp_dir=str(folder / "ray"),
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
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


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


def _sweep_leftovers() -> None:
    """Remove the folders of drivers that were killed; those that live keep theirs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
