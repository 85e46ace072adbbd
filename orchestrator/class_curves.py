"""ROC and precision-recall curves of each class against the rest, and their macro average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestrator.fold_names import FoldNames, best_of, pooled
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import Legend, sheet
from orchestrator.plot_style import BLACK, COLOURS, DASHES, GREY, PALE, label
from orchestrator.run_digest import Answers, Floats, Integers, ModelRuns, RunDigest

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 12
"""Classes up to which every one is drawn in a colour; of more, the worst ones are."""

WORST = 6

_CLASS_COLOURS = tuple(colour for colour in COLOURS if colour != BLACK)
"""Black is the average's."""

Kind = Literal["roc", "precision_recall"]
Split = Literal["val", "test"]


@dataclass(frozen=True)
class ClassCurve:
    """A curve of one class against the rest, or their average.

    Attributes:
        x: false-positive rate, or recall; ascending `[n]`.
        y: true-positive rate, or precision `[n]`.
        area: under the ROC curve, or the average precision.
    """

    x: Floats
    y: Floats
    area: float


def roc(positive: Integers, scores: Floats) -> ClassCurve:
    """The ROC curve of one class (Fawcett 2006).

    Args:
        positive: 1 for its clips, 0 for the rest `[n]`; both occur.
        scores: the probability given to the class `[n]`.
    """
    from sklearn.metrics import auc, roc_curve

    x, y, _ = roc_curve(positive, scores)
    return ClassCurve(x, y, float(auc(x, y)))


def precision_recall(positive: Integers, scores: Floats) -> ClassCurve:
    """The precision-recall curve of one class, a step function as in the average precision.

    At a recall stands the precision at the highest threshold that reaches it, no interpolation
    (Davis and Goadrich 2006).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    y, x, _ = precision_recall_curve(positive, scores)
    # Of the points of one recall only the first one, of the highest threshold, adds to the area.
    x, first = np.unique(x[::-1], return_index=True)
    y = y[::-1][first]
    # The precision 1 at recall 0 is no measured value.
    y[0] = y[1]
    return ClassCurve(x, y, float(average_precision_score(positive, scores)))


def macro_roc(curves: Sequence[ClassCurve]) -> ClassCurve:
    """The mean of ROC curves at each false-positive rate; its area is the mean of their areas."""
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    low, high = np.zeros_like(grid), np.zeros_like(grid)
    for curve in curves:
        between = np.interp(grid, curve.x, curve.y)
        first = np.searchsorted(curve.x, grid, "left")
        last = np.searchsorted(curve.x, grid, "right") - 1
        # Where a curve goes straight up it has a lower and an upper end at the same place.
        low += np.where(curve.x[first] == grid, curve.y[first], between)
        high += np.where(curve.x[last] == grid, curve.y[last], between)
    x = np.repeat(grid, 2)
    y = np.column_stack([low, high]).ravel() / len(curves)
    return ClassCurve(x, y, float(np.mean([curve.area for curve in curves])))


def macro_precision_recall(curves: Sequence[ClassCurve]) -> ClassCurve:
    """The mean of precision at each recall; its area is the mean average precision."""
    grid = np.unique(np.concatenate([curve.x for curve in curves]))
    total = np.zeros_like(grid)
    for curve in curves:
        # The first point that reaches the recall.
        total += curve.y[np.searchsorted(curve.x, grid, "left")]
    return ClassCurve(grid, total / len(curves), float(np.mean([c.area for c in curves])))


def class_curves(answers: Sequence[Answers], classes: int, kind: Kind) -> dict[int, ClassCurve]:
    """The curve of each class that occurs among the pooled labels, unless no other one does.

    Args:
        answers: pooled as they are: the probabilities of several models on one scale.
        classes: `k`.
        kind: of curve.
    """
    labels = np.concatenate([one.labels for one in answers])
    scores = np.concatenate([one.probabilities for one in answers])
    curve = roc if kind == "roc" else precision_recall
    return {
        c: curve((labels == c).astype(np.int64), scores[:, c])
        for c in range(classes)
        if 0 < np.count_nonzero(labels == c) < labels.size
    }


@dataclass(frozen=True)
class _Words:
    title: str
    section: str
    area: str
    x: str
    y: str
    macro: Callable[[Sequence[ClassCurve]], ClassCurve]
    step: str


_WORDS: dict[Kind, _Words] = {
    "roc": _Words(
        "ROC curves",
        "ROC curves",
        "AUC",
        "false-positive rate (rest taken for the class)",
        "true-positive rate (class found)",
        macro_roc,
        "default",
    ),
    "precision_recall": _Words(
        "precision-recall curves",
        "Precision-recall curves",
        "AP",
        "recall (share of the class that is found)",
        "precision (share of right ones)",
        macro_precision_recall,
        "steps-pre",
    ),
}


def draw_class_curves(
    folder: PlotFolder, digest: RunDigest, model: ModelRuns, name: str, split: Split, kind: Kind
) -> None:
    """The curves of the best configuration, its answers pooled over folds.

    Args:
        folder: takes the picture; none is made where no class can be told from a rest.
        digest: of the run directory.
        model: with at least one configuration.
        name: of the model in file names.
        split: whose answers.
        kind: of curve.
    """
    answers = model.runs[0].val if split == "val" else model.runs[0].test
    curves = class_curves(answers, len(digest.plan.classes), kind) if answers else {}
    if not curves:
        return
    words = _WORDS[kind]
    word = "validation" if split == "val" else "test"
    worst = min(curves, key=lambda c: curves[c].area)
    macro = words.macro(list(curves.values()))
    folder.save(
        _figure(digest, model, answers, split, kind, curves),
        f"{kind}_{name}_{word}",
        words.section,
        f"{model.name}: {word}",
        f"{words.title[0].upper()}{words.title[1:]} of the best configuration of {model.name},"
        f" each class against the rest, {word} predictions pooled over folds: macro average"
        f" {words.area} {macro.area:.3f}, lowest {curves[worst].area:.3f} for"
        f" {label(digest.plan.classes[worst])}.",
    )


def _figure(
    digest: RunDigest,
    model: ModelRuns,
    answers: Sequence[Answers],
    split: Split,
    kind: Kind,
    curves: dict[int, ClassCurve],
) -> Figure:
    words = _WORDS[kind]
    word = "validation" if split == "val" else "test"
    notes = [best_of(digest, model), pooled(answers, split, FoldNames(digest.plan))]
    absent = len(digest.plan.classes) - len(curves)
    if absent:
        notes.append(f"{absent} classes without clips here are left out.")
    named = _named(curves)
    if len(named) < len(curves):
        notes.append(f"The {len(named)} classes with the lowest {words.area} are named.")
    macro = words.macro(list(curves.values()))
    made = sheet(
        f"{model.name}: {words.title}, {word}",
        " ".join(note for note in [*notes, "Each class against the rest."] if note),
        height=5.0,
        width=6.2,
        legend=_legend(digest, curves, named, macro, words),
    )
    axes = made.panels[0]
    # Guessing finds of each class what it takes of the rest; its precision is the class's share.
    chance = (0.0, 1.0) if kind == "roc" else (1 / len(curves),) * 2
    axes.plot([0, 1], chance, color=GREY, linestyle=(0, (2, 3)), linewidth=1)
    place = (0.72, 0.72) if kind == "roc" else (0.02, chance[0])
    axes.annotate("chance", place, (4, -4), textcoords="offset points", va="top", color=GREY)
    for c, curve in curves.items():
        if c not in named:
            _line(axes, curve, words, color=PALE, linewidth=0.8, zorder=1.5)
    for i, c in enumerate(named):
        _line(axes, curves[c], words, **_class_style(i), linewidth=1.5, zorder=3)
    _line(axes, macro, words, color=BLACK, linewidth=2.8, zorder=4)
    axes.set(xlabel=words.x, ylabel=words.y, xlim=(-0.015, 1.015), ylim=(-0.015, 1.015))
    axes.set_aspect("equal")
    return made.figure


def _named(curves: dict[int, ClassCurve]) -> list[int]:
    """The classes with a colour, in the order of the classes."""
    if len(curves) <= NAMED:
        return list(curves)
    return sorted(sorted(curves, key=lambda c: (curves[c].area, c))[:WORST])


def _class_style(i: int) -> dict[str, object]:
    colour = _CLASS_COLOURS[i % len(_CLASS_COLOURS)]
    return {"color": colour, "linestyle": DASHES[(i // len(_CLASS_COLOURS) + i) % len(DASHES)]}


def _line(axes: Axes, curve: ClassCurve, words: _Words, **style: object) -> None:
    axes.plot(curve.x, curve.y, drawstyle=words.step, **style)  # type: ignore[arg-type]


def _legend(
    digest: RunDigest,
    curves: dict[int, ClassCurve],
    named: Sequence[int],
    macro: ClassCurve,
    words: _Words,
) -> Legend:
    from matplotlib.lines import Line2D

    handles: list[Artist] = [Line2D([], [], color=BLACK, linewidth=2.8)]
    labels = [f"macro average, {words.area} {macro.area:.3f}"]
    for i, c in enumerate(named):
        handles.append(Line2D([], [], **_class_style(i)))  # type: ignore[arg-type]
        labels.append(f"{label(digest.plan.classes[c], 24)}, {words.area} {curves[c].area:.3f}")
    if len(named) < len(curves):
        handles.append(Line2D([], [], color=PALE))
        labels.append(f"the other {len(curves) - len(named)} classes")
    return Legend(handles, labels)
