"""Confusion matrices: computed from pooled answers, drawn with counts and rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.fold_names import Fold, FoldNames, best_of, fold_of, pooled
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import colour_bar, sheet
from orchestrator.plot_style import ink_on, label, matrix_colours, text_width
from orchestrator.run_digest import Answers, Floats, Integers, ModelRuns, RunDigest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

BOTH, COUNTS = 13, 24
"""Classes up to which a cell holds count and rate, and count alone."""

SMALL_COUNTS, SMALL_NAMES = 14, 16
"""Classes up to which the small matrix of one fold has counts in its cells, and names."""

ROOM = 44
"""Characters of names that stand beside each other below a matrix without being slanted."""

MOST_FOLDS = 12

Split = Literal["val", "test"]


def confusion_matrix(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int
) -> Integers:
    """How often clips of each class were predicted as each class.

    Args:
        labels: true class indices `[n]`.
        predicted: predicted ones `[n]`.
        classes: `k`.

    Returns:
        Counts `[k, k]`, a row for each true class.
    """
    cells = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    counts: Integers = np.bincount(cells, minlength=classes * classes).astype(np.int64)
    return counts.reshape(classes, classes)


def pooled_confusion(answers: Sequence[Answers], classes: int) -> Integers:
    """The sum of the confusion matrices of several trials, `[k, k]`."""
    total = np.zeros((classes, classes), np.int64)
    for one in answers:
        total += confusion_matrix(one.labels, one.predicted, classes)
    return total


def rates(counts: Integers) -> Floats:
    """Each count as a share of its row, the true class's clips; 0 in an empty row."""
    rows = counts.sum(axis=1, keepdims=True)
    shares: Floats = counts / np.maximum(rows, 1)
    return shares


def draw_confusion(
    folder: PlotFolder, digest: RunDigest, model: ModelRuns, name: str, split: Split
) -> None:
    """The best configuration's matrix pooled over folds and, with several, of each fold.

    Args:
        folder: takes the pictures.
        digest: of the run directory.
        model: with at least one configuration.
        name: of the model in file names.
        split: whose answers.
    """
    answers = model.runs[0].val if split == "val" else model.runs[0].test
    if not answers:
        return
    word = "validation" if split == "val" else "test"
    classes = [label(c, 24) for c in digest.plan.classes]
    counts = pooled_confusion(answers, len(classes))
    folder.save(
        _pooled_figure(digest, model, answers, split, counts),
        f"confusion_{name}_{word}",
        "Confusion matrices",
        f"{model.name}: {word}, all folds",
        f"Confusion matrix of the best configuration of {model.name} on the {word} split, pooled"
        f" over folds: {_in_words(counts, classes)}",
    )
    by_fold: dict[Fold, list[Answers]] = {}
    for one in answers:
        by_fold.setdefault(fold_of(one.trial), []).append(one)
    if len(by_fold) > 1:
        folder.save(
            _fold_figure(digest, model, by_fold, split),
            f"confusion_{name}_{word}_folds",
            "Confusion matrices",
            f"{model.name}: {word}, each fold",
            f"Confusion matrices of the best configuration of {model.name} on the {word} split,"
            f" one for each of {len(by_fold)} folds.",
        )


def _in_words(counts: Integers, classes: Sequence[str]) -> str:
    """Accuracy and the three most frequent confusions."""
    total, right = int(counts.sum()), int(np.trace(counts))
    wrong = counts - np.diag(np.diag(counts))
    # Stable, so that equal counts come in the order of the classes.
    worst = [i for i in np.argsort(-wrong, axis=None, kind="stable")[:3] if wrong.flat[i]]
    said = f"{right} of {total} right"
    k = len(classes)
    pairs = [
        f"{classes[i // k]} taken for {classes[i % k]} ({wrong.flat[i]} of {counts[i // k].sum()})"
        for i in worst
    ]
    return f"{said}; most often {', '.join(pairs)}." if pairs else f"{said}."


def _pooled_figure(
    digest: RunDigest, model: ModelRuns, answers: Sequence[Answers], split: Split, counts: Integers
) -> Figure:
    k = len(digest.plan.classes)
    word = "validation" if split == "val" else "test"
    if k <= BOTH:
        cells = "In a cell: clips and, below, percent of the true class."
    elif k <= COUNTS:
        cells = "In a cell: clips."
    else:
        cells = "Too many classes for numbers in the cells."
    width = 7.0 if k <= BOTH else 9.5
    made = sheet(
        f"{model.name}: confusion matrix, {word}" + (", all folds" if len(answers) > 1 else ""),
        f"{best_of(digest, model)} {pooled(answers, split, FoldNames(digest.plan))} {cells}",
        height=width * (0.84 if k > 4 else 0.72),
        width=width,
    )
    axes = made.panels[0]
    size = {True: 10.0, False: 8.0}[k <= 10]
    image = _draw(axes, counts, digest.plan.classes, names=True, size=9.5 if k <= 24 else 7.0)
    if k <= COUNTS:
        _write_cells(axes, image, counts, size if k <= BOTH else 8.0, both=k <= BOTH)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    colour_bar(made.figure, image, [axes], "percent of the true class's clips")
    return made.figure


def _fold_figure(
    digest: RunDigest, model: ModelRuns, by_fold: dict[Fold, list[Answers]], split: Split
) -> Figure:
    k = len(digest.plan.classes)
    names = FoldNames(digest.plan)
    word = "validation" if split == "val" else "test"
    drawn = list(by_fold.items())[:MOST_FOLDS]
    notes = [best_of(digest, model)]
    if split == "test":
        notes.append("Held-out TEST clips, predicted by the model of each fold.")
    else:
        notes.append("VALIDATION clips of each fold, predicted by the model not trained on them.")
    if k <= SMALL_COUNTS:
        notes.append("In a cell: clips.")
    if len(by_fold) > MOST_FOLDS:
        notes.append(f"The first {MOST_FOLDS} of {len(by_fold)} folds.")
    made = sheet(
        f"{model.name}: confusion matrix, {word}, each fold",
        " ".join(notes),
        panels=len(drawn),
        columns=2,
        height=2.95,
        lowest=_room_for_names(digest.plan.classes) if k <= SMALL_NAMES else 0.45,
        share_x=True,
        share_y=True,
    )
    naming = names.validation if split == "val" else names.test
    image = None
    for axes, (fold, answers) in zip(made.panels, drawn, strict=True):
        counts = pooled_confusion(answers, k)
        image = _draw(axes, counts, digest.plan.classes, names=k <= SMALL_NAMES, size=8.0)
        if k <= SMALL_COUNTS:
            _write_cells(axes, image, counts, 8.0 if k <= 10 else 6.5, both=False)
        right = 100 * np.trace(counts) / max(1, counts.sum())
        axes.set_title(f"{naming(fold)}\n{right:.1f} % of {counts.sum()} right", size=9.5)
    for i, axes in enumerate(made.panels):
        if i % 2 == 0:
            axes.set_ylabel("true class")
        if i + 2 >= len(made.panels):
            axes.set_xlabel("predicted class")
    assert image is not None
    colour_bar(made.figure, image, made.panels, "percent of the true class's clips")
    return made.figure


def _draw(
    axes: Axes, counts: Integers, classes: Sequence[str], *, names: bool, size: float
) -> AxesImage:
    image = axes.imshow(
        rates(counts) * 100, cmap=matrix_colours(), vmin=0, vmax=100, interpolation="nearest"
    )
    edges = np.arange(len(classes) + 1) - 0.5
    fine = 0.6 if len(classes) <= COUNTS else 0.25
    axes.hlines(edges, edges[0], edges[-1], color="#D8D8D8", linewidth=fine)
    axes.vlines(edges, edges[0], edges[-1], color="#D8D8D8", linewidth=fine)
    ticks = range(len(classes)) if names else []
    shown = [label(classes[i], 18) for i in ticks]
    long = len(shown) * max((len(name) for name in shown), default=0) > ROOM
    axes.set_xticks(ticks, shown, rotation=90 if len(shown) > 10 else 45 if long else 0, size=size)
    if long and len(shown) <= 10:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, shown, size=size)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return image


def _room_for_names(classes: Sequence[str]) -> float:
    """Height of the names below a matrix in inches, slanted or upright."""
    widest = max(text_width(label(name, 18), 8.0) for name in classes) / 72
    return 0.3 + (0.75 if len(classes) <= 10 else 1.0) * widest


def _write_cells(
    axes: Axes, image: AxesImage, counts: Integers, size: float, *, both: bool
) -> None:
    shares = rates(counts) * 100
    for row, column in np.ndindex(counts.shape):
        count = int(counts[row, column])
        if not count:
            continue
        text = f"{count}\n{shares[row, column]:.0f}%" if both else f"{count}"
        colour = ink_on(image, float(shares[row, column]))
        axes.text(column, row, text, ha="center", va="center", color=colour, size=size)
