"""Every picture of a run directory, made from the run directory alone.

Equal records give equal bytes with the same versions of matplotlib and scikit-learn, in whatever
order the trials have finished.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

from orchestrator.class_curves import draw_class_curves
from orchestrator.comparison_plots import draw_comparisons
from orchestrator.comparisons import Comparisons
from orchestrator.configuration_curves import draw_configuration_curves
from orchestrator.confusion import draw_confusion
from orchestrator.fold_plots import draw_folds
from orchestrator.heat_maps import draw_heat_maps
from orchestrator.hyperparameter_plots import draw_hyperparameters
from orchestrator.learning_curves import draw_learning_curves
from orchestrator.outcomes import Results
from orchestrator.plot import Plot
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_style import look
from orchestrator.run_digest import RunDigest, read_digest
from orchestrator.trials import file_name

STALE = (
    "folds.png",
    "folds_test.png",
    "comparisons.png",
    "hyperparameters.png",
    "heat_map_*.png",
    "configuration_curves.png",
    "configuration_curves_*.png",
    "learning_curves_*.png",
    "confusion_*.png",
    "roc_*.png",
    "precision_recall_*.png",
)
"""Pictures that one state of a run directory has and another has not."""


def write_plots(
    results: Results,
    stop: Callable[[], bool] = lambda: False,
    comparisons: Comparisons | None = None,
) -> list[Plot]:
    """Write every picture under `RUN_DIR/plots`, each in one step; old ones that are stale go.

    Works on a finished run directory and on one whose sweep is running or was killed: unfinished
    configurations are named as such. Only the records of configurations that are drawn are read;
    without a finished trial there is no picture.

    Args:
        results: of the run directory.
        stop: asked before each picture is written.
        comparisons: of the same results; None for no picture of them.

    Returns:
        The pictures in the order in which a reader wants them: which configuration is best, what
        its settings do, how the models learn, and what the best one of each model mistakes.

    Raises:
        InterruptionError: it was stopped; the other pictures stay as they were.
        RunDirectoryError: a file is of another format version, or a picture cannot be written.
    """
    digest = read_digest(results)
    folder = PlotFolder(results.directory.path / "plots", stop)
    folder.make()
    if digest.models:
        with look():
            _draw(folder, digest, comparisons)
    folder.remove_stale(*STALE)
    return folder.plots


def _draw(folder: PlotFolder, digest: RunDigest, comparisons: Comparisons | None) -> None:
    names = _model_names(digest)
    draw_folds(folder, digest)
    if comparisons is not None:
        draw_comparisons(folder, digest, comparisons)
    draw_hyperparameters(folder, digest)
    for model in digest.models:
        draw_heat_maps(folder, digest, model, names[model.name])
    _draw_curves(folder, digest, names)
    for model in digest.models:
        draw_confusion(folder, digest, model, names[model.name], "val")
        draw_confusion(folder, digest, model, names[model.name], "test")
    for kind in ("roc", "precision_recall"):
        for model in digest.models:
            draw_class_curves(folder, digest, model, names[model.name], "val", kind)
            draw_class_curves(folder, digest, model, names[model.name], "test", kind)


def _draw_curves(folder: PlotFolder, digest: RunDigest, names: dict[str, str]) -> None:
    """How the models learn that go through epochs."""
    models = [model for model in digest.models if model.trained]
    runs = [run for run in digest.runs if run.configuration.train is not None]
    if runs:
        draw_configuration_curves(folder, digest, runs, sum(model.count for model in models))
    for model in models if len(models) > 1 else ():
        if model.count > 1:
            draw_configuration_curves(folder, digest, model.runs, model.count, names[model.name])
    for model in models:
        draw_learning_curves(folder, digest, model, names[model.name])


def _model_names(digest: RunDigest) -> dict[str, str]:
    """What each model is called in file names, with a hash where two would share a name."""
    models = {configuration.model.name for configuration in digest.plan.configurations}
    shared = Counter(file_name(model).casefold() for model in models)

    def name(model: str) -> str:
        safe = file_name(model)[:80]
        if shared[file_name(model).casefold()] == 1 and safe == file_name(model):
            return safe
        return f"{safe}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"

    return {model: name(model) for model in models}
