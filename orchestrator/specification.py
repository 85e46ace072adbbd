"""The sections of a specification that hold no search space, with their defaults."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.protocols import OF_ALL_FOLDS, Protocol
from orchestrator.tracker_spec import TrackerSpec

FORMAT_VERSION = 1
"""Of `spec.yaml`, `plan.json` and `result.json`; a later one is refused by name."""

METRICS = ("val_accuracy", "val_loss", "val_f1", "val_precision", "val_recall", "val_auroc")

Metric = Literal["val_accuracy", "val_loss", "val_f1", "val_precision", "val_recall", "val_auroc"]
Whole = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Positive = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def constraint(field: str, found: object, allowed: str) -> PydanticCustomError:
    """A fault between fields: which one to name, what was found and what is allowed."""
    context = {"field": field, "found": str(found), "allowed": allowed}
    return PydanticCustomError("constraint", "{field}: found {found}; allowed {allowed}", context)


class DataSpec(_Spec):
    """What is classified.

    Attributes:
        dataset: the kind of collection.
        root: its folder; `~` and `${VAR}` expand, relative to the specification's folder.
        manifest: for `manifest`, the CSV file with `path,label` and optionally `fold,source`;
            without `root` its clips are relative to its own folder.
        source_pattern: for `folder`, a regular expression whose first group is the source.
        on_bad_clip: `refuse` stops before any trial, `skip` leaves the clip out and says so.
        allow_leakage: run although a source or a file is in two folds; every table says so.
        near_duplicates: what near-identical audio in two folds gives: `warn`, or `refuse` unless
            `allow_leakage`.
    """

    dataset: Literal["synthetic", "esc10", "esc50", "urbansound8k", "folder", "manifest"]
    root: Text | None = None
    manifest: Text | None = None
    source_pattern: Text | None = None
    on_bad_clip: Literal["refuse", "skip"] = "refuse"
    allow_leakage: Flag = False
    near_duplicates: Literal["warn", "refuse"] = "warn"

    @model_validator(mode="after")
    def _keys_of_the_dataset(self) -> DataSpec:
        if self.dataset == "manifest" and self.manifest is None:
            raise constraint("manifest", "nothing", "the path of a CSV file")
        if self.dataset not in ("synthetic", "manifest") and self.root is None:
            raise constraint("root", "nothing", "the folder of the clips")
        if self.dataset == "synthetic" and self.root is not None:
            raise constraint("root", self.root, "none for dataset synthetic")
        if self.dataset != "manifest" and self.manifest is not None:
            raise constraint("manifest", self.manifest, f"none for dataset {self.dataset}")
        if self.dataset != "folder" and self.source_pattern is not None:
            raise constraint("source_pattern", self.source_pattern, "for dataset folder only")
        return self


class FoldsSpec(_Spec):
    """Which folds test, validate and train.

    Attributes:
        protocol: `held_out`: one test fold, or none, and validation folds in turn; `rotate`:
            each fold tests once, the next one validates, the rest trains; `cross_validation`: no
            test fold, every fold validates once; `nested`: each fold tests once what a
            cross-validation over the others has chosen.
        test: the fold that no choice sees; null for none.
        validate_folds: the validation folds in turn (`validate` in YAML); null for all others.
        k: make this many folds, numbered from 1, where the data bring none.
        stratify: keep the classes' shares in each fold made.
        group: keep a source's clips in one fold made.
        seed: of the folds made.
    """

    protocol: Protocol = "held_out"
    test: Whole | None = None
    validate_folds: list[Whole] | None = Field(default=None, alias="validate")
    k: Annotated[int, Field(strict=True, ge=2, le=10_000)] | None = None
    stratify: Flag = True
    group: Flag = True
    seed: Whole = 0

    @model_validator(mode="after")
    def _folds_agree(self) -> FoldsSpec:
        listed = self.validate_folds
        if self.protocol != "held_out":
            test, validate = OF_ALL_FOLDS[self.protocol]
            if self.test is not None:
                allowed = f"null with protocol {self.protocol}: {test}"
                raise constraint("test", self.test, allowed)
            if listed is not None:
                allowed = f"null with protocol {self.protocol}: {validate}"
                raise constraint("validate", listed, allowed)
            return self
        if listed is not None and not listed:
            raise constraint("validate", "no fold", "at least one fold, or null for all others")
        for i, fold in enumerate(listed or []):
            if fold == self.test:
                raise constraint(f"validate.{i}", f"the test fold {fold}", "folds other than it")
            if fold in (listed or [])[:i]:
                raise constraint(f"validate.{i}", f"fold {fold} again", "each fold once")
        return self


Sampler = Literal["tpe", "gp", "cmaes", "nsgaii", "random"]


class HalvingPruner(_Spec):
    """Keeps the best part of the configurations after some folds, and again after more.

    Successive halving (Jamieson and Talwalkar 2016, Non-stochastic best arm identification) with
    folds for its resource, and before that the epochs on the first of them.

    Attributes:
        folds: before the first comparison of whole trainings.
        epochs: on these folds before the first comparison of all; null for whole trainings only.
        factor: one in so many configurations goes on, and epochs and folds grow by as much.
    """

    name: Literal["halving"] = "halving"
    folds: Positive = 1
    epochs: Positive | None = None
    factor: Annotated[int, Field(strict=True, ge=2, le=100)] = 2


class WilcoxonPruner(_Spec):
    """Gives up configurations that are shown to be worse than the best one so far, fold by fold.

    Attributes:
        folds: before the first comparison of whole trainings.
        epochs: on these folds before the first comparison of all, and then twice as many each
            time; null for whole trainings only.
        p: of the one-sided signed-rank test, at or below which a configuration is given up; with
            four folds it can be 0.0625 at best, with five 0.03125.
    """

    name: Literal["wilcoxon"] = "wilcoxon"
    folds: Positive = 2
    epochs: Positive | None = None
    p: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] = 0.1


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


PrunerSpec = Annotated[
    Annotated[HalvingPruner | WilcoxonPruner, Field(discriminator="name")], BeforeValidator(_named)
]


class SearchSpec(_Spec):
    """How the search space is walked and configurations are ranked.

    Attributes:
        method: `grid` runs every point; `random` every grid point times `samples` draws;
            `optuna` one point after the other, where those before say that it may be good.
        metric: mean over the folds; never one of the test fold.
        mode: whether more or less is better; null goes by the metric.
        samples: draws, with `random`; points, with `optuna`.
        seed: of the draws.
        sampler: of Optuna.
        batch: points that Optuna suggests at once, before it knows how the first of them is.
        pruner: `halving`, `wilcoxon` or a mapping with such a `name`: gives configurations up
            after some of their folds or epochs; null for none.
    """

    method: Literal["grid", "random", "optuna"] = "grid"
    metric: Metric = "val_accuracy"
    mode: Literal["max", "min"] | None = None
    samples: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    seed: Whole = 0
    sampler: Sampler | None = None
    batch: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None
    pruner: PrunerSpec | None = None

    @model_validator(mode="after")
    def _samples_with_random(self) -> SearchSpec:
        if self.method != "grid" and self.samples is None:
            raise constraint("samples", "nothing", f"a number with method {self.method}")
        if self.method == "grid" and self.samples is not None:
            raise constraint("samples", self.samples, "none with method grid")
        for key, default in (("sampler", "tpe"), ("batch", 1)):
            if self.method != "optuna" and getattr(self, key) is not None:
                raise constraint(key, getattr(self, key), "none without method optuna")
            if self.method == "optuna" and getattr(self, key) is None:
                object.__setattr__(self, key, default)
        if self.mode is None:
            object.__setattr__(self, "mode", "min" if self.metric == "val_loss" else "max")
        return self


_SHARES = "auto, a whole number, or 1/n (0.5, 0.25)"
_MOST_SHARES = 1000
_DIVISOR = r"\s*[1-9][0-9]{0,3}\s*"


def _share(value: Any) -> Any:
    """A GPU share as a number: whole, or exactly 1/n for what is written near it."""
    share = value
    if isinstance(value, str):
        numerator, slash, denominator = value.partition("/")
        if not (numerator.strip() == "1" and slash and re.fullmatch(_DIVISOR, denominator)):
            return value
        share = 1 / int(denominator)
    if not isinstance(share, int | float):
        return value
    if isinstance(share, bool):
        raise constraint("", str(share).lower(), _SHARES)
    if 0 < share < 1:
        n = round(min(1 / share, 2 * _MOST_SHARES))
        # 0.33 is meant as 1/3; 0.4 is no share, since no whole number of them fills a GPU.
        if n <= _MOST_SHARES and abs(share * n - 1) < 0.02:
            return 1 / n
    elif 0 <= share <= 1024 and float(share).is_integer():
        return float(share)
    raise constraint("", value, _SHARES)


class ResourcesSpec(_Spec):
    """What one trial gets.

    Attributes:
        cpu: cores.
        gpu: GPUs: a whole number or 1/n; `auto` is none where there is no GPU, else 1/n, so that n
            trials fit on one, which is measured when a run starts.
    """

    cpu: Annotated[float, Field(strict=True, gt=0, le=100_000, allow_inf_nan=False)] = 1
    gpu: Annotated[float | Literal["auto"], BeforeValidator(_share)] = "auto"


class CheckpointSpec(_Spec):
    """How often a running trial saves its state.

    Attributes:
        every: epochs; more often loses less when a process dies, and costs some milliseconds
            and the size of model and optimizer on the disk each time.
    """

    every: Positive = 10


class ExecutionSpec(_Spec):
    """How a sweep copes with what goes wrong; nothing here changes results.

    Attributes:
        max_failures: how often a trial whose process died, ran out of memory or hung is started
            again, from its last checkpoint.
        trial_timeout: seconds that one attempt at a trial may take; null for no limit.
        time_limit: seconds after which the sweep saves and ends, to be continued.
        storage: a folder that the driver and every worker see; checkpoints go there directly and
            not through the driver. `~` and `${VAR}` expand.
        keep_weights: whose weights to keep in the run directory: the best configuration's (and,
            until all its folds have finished, any other's), every trial's, or nobody's. With
            protocol nested, where each fold chooses, `best` is nobody's.
    """

    max_failures: Whole = 2
    trial_timeout: Seconds | None = None
    time_limit: Seconds | None = None
    storage: Text | None = None
    keep_weights: Literal["best", "all", "none"] = "best"


class Settings(_Spec):
    """Every section without search spaces.

    Attributes:
        name: of the run directory; the file's stem where there is none.
        seed: of initialisation, order, dropout and augmentation, together with the fold.
        repeats: how many seeds each trial is run with: seed ... seed + repeats - 1.
        data: what is classified.
        folds: which folds test, validate and train.
        search: how the search space is walked and configurations are ranked.
        resources: what one trial gets.
        checkpoint: how often a running trial saves its state.
        execution: how a sweep copes with what goes wrong.
        trackers: where trials are logged beside the run directory: names, or mappings with a
            name and what else is to be said.
    """

    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    seed: Whole = 0
    repeats: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    data: DataSpec
    folds: FoldsSpec = Field(default_factory=FoldsSpec)
    search: SearchSpec = Field(default_factory=SearchSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    execution: ExecutionSpec = Field(default_factory=ExecutionSpec)
    trackers: list[TrackerSpec] = Field(default_factory=list)

    @model_validator(mode="after")
    def _each_tracker_once(self) -> Settings:
        names = [tracker.name for tracker in self.trackers]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise constraint(f"trackers.{i}", f"{name} again", "each tracker once")
        return self
