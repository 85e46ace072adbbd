"""TrackerSpec: where trials are logged beside the run directory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(strict=True, min_length=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorBoardSpec(_Spec):
    """Event files in `RUN_DIR/trackers/tensorboard`, a folder a configuration and in it a trial."""

    name: Literal["tensorboard"] = "tensorboard"


class MlflowSpec(_Spec):
    """MLflow: a run a configuration, its trials the child runs.

    Attributes:
        uri: of the tracking server; null for MLFLOW_TRACKING_URI or, where that is not set, the
            database `RUN_DIR/trackers/mlflow/mlflow.db`.
        experiment: its name; null for the sweep's.
    """

    name: Literal["mlflow"] = "mlflow"
    uri: Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9+.-]*:.+$")] | None = None
    experiment: Name | None = None


class WandbSpec(_Spec):
    """Weights & Biases: a group a configuration, a run a trial.

    Attributes:
        mode: null for WANDB_MODE or, where that is not set, offline: to `RUN_DIR/trackers/wandb`,
            from where `wandb sync` takes it.
        project: its name; null for the sweep's.
        entity: the team or user; null for the default one.
    """

    name: Literal["wandb"] = "wandb"
    mode: Literal["offline", "online"] | None = None
    project: Name | None = None
    entity: Name | None = None


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


TrackerSpec = Annotated[
    Annotated[TensorBoardSpec | MlflowSpec | WandbSpec, Field(discriminator="name")],
    BeforeValidator(_named),
]
