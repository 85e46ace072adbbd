"""RunSet: the trials that share a running average and a set of run summary tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.trials import Configuration, Plan, Trial, Value, canonical, varying_paths

HEADS = "model.heads"


@dataclass(frozen=True)
class RunSet:
    """The trials of one model that differ in fold, seed and number of heads only.

    Attributes:
        model: its name.
        values: the model's other varying keys with their values, None where absent.
        by_fold: the model has several numbers of heads in the plan: one table a fold, with a
            column for each; otherwise one table with a column for each fold.
        trials: in plan order.
    """

    model: str
    values: tuple[tuple[str, Value | None], ...]
    by_fold: bool
    trials: tuple[Trial, ...]


_Values = tuple[tuple[str, Value | None], ...]


def run_sets(plan: Plan) -> tuple[RunSet, ...]:
    """The run sets in plan order; every trial is in one."""
    varying = _varying_by_model(plan)
    names = _names(plan, varying)
    index = _numbers(names)
    members: dict[int, list[Trial]] = {}
    for trial in plan.trials:
        members.setdefault(index[trial.configuration.id], []).append(trial)
    return tuple(_run_set(names, varying, trials) for trials in members.values())


def sets_by_configuration(plan: Plan) -> dict[str, int]:
    """The number of the run set, counted from 0 in plan order, for each configuration."""
    return _numbers(_names(plan, _varying_by_model(plan)))


def _numbers(names: dict[str, tuple[str, _Values]]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    return {
        configuration: numbers.setdefault(canonical([model, *values]), len(numbers))
        for configuration, (model, values) in names.items()
    }


def _names(plan: Plan, varying: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, _Values]]:
    """Model and varying values without the heads, which name the set of each configuration.

    Two configurations can look alike: a null is shown as an absent value. The second then has
    its identity among its values.
    """
    taken: set[str] = set()
    names = {}
    for configuration in plan.configurations:
        name = configuration.model.name
        values = _values(configuration, varying[name])
        look = canonical([name, values, configuration.parameters.get(HEADS)])
        if look in taken:
            values = (*values, ("configuration", configuration.id))
        taken.add(look)
        names[configuration.id] = (name, values)
    return names


def twice_validated(trials: Iterable[Trial]) -> frozenset[int | None]:
    """Validation folds that come with several test folds, so that their number is no name."""
    tests: dict[int | None, set[int | None]] = {}
    for trial in trials:
        tests.setdefault(trial.fold, set()).add(trial.test_fold)
    return frozenset(fold for fold, found in tests.items() if len(found) > 1)


def repeated(plan: Plan) -> bool:
    """Whether the plan runs more than one seed."""
    return len({trial.seed for trial in plan.trials}) > 1


def _run_set(
    names: dict[str, tuple[str, _Values]], varying: dict[str, tuple[str, ...]], trials: list[Trial]
) -> RunSet:
    model, values = names[trials[0].configuration.id]
    return RunSet(model, values, by_fold=HEADS in varying[model], trials=tuple(trials))


def _varying_by_model(plan: Plan) -> dict[str, tuple[str, ...]]:
    configurations: dict[str, list[Configuration]] = {}
    for configuration in plan.configurations:
        configurations.setdefault(configuration.model.name, []).append(configuration)
    return {name: varying_paths(tuple(found)) for name, found in configurations.items()}


def _values(configuration: Configuration, varying: tuple[str, ...]) -> _Values:
    parameters = configuration.parameters
    return tuple((path, parameters.get(path)) for path in varying if path != HEADS)
