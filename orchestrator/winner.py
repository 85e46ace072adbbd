"""The winner: the configuration of a run directory to go on with, and its trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.configuration_scores import ConfigurationScores, best_configuration, scores_of
from orchestrator.errors import RunDirectoryError, listing, nearest
from orchestrator.outcomes import Results
from orchestrator.provenance import origin
from orchestrator.refit_record import RefitRecord
from orchestrator.run_directory import RunDirectory
from orchestrator.trained_model import Kind, TrainedModel
from orchestrator.trials import Configuration, Plan, Trial
from orchestrator.weights_names import weights_name


@dataclass(frozen=True)
class Winner:
    """A configuration of a run directory.

    Attributes:
        directory: the reading side.
        plan: every trial.
        scores: the plan's metric of the configuration's finished trials, of which there are some.
        unfinished: trials of the plan that have not finished: another one may yet be the best.
    """

    directory: RunDirectory
    plan: Plan
    scores: ConfigurationScores
    unfinished: int

    @property
    def configuration(self) -> Configuration:
        """The point of the search space."""
        return self.scores.configuration

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Its finished trials in plan order."""
        return tuple(fold.trial for fold in self.scores.folds)


def find_winner(run_dir: Path, configuration: str | None = None) -> Winner:
    """The best configuration of a run directory by the plan's metric, or the one that is named.

    Raises:
        RunDirectoryError: there is none: not found, or no trial of it has finished.
    """
    results = Results.read(run_dir)
    plan = results.plan
    values = results.values(plan.metric)
    if configuration is None:
        best = best_configuration(plan, values)
        if best is None:
            raise RunDirectoryError(
                f"{run_dir}: found no configuration with every fold finished; allowed a finished"
                " sweep (its foldgrid run command continues), or --configuration"
            )
        configuration = best.configuration.id
    elif configuration not in plan.trials_of:
        raise _unknown(configuration, plan)
    scores = scores_of(plan.trials_of[configuration], values)
    if not scores.folds:
        raise RunDirectoryError(f"{run_dir}: found no finished trial of {configuration}")
    planned = len(plan.every) - len(plan.pruned)
    return Winner(results.directory, plan, scores, planned - len(results.finished))


def find_trained(
    run_dir: Path, kind: Kind = "ensemble", configuration: str | None = None
) -> TrainedModel:
    """The trained weights of the winner of a run directory, or of the configuration named.

    Raises:
        RunDirectoryError: no such configuration, or its weights are not there.
    """
    winner = find_winner(run_dir, configuration)
    paths = _refitted(winner) if kind == "refit" else _of_folds(winner)
    return TrainedModel(
        configuration=winner.configuration,
        classes=winner.plan.classes,
        kind=kind,
        weights=paths,
        import_path=import_path(run_dir),
    )


def import_path(run_dir: Path) -> tuple[Path, ...]:
    """The folders in which the user's models of a run directory lie."""
    return (run_dir, *origin(run_dir / "spec.yaml"))


def _of_folds(winner: Winner) -> tuple[Path, ...]:
    if winner.plan.protocol == "nested":
        raise RunDirectoryError(
            f"{winner.directory.path}: found protocol nested, where each test fold has chosen a"
            " configuration of its own; allowed --model refit, after foldgrid refit"
        )
    name = weights_name(winner.configuration.model)
    paths = [winner.directory.weights_file(trial.id, name) for trial in winner.trials]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RunDirectoryError(
            f"{missing[0]}{more}: missing, so there is no ensemble of"
            f" {winner.configuration.id} (execution.keep_weights did not keep them, or the"
            " trials are older); allowed --model refit, after foldgrid refit"
        )
    return tuple(paths)


def _refitted(winner: Winner) -> tuple[Path, ...]:
    directory, wanted = winner.directory, winner.configuration.id
    record = RefitRecord.read(directory)
    if record is None:
        allowed = "allowed the model that foldgrid refit makes"
        raise RunDirectoryError(f"{directory.refit_file}: missing; {allowed}")
    if record.configuration != wanted:
        raise RunDirectoryError(
            f"{directory.refit_file}: found {record.configuration}, wanted {wanted}; allowed the"
            f" model that foldgrid refit makes, or --configuration {record.configuration}"
        )
    return (directory.refit_weights_file(weights_name(winner.configuration.model)),)


def _unknown(configuration: str, plan: Plan) -> RunDirectoryError:
    known = [c.id for c in plan.configurations]
    shown = listing(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
    near = nearest(configuration, known)
    hint = f" (did you mean {near}?)" if near else ""
    return RunDirectoryError(f"--configuration: found {configuration}; allowed {shown}{hint}")
