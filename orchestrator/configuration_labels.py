"""Short names of configurations and of the paths that vary, as they stand in pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestrator.csv_files import text
from orchestrator.plot_style import label
from orchestrator.trials import Configuration, Plan, Value

LONGEST = 62
"""Characters of a configuration's name."""


def path_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or as much more as tells it from the others.

    >>> path_names(("model.name", "model.params.rate", "train.rate", "model.heads"))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'model.name': 'model', 'model.params.rate': 'params.rate', 'train.rate': 'train.rate',
     'model.heads': 'heads'}
    """
    names = {path: _tail(path, 1) for path in paths}
    for parts in range(2, 6):
        shared = Counter(names.values())
        names = {p: name if shared[name] == 1 else _tail(p, parts) for p, name in names.items()}
    return names


def value_name(value: Value | None) -> str:
    """A value with at most four significant digits; `none` where there is none.

    >>> value_name(0.00123456), value_name(None), value_name("xavier"), value_name(True)
    ('0.001235', 'none', 'xavier', 'true')
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return label(text(value), 30)


def configuration_names(plan: Plan, *, with_model: bool = True) -> dict[str, str]:
    """A name for each configuration of a plan, by identity: what tells it from its model's others.

    Args:
        plan: every configuration.
        with_model: the name of the model comes first where there are several. A model's only
            configuration is called like the model.
    """
    paths = [path for path in plan.varying if path != "model.name"]
    names = path_names(paths)
    fixed = _fixed_by_model(plan.configurations, paths)
    several = with_model and len({c.model.name for c in plan.configurations}) > 1

    def name(configuration: Configuration) -> str:
        model = configuration.model.name
        parameters = configuration.parameters
        parts = [model] if several else []
        parts += [
            f"{names[path]} {value_name(parameters.get(path))}"
            for path in paths
            if (model, path) not in fixed
        ]
        full = ", ".join(parts) or model
        if len(full) <= LONGEST:
            return label(full, LONGEST)
        return label(f"{full[: LONGEST - 12]}… ({configuration.id[-8:]})", LONGEST)

    return {c.id: name(c) for c in plan.configurations}


def _fixed_by_model(
    configurations: Sequence[Configuration], paths: Sequence[str]
) -> set[tuple[str, str]]:
    """Models and paths of which all configurations have one value, or none."""
    values: dict[tuple[str, str], set[str]] = {}
    for configuration in configurations:
        for path in paths:
            value = text(configuration.parameters.get(path))
            values.setdefault((configuration.model.name, path), set()).add(value)
    return {key for key, found in values.items() if len(found) == 1}


def _tail(path: str, parts: int) -> str:
    pieces = path.split(".")
    if pieces[-1] == "name" and parts == 1:
        pieces = pieces[:-1]
    return ".".join(pieces[-parts:])
