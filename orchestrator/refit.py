"""Refit: the best configuration, trained once more on every clip but those of the test fold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from features.arrays import FeatureArray
from orchestrator import atomic
from orchestrator.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from orchestrator.common_epoch import epochs_without_validation
from orchestrator.continuation import left_out_before, refuse_other
from orchestrator.csv_files import CsvWriter
from orchestrator.envelope import DamagedFileError
from orchestrator.errors import FoldgridError, InterruptionError, RunDirectoryError, TrainingError
from orchestrator.executors import gpus_alone
from orchestrator.experiment import Experiment, load_dataset, make_experiment
from orchestrator.extraction import extract
from orchestrator.hyperparameters import PlateauSchedule
from orchestrator.ledger import Ledger
from orchestrator.output_folder import make_folder
from orchestrator.progress import counted
from orchestrator.protocols import OF_ALL_FOLDS
from orchestrator.provenance import origin, versions
from orchestrator.records import TrialFailure, TrialRecord, Weights
from orchestrator.refit_record import RefitRecord
from orchestrator.run_directory import RunDirectory
from orchestrator.session import logged
from orchestrator.suggestions import restored
from orchestrator.sweep import load_sweep
from orchestrator.trial_tables import prediction_header, prediction_rows
from orchestrator.trials import Configuration, Trial
from orchestrator.weights_names import WEIGHTS_NAMES
from orchestrator.winner import Winner, find_winner

if TYPE_CHECKING:
    from orchestrator.trial import TrialInput

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refit:
    """A model that was trained on all that may be trained on.

    Attributes:
        winner: the configuration and where it comes from.
        record: how it was trained, and its scores on the fold that was held out.
    """

    winner: Winner
    record: RefitRecord


def refit(
    run_dir: Path, configuration: str | None, console: Console, stop: Callable[[], bool]
) -> Refit:
    """Train the best configuration, or the one named, and keep it under `run_dir/refit`.

    On every clip but those of a fold that is held out for the test; where each fold tests in
    turn, or none, on every clip. No clip is left to validate, so that the folds' trials say how
    long: with `train.select: best` to their common epoch, else for as many epochs as they ran
    (the lower median, where early stopping made them differ).

    Args:
        run_dir: absolute.
        configuration: its identity; None for the best.
        console: where progress is shown.
        stop: asked after every epoch; once it says so the training is saved, to be gone on with.

    Raises:
        FoldgridError: nothing was started.
        InterruptionError: it was stopped.
        TrainingError: it failed.
    """
    directory = RunDirectory(run_dir)
    if not directory.plan_file.is_file():
        raise RunDirectoryError(f"{run_dir}: no run directory: it has no plan.json")
    with Ledger.open(run_dir).locked(), logged(run_dir):
        winner = find_winner(run_dir, configuration)
        _refuse_plateau(winner.configuration)
        experiment = _experiment(winner)
        array = extract(experiment, winner.configuration.features, console, stop).array
        given = _input(winner, experiment, array)
        _log.info("refit of %s, %s epochs", winner.configuration.id, given.stop)
        make_folder(directory.refit_file.parent)
        trained, weights = _trained(given, directory, console, stop)
        record = _record(given, trained, experiment)
        _write(record, trained, weights, winner)
    return Refit(winner, record)


def _refuse_plateau(configuration: Configuration) -> None:
    train = configuration.train
    if train is not None and isinstance(train.schedule, PlateauSchedule):
        raise FoldgridError(
            f"refit of {configuration.id}: train.schedule: found plateau, which follows the"
            " validation loss, and no clip is left to validate; allowed step, cosine, one_cycle"
            " or none (--configuration names another one)"
        )


def _experiment(winner: Winner) -> Experiment:
    """The experiment of the run directory, with the clips as they were."""
    specification = winner.directory.path / "spec.yaml"
    sweep = load_sweep(specification, (), origin(specification))
    sweep = restored(sweep, winner.directory)
    experiment = make_experiment(sweep, load_dataset(sweep))
    refuse_other(experiment, winner.directory, extend=False)
    clips = left_out_before(experiment, winner.plan)
    return make_experiment(sweep, experiment.dataset, clips) if clips else experiment


def _input(winner: Winner, experiment: Experiment, array: FeatureArray) -> TrialInput:
    from orchestrator.training import SplitData
    from orchestrator.trial import TrialInput

    test_fold, train, test = _rows(experiment)
    first = winner.trials[0]
    dataset, settings = experiment.dataset, experiment.sweep.settings
    return TrialInput(
        # Of no validation fold; the number is for the name of its checkpoint only.
        trial=Trial(winner.configuration, test_fold, 0, first.seed),
        features=array,
        labels=np.array([clip.label for clip in dataset.clips], dtype=np.int64),
        split=SplitData(np.asarray(train), None, np.asarray(test) if test else None),
        classes=len(dataset.classes),
        import_path=experiment.sweep.import_path,
        gpus=gpus_alone(settings.resources),
        stop=_epochs(winner),
        draws=(test_fold, None),
        checkpoint_every=settings.checkpoint.every,
        keep_weights=True,
    )


def _rows(experiment: Experiment) -> tuple[int | None, list[int], list[int]]:
    """The fold that is held out, the clips to train on, and those to test on."""
    split = experiment.splits[0]
    if experiment.plan.protocol in OF_ALL_FOLDS:
        return None, sorted((*split.train, *split.val, *split.test, *split.twin)), []
    return split.test_fold, sorted((*split.train, *split.val)), list(split.test)


def _epochs(winner: Winner) -> int:
    found = (winner.directory.record(trial) for trial in winner.trials)
    curves = [record.epochs for record in found if record is not None]
    return epochs_without_validation(winner.configuration.train, curves)


def _trained(
    given: TrialInput, directory: RunDirectory, console: Console, stop: Callable[[], bool]
) -> tuple[TrialRecord, Weights]:
    """Train to the end, from an earlier call's checkpoint on."""
    from orchestrator.trial import TrialRun

    path = directory.refit_file.with_name("checkpoint.pt")
    name, total = given.trial.configuration.id, given.stop or 0
    run = TrialRun(replace(given, checkpoint=_last(path, given)))
    with counted(console, f"training {name}", total, "epochs") as show:
        show(0, total)
        while run.outcome is None:
            row = run.step()
            if row is not None:
                show(row.epoch + 1, total)
            checkpoint = run.checkpoint(now=stop())
            if checkpoint is not None:
                write_checkpoint(path, checkpoint)
            if stop() and run.outcome is None:
                raise InterruptionError("interrupted; the same command goes on")
    path.unlink(missing_ok=True)
    if isinstance(run.outcome, TrialFailure):
        _log.error("%s", run.outcome.traceback)
        raise TrainingError(f"refit of {name}: {run.outcome.error}")
    assert isinstance(run.outcome, TrialRecord)
    assert run.weights is not None
    if run.weights.problem:
        raise TrainingError(f"refit of {name}: its weights cannot be kept: {run.weights.problem}")
    return run.outcome, run.weights


def _last(path: Path, given: TrialInput) -> Checkpoint | None:
    """Where an earlier call was; None if that is further than this one is to go."""
    try:
        last = read_checkpoint(path, given.trial.id)
    except DamagedFileError as error:
        _log.warning("%s: damaged, not used: %s", path, error)
        return None
    return last if last is None or given.stop is None or last.epoch < given.stop else None


def _record(given: TrialInput, trained: TrialRecord, experiment: Experiment) -> RefitRecord:
    rows, test = given.split.train, trained.test
    return RefitRecord(
        configuration=given.trial.configuration.id,
        seed=given.trial.seed,
        epochs=len(trained.epochs),
        folds=tuple(sorted({experiment.folds[row] for row in rows})),
        clips=len(rows),
        test_fold=None if test is None else given.trial.test_fold,
        test_clips=0 if test is None else len(test.predictions.clips),
        test=None if test is None else test.scores,
        timing=trained.timing,
        versions=versions(),
    )


def _write(record: RefitRecord, trained: TrialRecord, weights: Weights, winner: Winner) -> None:
    """Write weights and predictions, and at last what they are."""
    directory, plan = winner.directory, winner.plan
    predictions = directory.refit_file.with_name("predictions.csv")
    earlier = (directory.refit_weights_file(name) for name in WEIGHTS_NAMES)
    for path in (directory.refit_file, predictions, *earlier):
        path.unlink(missing_ok=True)
    atomic.write_bytes(directory.refit_weights_file(weights.name), weights.content)
    if trained.test is not None:
        with atomic.replacing(predictions) as stream:
            table = CsvWriter(stream)
            table.row(prediction_header(plan))
            for row in prediction_rows(plan, "refit", "test", trained.test):
                table.row(row)
    record.write(directory)
