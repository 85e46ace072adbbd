"""One trial, from its inputs to its record; the one place that catches what goes wrong in it."""

from __future__ import annotations

import importlib
import io
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.allocation import keep_freed_memory
from features.arrays import FeatureArray
from features.augment import Augmenter
from models.build import build_model, check_weights, count_parameters
from models.estimator import EstimatorError, estimator_class, make_estimator
from models.factory import load_factory
from models.spec import EstimatorSpec, FactorySpec, ModelSpec, NetworkSpec
from models.weights import WeightsError, weights_bytes
from orchestrator.checkpoint import Checkpoint
from orchestrator.deadline import TrialTimeout, deadline
from orchestrator.device import choose_device, device_name, limit_memory, trial_settings
from orchestrator.error_line import error_line
from orchestrator.estimator_fit import EstimatorFit
from orchestrator.hyperparameters import TrainSpec
from orchestrator.packing import CONTEXT_BYTES
from orchestrator.records import (
    Cause,
    EpochRow,
    ParameterCount,
    Timing,
    TrialFailure,
    TrialPause,
    TrialRecord,
    Weights,
)
from orchestrator.seeding import Seeds, derive_seeds, seed_everything
from orchestrator.session_folder import name_compiled_folder
from orchestrator.training import Fit, SplitData, TrainingData
from orchestrator.trials import Trial
from orchestrator.weights_names import ESTIMATOR_WEIGHTS


@dataclass(frozen=True)
class TrialInput:
    """Everything that a trial needs.

    Attributes:
        trial: what to run.
        features: of every clip, maybe read-only.
        labels: class indices, int64 `[n]`.
        split: rows for training, validation and test.
        classes: `k`.
        import_path: folders in which a user's model is looked for.
        gpus: GPUs that the trial may use; 0 is the CPU, a fraction shares one.
        gpu_context: bytes of a GPU that CUDA takes for a process; a share holds them too.
        checkpoint: where an earlier attempt was; None to begin at the first epoch.
        stop: run so many of the epochs only; None for all of them.
        pause: wait after so many of them, to go on later; None to run on.
        twin: a trial of the same training that validates on `split.twin`.
        draws: the folds that the seeds derive from; None for the trial's own.
        checkpoint_every: epochs between two checkpoints.
        timeout: seconds after which the trial fails, if it is in Python code then.
        keep_weights: whether a finished trial gives its weights beside its record.
    """

    trial: Trial
    features: FeatureArray
    labels: NDArray[np.int64]
    split: SplitData
    classes: int
    import_path: tuple[Path, ...] = ()
    gpus: float = 0
    gpu_context: int = CONTEXT_BYTES
    checkpoint: Checkpoint | None = None
    stop: int | None = None
    pause: int | None = None
    twin: Trial | None = None
    draws: tuple[int | None, int | None] | None = None
    checkpoint_every: int = 10
    timeout: float | None = None
    keep_weights: bool = False


def warm_up(model: ModelSpec | None = None) -> None:
    """Import what the first epoch of a process would wait seconds for, and prepare its memory.

    Called by the first step of a trial, before its clock starts; a worker may call it earlier.

    Args:
        model: of the trial; None for any network.
    """
    keep_freed_memory()
    if isinstance(model, EstimatorSpec):
        # It is the trial that reports an estimator that is not there.
        with suppress(EstimatorError):
            estimator_class(model.estimator)
        return


class TrialRun:
    """A trial, run one epoch at a time.

    The result depends on the input alone: not on what ran before in the process, nor on where,
    nor on the checkpoint that it went on from.

    Attributes:
        remark: what the user should know of a trial that has not failed; empty where nothing.
        step_seconds: of the last step, what counts as training; building the model included.
        weights: of a trial that ended well, if the input asks for them; else None.
    """

    def __init__(self, trial_input: TrialInput) -> None:
        self.remark = ""
        self.step_seconds = 0.0
        self.weights: Weights | None = None
        self._input = trial_input
        self._rows: list[EpochRow] = []
        self._twin_rows: list[EpochRow] = []
        self._fit: Fit | EstimatorFit | None = None
        self._parameters: ParameterCount | None = None
        self._outcome: TrialRecord | TrialFailure | TrialPause | None = None
        self._at_pause: Checkpoint | None = None
        self._device = torch.device("cpu")
        self._started = datetime.now(UTC).isoformat(timespec="microseconds")
        self._attempt_begin = self._begin = time.perf_counter()
        self._train_seconds = 0.0
        self._attempts = 1
        self._saved_epoch = 0

    @property
    def outcome(self) -> TrialRecord | TrialFailure | TrialPause | None:
        """The record, the failure or the pause; None while there is something to do."""
        return self._outcome

    def step(self) -> EpochRow | None:
        """Run the next epoch, the first time after building the model.

        Whatever the model raises, `SystemExit` included, becomes the outcome.

        Returns:
            The epoch's row; None where there is nothing more to do, or the trial failed.

        Raises:
            KeyboardInterrupt: the program is to end; the trial has no outcome.
            SystemExit: the cluster takes the worker down, which is no fault of the trial.
        """
        if self._outcome is not None:
            return None
        self.step_seconds = 0.0
        try:
            if self._fit is None:
                self._warm_up()
            with deadline(self._seconds_left(), self._input.timeout or 0.0):
                return self._advance()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Ray's own signal handler marks its SystemExit so.
            if hasattr(error, "ray_terminate_msg"):
                raise
            self._outcome = self._failure(error)
            return None
        finally:
            if self._outcome is not None:
                self._release()

    def checkpoint(self, *, now: bool = False) -> Checkpoint | None:
        """Where the trial is, to go on from in another process.

        Args:
            now: even if it is not due.

        Returns:
            None where there is nothing new to save: between two due epochs, and after the end.
        """
        if self._at_pause is not None:
            last, self._at_pause = self._at_pause, None
            return last
        fit = self._fit
        if not isinstance(fit, Fit) or self._outcome is not None:
            return None
        every = 1 if now else self._input.checkpoint_every
        if fit.epoch // every <= self._saved_epoch // every:
            return None
        self._saved_epoch = fit.epoch
        return self._checkpoint(fit, self._attempts)

    def _pause(self, fit: Fit | EstimatorFit) -> None:
        """Wait, with a checkpoint from which this attempt goes on, and not a further one."""
        assert isinstance(fit, Fit)
        self._outcome = TrialPause(self._input.trial.id, tuple(self._rows))
        seconds = time.perf_counter() - self._attempt_begin
        self._at_pause = self._checkpoint(fit, self._attempts - 1, seconds)

    def _checkpoint(self, fit: Fit, attempts: int, seconds: float = 0.0) -> Checkpoint:
        """From which one goes on that adds itself to the attempts and has used up the seconds."""
        buffer = io.BytesIO()
        torch.save(self._state(fit, attempts, seconds), buffer)
        return Checkpoint(self._input.trial.id, fit.epoch, buffer.getvalue())

    def _state(self, fit: Fit, attempts: int, seconds: float) -> dict[str, Any]:
        return {
            "fit": fit.state_dict(),
            "rows": [asdict(row) for row in self._rows],
            "twin_rows": [asdict(row) for row in self._twin_rows],
            "started": self._started,
            "wall_seconds": time.perf_counter() - self._begin,
            "train_seconds": self._train_seconds,
            "attempts": attempts,
            "attempt_seconds": seconds,
        }

    def _resume(self, fit: Fit, checkpoint: Checkpoint) -> None:
        state = torch.load(
            # What belongs on a GPU is moved there by whom it is given to; the rest is not to be.
            io.BytesIO(checkpoint.payload),
            map_location="cpu",
            weights_only=True,
        )
        fit.load_state_dict(state["fit"])
        self._rows, self._twin_rows = (
            [EpochRow(**row) for row in state[rows]] for rows in ("rows", "twin_rows")
        )
        self._started = state["started"]
        self._begin -= state["wall_seconds"]
        self._train_seconds += state["train_seconds"]
        self._attempts = state["attempts"] + 1
        self._attempt_begin -= state.get("attempt_seconds", 0.0)
        self._saved_epoch = fit.epoch

    def _seconds_left(self) -> float | None:
        limit = self._input.timeout
        return None if limit is None else limit - (time.perf_counter() - self._attempt_begin)

    def _warm_up(self) -> None:
        """Import what is needed; interrupted by a deadline, an import leaves half a package."""
        configuration = self._input.trial.configuration
        warm_up(configuration.model)
        if isinstance(configuration.model, EstimatorSpec):
            if self._input.keep_weights:
                importlib.import_module("models.estimator_file")
        elif self._input.timeout is not None:
            importlib.import_module("torchvision")
            if isinstance(configuration.model, FactorySpec) or _is_compiled(configuration.train):
                # The import itself makes the folder for what is compiled.
                name_compiled_folder()
                importlib.import_module("torch._dynamo")
        self._attempt_begin = time.perf_counter()

    def _advance(self) -> EpochRow | None:
        if self._fit is None:
            trained = self._input.trial.configuration.train is not None
            self._device = choose_device(self._input.gpus if trained else 0)
            limit_memory(self._device, self._input.gpus, self._input.gpu_context)
        with self._working():
            if self._fit is None:
                self._fit = self._begun()
            # A checkpoint may be that far, where what was to be recorded of it was lost.
            row = None if self._waits(self._fit) else self._run_epoch(self._fit)
        if self._waits(self._fit):
            self._pause(self._fit)
        elif self._fit.finished:
            self._outcome = self._record(self._fit)
        return row

    def _waits(self, fit: Fit | EstimatorFit) -> bool:
        """Whether the trial has come to its pause, unless that is its end."""
        pause = self._input.pause
        if pause is None or isinstance(fit, EstimatorFit):
            return False
        return fit.epoch >= pause and not fit.finished

    def _run_epoch(self, fit: Fit | EstimatorFit) -> EpochRow:
        row = fit.run_epoch()
        if isinstance(fit, EstimatorFit):
            self.remark = fit.remark
        self._rows.append(row)
        if fit.twin_row is not None:
            self._twin_rows.append(fit.twin_row)
        return row

    def _record(self, fit: Fit | EstimatorFit) -> TrialRecord:
        with self._working():
            epoch, val, test = fit.result()
            twin = fit.twin_result() if self._input.twin else None
        of = self._input.twin if twin is not None else None
        if self._input.keep_weights:
            self.weights = self._weights(fit, of)
        record = TrialRecord(
            trial=self._input.trial.id,
            epoch=epoch,
            epochs=tuple(self._rows),
            val=val,
            test=test,
            parameters=self._parameters,
            timing=self._timing(),
        )
        if twin is None or of is None:
            return record
        of_twin = replace(
            record,
            trial=of.id,
            epoch=twin[0],
            epochs=tuple(self._twin_rows),
            val=twin[1],
            test=None,
        )
        return replace(record, twin=of_twin)

    def _weights(self, fit: Fit | EstimatorFit, twin: Trial | None) -> Weights:
        """At the epoch that counts, and for the twin at the one that counts for it."""
        trial = self._input.trial.id
        if isinstance(fit, EstimatorFit):
            kept = _kept_estimator(trial, fit.estimator)
            return kept if twin is None else replace(kept, twin=replace(kept, trial=twin.id))
        of_twin = _kept(twin.id, fit.twin_state_dict()) if twin is not None else None
        return _kept(trial, fit.model.state_dict(), of_twin)

    def _begun(self) -> Fit | EstimatorFit:
        """What trains, at its first epoch or where the checkpoint was."""
        fit = self._prepare()
        if self._input.checkpoint is None or isinstance(fit, EstimatorFit):
            return fit
        try:
            self._resume(fit, self._input.checkpoint)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            # Whole, but not of this program's or torch's version: what it saved is done again.
            self.remark = f"begins anew, its checkpoint cannot be used: {error_line(error)}"
            self._rows, self._twin_rows = [], []
            return self._prepare()
        return fit

    def _prepare(self) -> Fit | EstimatorFit:
        """Build the model and what trains it."""
        given, trial = self._input, self._input.trial
        model, train = trial.configuration.model, trial.configuration.train
        seeds = derive_seeds(trial.seed, *(given.draws or (trial.test_fold, trial.fold)))
        data = TrainingData(given.features, given.labels, given.split, given.classes)
        if isinstance(model, EstimatorSpec):
            seed = seeds.initialization
            return EstimatorFit(make_estimator(model, seed), data, seed)
        assert train is not None
        return self._prepare_network(model, train, seeds, data)

    def _prepare_network(
        self, model_spec: NetworkSpec, train: TrainSpec, seeds: Seeds, data: TrainingData
    ) -> Fit:
        given, trial = self._input, self._input.trial
        if isinstance(model_spec, FactorySpec):
            # An import happens once in a process: what it draws must not be the model's.
            load_factory(model_spec.name, given.import_path)
        check_weights(model_spec, trial.configuration.source)
        seed_everything(seeds.initialization)
        inputs = trial.configuration.inputs
        model = build_model(model_spec, inputs, given.classes, import_path=given.import_path)
        self._parameters = ParameterCount(*count_parameters(model))
        if train.compile:
            name_compiled_folder()
        augmenter = (
            Augmenter(train.augment, trial.configuration.features) if train.augment else None
        )
        return Fit(model, data, train, seeds, self._device, augmenter, given.stop)

    def _failure(self, error: BaseException) -> TrialFailure:
        return TrialFailure(
            trial=self._input.trial.id,
            error=error_line(error),
            traceback="".join(traceback.format_exception(error)),
            timing=self._timing(),
            cause=_cause(error),
        )

    def _timing(self) -> Timing:
        return Timing(
            started=self._started,
            wall_seconds=time.perf_counter() - self._begin,
            train_seconds=self._train_seconds,
            attempts=self._attempts,
            host=socket.gethostname(),
            device=device_name(self._device),
        )

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Time that counts as `train_seconds`, under the settings of a trial."""
        begin = time.perf_counter()
        train = self._input.trial.configuration.train
        deterministic = train is not None and train.deterministic
        try:
            with trial_settings(self._device, deterministic=deterministic):
                yield
        finally:
            seconds = time.perf_counter() - begin
            self._train_seconds += seconds
            self.step_seconds += seconds

    def _release(self) -> None:
        """Let go of the model; the process lives on, and its GPU may be shared."""
        self._fit = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _kept(trial: str, state: Mapping[str, torch.Tensor], twin: Weights | None = None) -> Weights:
    """The weights of a trial; a model that cannot be kept is no reason to fail."""
    try:
        return Weights(trial, weights_bytes(state), twin=twin)
    except WeightsError as error:
        return Weights(trial, b"", str(error), twin)


def _kept_estimator(trial: str, estimator: Any) -> Weights:
    """Likewise, of an estimator of scikit-learn."""
    # Not at module level: it imports all of scikit-learn, which networks do without.
    from models.estimator_file import estimator_bytes

    try:
        return Weights(trial, estimator_bytes(estimator), name=ESTIMATOR_WEIGHTS)
    except WeightsError as error:
        return Weights(trial, b"", str(error), name=ESTIMATOR_WEIGHTS)


def _cause(error: BaseException) -> Cause:
    """What kind of end an exception is."""
    if isinstance(error, TrialTimeout):
        return Cause.TIMEOUT
    if isinstance(error, torch.OutOfMemoryError) or _of_a_full_gpu(str(error)):
        return Cause.GPU_MEMORY
    # What PyTorch's allocator says, which raises no type of its own on a CPU.
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Cause.MEMORY
    return Cause.OWN


def _of_a_full_gpu(message: str) -> bool:
    """Whether CUDA itself found no memory, beside PyTorch's allocator: for a context, say."""
    signs = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "calling `cublasCreate(handle)`")
    return any(sign in message for sign in signs)


def run_trial(
    trial_input: TrialInput, on_epoch: Callable[[EpochRow], None] | None = None
) -> TrialRecord | TrialFailure:
    """Run a trial to its end, calling `on_epoch` after each epoch."""
    run = TrialRun(trial_input)
    while run.outcome is None:
        row = run.step()
        if row is not None and on_epoch is not None:
            on_epoch(row)
    assert not isinstance(run.outcome, TrialPause)
    return run.outcome


def _is_compiled(train: TrainSpec | None) -> bool:
    return train is not None and train.compile
