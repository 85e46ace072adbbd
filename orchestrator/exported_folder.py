"""The exported folder, read: which trained model it holds, or a run directory does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.atomic import reason
from orchestrator.errors import FoldgridError
from orchestrator.trained_model import Kind, TrainedModel
from orchestrator.trials import Configuration
from orchestrator.winner import find_trained

if TYPE_CHECKING:
    from orchestrator.classifier import Classifier

FORMAT_VERSION = 1
"""Of `model.json`; another one is refused by name."""

DESCRIPTION = "model.json"
"""What the model is; which a folder has that was exported."""

CODE = "code"
"""The folder of a user's own model."""


def load_model(folder: str | Path, model: Kind | None = None) -> Classifier:
    """Load a trained model from an exported folder, or the best one of a run directory.

    Args:
        folder: what `foldgrid export` or `foldgrid run` has written.
        model: `ensemble` or `refit`; None for what was exported, or for a run directory's
            ensemble.

    Raises:
        FoldgridError: there is no such model, or it cannot be loaded.
    """
    from orchestrator.classifier import Classifier

    return Classifier(find_model(Path(folder).absolute(), model))


def find_model(
    folder: Path, model: Kind | None = None, configuration: str | None = None
) -> TrainedModel:
    """What `load_model` loads; of a run directory maybe that of a configuration named.

    Raises:
        FoldgridError: there is no such model.
    """
    if not (folder / DESCRIPTION).is_file():
        return find_trained(folder, model or "ensemble", configuration)
    trained = read_export(folder)
    for option, found, exported in (
        ("--model", model, trained.kind),
        ("--configuration", configuration, trained.configuration.id),
    ):
        if found not in (None, exported):
            raise FoldgridError(f"{option}: found {found}; allowed {exported}, which was exported")
    return trained


def read_export(folder: Path) -> TrainedModel:
    """What an exported folder holds; nothing is loaded.

    Raises:
        FoldgridError: `model.json` cannot be read, is damaged or of another format version.
    """
    path = folder / DESCRIPTION
    try:
        data = json.loads(path.read_bytes())
        if data["format_version"] != FORMAT_VERSION:
            raise FoldgridError(
                f"{path}: format_version: found {json.dumps(data['format_version'])};"
                f" allowed {FORMAT_VERSION} (written by another version of foldgrid)"
            )
        return TrainedModel(
            configuration=Configuration.from_json(data["configuration"]),
            classes=tuple(data["classes"]),
            kind=data["kind"],
            weights=tuple(folder / name for name in data["weights"]),
            import_path=(folder / CODE,),
        )
    except OSError as error:
        raise FoldgridError(f"{path}: cannot read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        line = next(iter(str(error).splitlines()), "")
        raise FoldgridError(f"{path}: damaged: {type(error).__name__}: {line}") from error
