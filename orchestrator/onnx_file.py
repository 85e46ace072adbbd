"""The models of a classifier as one ONNX graph, from features to class probabilities."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from models.outputs import AuxiliaryLogits
from orchestrator.error_line import error_line

PACKAGES = ("onnx", "onnxscript")
"""What the extra `onnx` brings."""


class OnnxError(Exception):
    """There can be no ONNX graph; the message is one line and says why."""


class _Probabilities(nn.Module):
    """The mean of the models' probabilities, float32 `[b, k]`."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map a batch of features to probabilities."""
        found = [_logits(model(features)).float().softmax(dim=1) for model in self.models]
        return torch.stack(found).mean(dim=0)


def write_onnx(path: Path, models: Sequence[nn.Module], shape: Sequence[int]) -> None:
    """Write an ONNX file: from `features`, float32 `[clips, *shape]`, to `probabilities`.

    In float32, whatever `train.precision` says.

    Args:
        path: of the file.
        models: on the CPU, in evaluation mode.
        shape: of one clip's features as a model gets them.

    Raises:
        OnnxError: a package is missing, or the models cannot be written so.
        OSError: the file cannot be written.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise OnnxError(f"it needs {' and '.join(missing)}: pip install 'foldgrid[onnx]'")
    # Of two clips: a size of one would be taken for a constant.
    example = torch.zeros(2, *shape)
    try:
        with _quiet():
            program = torch.onnx.export(
                _Probabilities(models).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["features"],
                output_names=["probabilities"],
                dynamic_shapes={"features": {0: torch.export.Dim("clips")}},
            )
            assert program is not None
            program.save(path, external_data=False)
    except OSError:
        raise
    # A user's model can do what the exporter has no word for, and its errors are of any type.
    except Exception as error:
        raise OnnxError(error_line(error)) from error


def _logits(output: torch.Tensor | AuxiliaryLogits) -> torch.Tensor:
    return output.logits if isinstance(output, AuxiliaryLogits) else output


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
