"""comparisons.csv: one row a configuration, every figure that says how sure its place is."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.comparison_words import sentence
from orchestrator.comparisons import AgainstBest, Comparisons, ConfigurationStatistics
from orchestrator.configuration_labels import configuration_names
from orchestrator.csv_files import Cell, TableFolder
from orchestrator.statistics import Interval, McNemar, MeanEstimate, standard_deviation, wilson

NAME = "comparisons.csv"

_SCORES = (
    *("protocol", "metric", "scores", "folds", "mean", "std_ddof0", "std_ddof1"),
    *("t_standard_error", "t_low", "t_high"),
    *("pooled_split", "pooled_clips", "pooled_answers", "pooled_hits", "pooled_accuracy"),
    *("wilson_low", "wilson_high"),
)
_AGAINST = (
    *("best", "pairs", "paired_folds", "difference", "test_to_train"),
    *("corrected_standard_error", "corrected_t", "corrected_df"),
    *("corrected_low", "corrected_high", "corrected_p", "corrected_p_holm"),
    *("wilcoxon_p", "wilcoxon_p_holm"),
    *("mcnemar_best_only", "mcnemar_this_only", "mcnemar_test", "mcnemar_p", "mcnemar_p_holm"),
    *("rope", "probability_best_better", "probability_equivalent", "probability_this_better"),
)
_NO_PAIRS: tuple[Cell, ...] = (None,) * (len(_AGAINST) - 1)


def write_comparisons(folder: TableFolder, comparisons: Comparisons) -> None:
    """Write the table, a cell empty where its figure is not defined.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    varying = comparisons.plan.varying
    parameters = (f"param_{path}" for path in varying)
    header = ["configuration", *parameters, *_SCORES, *_AGAINST, "sentence"]
    folder.write(NAME, header, _rows(comparisons, varying))


def _rows(comparisons: Comparisons, varying: tuple[str, ...]) -> Iterator[list[Cell]]:
    names = configuration_names(comparisons.plan)
    best = comparisons.best.configuration.id if comparisons.best else None
    for row in comparisons.rows:
        configuration = row.scores.configuration
        against = row.against_best
        yield [
            configuration.id,
            *(configuration.parameters.get(path) for path in varying),
            *_score_cells(comparisons, row),
            best,
            *(_NO_PAIRS if against is None else _against_cells(comparisons, against)),
            sentence(comparisons, row, names),
        ]


def _score_cells(comparisons: Comparisons, row: ConfigurationStatistics) -> list[Cell]:
    scores, pooled, over_folds = row.scores, row.pooled, row.over_folds
    of_clips: list[Cell] = [None] * 4
    if pooled is not None:
        of_clips = [pooled.clips, pooled.answers, pooled.hits, pooled.accuracy]
    return [
        comparisons.plan.protocol,
        comparisons.plan.metric,
        len(scores.values),
        row.folds,
        scores.mean,
        scores.std,
        standard_deviation(scores.values, ddof=1),
        over_folds.standard_error if over_folds else None,
        *_ends(over_folds.interval if over_folds else None),
        comparisons.split if pooled else None,
        *of_clips,
        *_ends(wilson(pooled.clips_hit, pooled.clips) if pooled else None),
    ]


def _against_cells(comparisons: Comparisons, against: AgainstBest) -> list[Cell]:
    return [
        against.pairs,
        against.folds,
        against.difference,
        against.test_to_train,
        *_corrected_cells(against.corrected),
        against.corrected_holm,
        against.wilcoxon,
        against.wilcoxon_holm,
        against.best_only,
        against.other_only,
        *_mcnemar_cells(against.mcnemar),
        against.mcnemar_holm,
        *_equivalence_cells(comparisons, against),
    ]


def _corrected_cells(corrected: MeanEstimate | None) -> list[Cell]:
    if corrected is None:
        return [None] * 6
    interval = _ends(corrected.interval)
    return [corrected.standard_error, corrected.t, corrected.df, *interval, corrected.p]


def _mcnemar_cells(test: McNemar | None) -> list[Cell]:
    if test is None:
        return [None, None]
    return ["exact binomial" if test.exact else "chi-squared, continuity corrected", test.p]


def _equivalence_cells(comparisons: Comparisons, against: AgainstBest) -> list[Cell]:
    found = comparisons.equivalence(against)
    if found is None:
        return [None] * 4
    ends = (found.above, found.below)
    better, worse = ends if comparisons.plan.mode == "max" else reversed(ends)
    return [comparisons.rope, better, found.inside, worse]


def _ends(interval: Interval | None) -> list[Cell]:
    return [None, None] if interval is None else [interval.low, interval.high]
