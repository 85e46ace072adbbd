"""Suggestions: configurations that Optuna picks by how the ones before them have done.

A suggestion depends on its number, `search.seed` and the scores of those that it may look at, and
on nothing else: a sampler is made anew for each. So a search that was killed goes on as it would
have, from the plan and the records alone, and on many workers it is the same as on one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.configuration_scores import configuration_scores
from orchestrator.errors import DamagedPlanError, SpecificationError
from orchestrator.run_directory import RunDirectory
from orchestrator.space import Node, Space
from orchestrator.specification import SearchSpec
from orchestrator.sweep import Sweep, configuration_at
from orchestrator.trials import Plan, Suggestion

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as Ask
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class _Chooser:
    """Takes the values that Optuna suggests."""

    ask: Ask

    def options(self, space: Space) -> Sequence[Node]:
        """One, by its place in the list: what stands there may be a mapping."""
        return (space.options[self.ask.suggest_categorical(space.key, range(len(space.options)))],)

    def number(self, space: Space) -> float | int:
        """Within the bounds, the upper one excluded."""
        low, high = space.bounds
        if space.kind == "randint":
            return self.ask.suggest_int(space.key, int(low), int(high) - 1)
        return self.ask.suggest_float(space.key, low, high, log=space.kind == "loguniform")


def more(sweep: Sweep, plan: Plan, values: Mapping[str, float | None], failed: set[str]) -> Sweep:
    """The sweep with the next batch of suggestions, if it is their turn.

    It is once every suggestion before them has a score, or has failed.

    Args:
        sweep: with the suggestions so far.
        plan: of the same.
        values: the plan's metric of each finished trial, by its identity.
        failed: trials that have failed and not finished since.
    """
    search = sweep.settings.search
    known = list(sweep.suggestions)
    scores = {one.configuration.id: one for one in configuration_scores(plan, values)}
    for one in scores.values():
        trials = plan.trials_of[one.configuration.id]
        if not one.complete and not all(t.id in values or t.id in failed for t in trials):
            return sweep
    # A fold that failed may finish when the sweep is continued; until then nothing is known.
    means = {key: one.mean if one.complete else None for key, one in scores.items()}
    told = list(known)
    for index in range(len(known), min(len(known) + (search.batch or 1), search.samples or 0)):
        known.append(_suggest(sweep, index, told, known[len(told) :], means))
    return sweep.suggesting(known)


def _suggest(
    sweep: Sweep,
    index: int,
    told: Sequence[Suggestion],
    open_: Sequence[Suggestion],
    means: Mapping[str, float | None],
) -> Suggestion:
    """The next suggestion, given those with a score and those of its own batch before it."""
    study = _study(sweep.settings.search, index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in told:
            study.add_trial(_frozen(one, means))
        for one in open_:
            study.add_trial(_running(one))
        ask = study.ask()
        try:
            configuration, problem = configuration_at(sweep, _Chooser(ask)), ""
        except SpecificationError as error:
            configuration, problem = None, error.faults[0]
    distributions = {key: _text(value) for key, value in ask.distributions.items()}
    # Where some samplers keep what the next one goes on from.
    attributes = study.get_trials(deepcopy=False)[-1].system_attrs
    return Suggestion(configuration, dict(ask.params), distributions, dict(attributes), problem)


def _study(search: SearchSpec, index: int) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction: Literal["minimize", "maximize"] = "minimize" if search.mode == "min" else "maximize"
    digest = hashlib.sha256(f"{search.seed}/{index}".encode()).digest()
    sampler = _sampler(search, int.from_bytes(digest[:4], "big"))
    return optuna.create_study(direction=direction, sampler=sampler)


def _sampler(search: SearchSpec, seed: int) -> BaseSampler:
    from optuna import samplers

    if search.sampler == "gp":
        return samplers.GPSampler(seed=seed, deterministic_objective=False)
    if search.sampler == "cmaes":
        return samplers.CmaEsSampler(seed=seed)
    if search.sampler == "nsgaii":
        return samplers.NSGAIISampler(seed=seed)
    if search.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    return samplers.TPESampler(seed=seed, constant_liar=True)


def _frozen(one: Suggestion, means: Mapping[str, float | None]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    mean = None if one.configuration is None else means.get(one.configuration.id)
    return create_trial(
        state=TrialState.FAIL if mean is None else TrialState.COMPLETE,
        params=one.params,
        distributions=_distributions(one),
        value=mean,
        system_attrs=dict(one.attributes),
    )


def _running(one: Suggestion) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState.RUNNING,
        params=one.params,
        distributions=_distributions(one),
        system_attrs=dict(one.attributes),
    )


def _distributions(one: Suggestion) -> dict[str, Any]:
    from optuna.distributions import json_to_distribution

    return {key: json_to_distribution(text) for key, text in one.distributions.items()}


def _text(distribution: Any) -> str:
    from optuna.distributions import distribution_to_json

    return json.dumps(json.loads(distribution_to_json(distribution)), sort_keys=True)


def restored(sweep: Sweep, directory: RunDirectory) -> Sweep:
    """The sweep with the suggestions of an earlier call; as it is with another search method."""
    if sweep.settings.search.method != "optuna":
        return sweep
    try:
        stored = directory.read_plan()
    except DamagedPlanError:
        # Told when it is written anew; they are suggested once more, by the same records.
        stored = None
    found = () if stored is None else stored.suggestions[: sweep.settings.search.samples]
    return sweep.suggesting(found)
