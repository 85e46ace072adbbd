"""ScoreText: how a metric is named and its values rounded for reading; tables keep them whole."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from orchestrator.csv_files import Cell, text

MISSING = "–"

_SPACE = "\N{NO-BREAK SPACE}"

_SPLITS = {"val": "validation", "test": "test", "train": "training"}
_SCORES = {
    "accuracy": "accuracy",
    "loss": "loss",
    "precision": "precision (macro)",
    "recall": "recall (macro)",
    "f1": "F1 (macro)",
    "auroc": "AUROC (macro)",
}


@dataclass(frozen=True, slots=True)
class ScoreText:
    """The words for one metric: accuracies in percent, everything else as it is.

    Attributes:
        name: e.g. `val_accuracy`.
    """

    name: str

    @property
    def title(self) -> str:
        """Its name in words.

        >>> ScoreText("val_f1").title
        'validation F1 (macro)'
        """
        split, _, score = self.name.partition("_")
        return f"{_SPLITS.get(split, split)} {_SCORES.get(score, score)}"

    @property
    def short(self) -> str:
        """Its name without the split, with its unit, for a column."""
        score = self.name.partition("_")[2]
        name = _SCORES.get(score, score).removesuffix(" (macro)")
        return f"{name}, %" if self.in_percent else name

    @property
    def in_percent(self) -> bool:
        """Whether values are shown in percent."""
        return self.name.endswith("_accuracy")

    @property
    def unit(self) -> str:
        """What stands behind a value: a percent sign after a no-break space, or nothing."""
        return f"{_SPACE}%" if self.in_percent else ""

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return self.title[0].upper() + self.title[1:]

    @property
    def column(self) -> str:
        """The heading with its unit, for a column."""
        return f"{self.heading}, %" if self.in_percent else self.heading

    def value(self, value: float | None) -> str:
        """A value without its unit, for a column.

        >>> ScoreText("val_accuracy").value(0.4875), ScoreText("val_loss").value(1.70517)
        ('48.75', '1.705')
        """
        if value is None:
            return MISSING
        return rounded(value, 2, shift=2) if self.in_percent else rounded(value, 3)

    def spread(self, mean: float | None, std: float | None) -> str:
        """Mean and standard deviation without their unit."""
        return MISSING if mean is None else f"{self.value(mean)}{_SPACE}±{_SPACE}{self.value(std)}"

    def spoken(self, mean: float, std: float | None = None) -> str:
        """A value with its unit, for a sentence: in percent with one decimal."""
        digits = {"digits": 1, "shift": 2} if self.in_percent else {"digits": 3}
        text = rounded(mean, **digits)
        if std is not None:
            text += f"{_SPACE}±{_SPACE}{rounded(std, **digits)}"
        return text + self.unit

    def difference(self, value: float) -> str:
        """A difference with its unit: percentage points for what is in percent.

        >>> ScoreText("val_accuracy").difference(0.0125), ScoreText("val_loss").difference(0.2)
        ('1.3 points', '0.200')
        """
        if not self.in_percent:
            return "less than 0.001" if 0 < value < 0.0005 else rounded(value, 3)
        points = "less than 0.1" if 0 < value < 0.0005 else rounded(value, 1, shift=2)
        return f"{points} point{'' if points == '1.0' else 's'}"


def rounded(value: float, digits: int, shift: int = 0) -> str:
    """The decimal text of `value * 10**shift`, halves away from zero as people round.

    Rounding errors of the last bits are rounded away first: a mean of 0.49374999999999997 is
    0.49375.

    >>> rounded(0.49374999999999997, 2, shift=2), rounded(float("inf"), 2)
    ('49.38', 'inf')
    """
    number = Decimal(repr(round(value, 12)))
    if not number.is_finite():
        return str(value)
    return str(number.scaleb(shift).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def value_text(value: Cell) -> str:
    """A parameter's value for reading: as in the tables, but whole floats without their point.

    >>> value_text(80.0), value_text(0.001), value_text(True)
    ('80', '0.001', 'true')
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return text(value)


def counted(n: int, singular: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "fold"), counted(3272714, "parameter"), counted(2, "class", "classes")
    ('1 fold', '3,272,714 parameters', '2 classes')
    """
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def listed(items: list[str]) -> str:
    """Items as a sentence lists them.

    >>> listed(["2", "3", "4"])
    '2, 3 and 4'
    """
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
