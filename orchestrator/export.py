"""Export: a trained model as one folder that needs neither the run directory nor the data.

The folder holds `model.json` (what the model is, its features and its classes), a file of weights
(or with the fitted estimator) a model, `model.onnx` where that can be, the source of a user's own
model under `code`, and a `README.txt`. It is made under another name and renamed, so that a whole
one is found or none.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from models.factory import copy_source
from models.spec import EstimatorSpec, FactorySpec
from orchestrator.atomic import reason
from orchestrator.classifier import Classifier
from orchestrator.errors import FoldgridError
from orchestrator.experiment import several
from orchestrator.exported_folder import CODE, DESCRIPTION, FORMAT_VERSION
from orchestrator.onnx_file import OnnxError, write_onnx
from orchestrator.provenance import versions
from orchestrator.refit_record import RefitRecord
from orchestrator.trained_model import TrainedModel
from orchestrator.trials import Configuration
from orchestrator.weights_names import weights_name
from orchestrator.winner import Winner


@dataclass(frozen=True)
class Export:
    """What an exported folder holds.

    Attributes:
        folder: where.
        files: names, sorted.
        no_onnx: why there is no `model.onnx`; empty where there is one.
    """

    folder: Path
    files: tuple[str, ...]
    no_onnx: str


def export_model(trained: TrainedModel, winner: Winner, target: Path) -> Export:
    """Write a trained model of a run directory to a folder of its own.

    Args:
        trained: which; its weights are loaded, so that no folder is written that does not work.
        winner: where it comes from.
        target: a folder that does not exist yet, or is empty.

    Raises:
        FoldgridError: the weights cannot be used, or the folder not be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FoldgridError(f"{target}: found, and not empty; allowed a new folder")
    classifier = Classifier(trained)
    try:
        with _replacing(target) as folder:
            names = _copy_weights(trained, folder)
            if isinstance(trained.configuration.model, FactorySpec):
                copy_source(trained.configuration.model.name, trained.import_path, folder / CODE)
            no_onnx = _write_onnx(classifier, folder)
            description = _description(trained, winner, names)
            text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
            (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
            readme = _readme(trained, winner, target.name, not no_onnx)
            (folder / "README.txt").write_text(readme, encoding="utf-8")
    except OSError as error:
        raise FoldgridError(f"{target}: cannot write: {reason(error)}") from error
    files = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    return Export(target, tuple(files), no_onnx)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}-{secrets.token_hex(4)}.tmp"
    folder.mkdir()
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_weights(trained: TrainedModel, folder: Path) -> list[str]:
    stem, _, kind = weights_name(trained.configuration.model).rpartition(".")
    one = len(trained.weights) == 1
    names = [
        f"{stem}.{kind}" if one else f"{stem}-{path.parent.name}.{kind}" for path in trained.weights
    ]
    for path, name in zip(trained.weights, names, strict=True):
        shutil.copyfile(path, folder / name)
    return names


def _write_onnx(classifier: Classifier, folder: Path) -> str:
    """Why there is no ONNX file, or nothing."""
    model = classifier.trained.configuration.model
    if isinstance(model, EstimatorSpec):
        return f"{model.name} is no network, and only networks are written as ONNX"
    models = [model.cpu() for model in classifier.models]
    try:
        write_onnx(folder / "model.onnx", models, classifier.trained.configuration.inputs.shape)
    except OnnxError as error:
        return str(error)
    return ""


def _description(trained: TrainedModel, winner: Winner, weights: list[str]) -> dict[str, Any]:
    scores, plan = winner.scores, winner.plan
    refit = RefitRecord.read(winner.directory) if trained.kind == "refit" else None
    return {
        "format_version": FORMAT_VERSION,
        "kind": trained.kind,
        "classes": list(trained.classes),
        "weights": weights,
        "configuration": _portable(trained).to_json(),
        "input": {
            "layout": trained.configuration.inputs.layout,
            "shape": list(trained.configuration.inputs.shape),
        },
        "provenance": {
            "run": plan.name,
            "configuration": trained.configuration.id,
            "trials": [trial.id for trial in winner.trials],
            "metric": plan.metric,
            "mean": scores.mean,
            "std": scores.std,
            "data_fingerprint": plan.data,
            "refit": None if refit is None else asdict(refit),
            "versions": versions(),
        },
    }


def _portable(trained: TrainedModel) -> Configuration:
    """Its configuration, without the place of the weights that it was started from."""
    model = trained.configuration.model
    if isinstance(model, FactorySpec | EstimatorSpec) or model.weights is None:
        return trained.configuration
    name = PurePath(model.weights).name
    return replace(trained.configuration, model=model.model_copy(update={"weights": name}))


def _readme(trained: TrainedModel, winner: Winner, name: str, onnx: bool) -> str:
    configuration = trained.configuration
    text = _README.format(
        configuration=configuration.id,
        run=winner.plan.name,
        version=version("foldgrid"),
        what=_what(trained, winner),
        name=name,
    )
    estimator = isinstance(configuration.model, EstimatorSpec)
    text += _ESTIMATORS.format(version=version("scikit-learn")) if estimator else _WEIGHTS
    if onnx:
        text += _ONNX.format(shape=", ".join(map(str, configuration.inputs.shape)))
    if isinstance(configuration.model, FactorySpec):
        text += _CODE.format(model=configuration.model.name)
    return text


def _what(trained: TrainedModel, winner: Winner) -> str:
    models = several(len(trained.weights), "model")
    if trained.kind == "ensemble":
        return f"{models}, one a fold (and seed); the mean of their probabilities counts."
    return f"{models}, trained once more on all folds but one that was held out, if any was."


_README = """\
{configuration} of the run {run}, exported by foldgrid {version}.
{what}

In Python, on audio files of any format, rate and length (pip install foldgrid):

    from orchestrator import load_model
    model = load_model("{name}")
    print(model.predict(["clip.wav"]))

On the command line:

    foldgrid predict {name} clip.wav

model.json            features, classes and model, and where they are from
"""

_WEIGHTS = """\
weights*.safetensors  the weights
"""

_ESTIMATORS = """\
weights*.skops        the fitted estimators, exported under scikit-learn {version}, which reads
                      them best; skops.io reads them too
"""

_ONNX = """\
model.onnx            from features, float32 [clips, {shape}], to probabilities [clips, classes];
                      model.inputs("clip.wav") gives such features
"""

_CODE = """\
code/                 the source of {model}, which load_model runs; what it
                      imports beside that has to be installed
"""
