"""TrainedModel: where trained weights lie and what they belong to; loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from models.spec import NetworkSpec
    from orchestrator.hyperparameters import TrainSpec
    from orchestrator.trials import Configuration

Kind = Literal["ensemble", "refit"]
"""The models of a configuration's folds together, or the one that was trained on all folds."""

KINDS: tuple[Kind, ...] = ("ensemble", "refit")


@dataclass(frozen=True)
class TrainedModel:
    """The weights of a configuration, and all that is needed to use them on new clips.

    Attributes:
        configuration: whose they are.
        classes: names in label order.
        kind: what was trained.
        weights: a file a model; the mean of their probabilities counts.
        import_path: folders in which a user's own model is looked for.
    """

    configuration: Configuration
    classes: tuple[str, ...]
    kind: Kind
    weights: tuple[Path, ...]
    import_path: tuple[Path, ...] = ()

    @property
    def network(self) -> NetworkSpec:
        """The parameters of a network; it is none where the model is an estimator."""
        # Not at module level: the command line imports this one for every command.
        from models.spec import EstimatorSpec

        model = self.configuration.model
        assert not isinstance(model, EstimatorSpec)
        return model

    @property
    def train(self) -> TrainSpec:
        """How a network was trained."""
        assert self.configuration.train is not None
        return self.configuration.train
