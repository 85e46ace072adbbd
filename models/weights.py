"""Weights in files: those that a model starts from or was trained to, fitted to its names."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from models.library_error import error_line

__all__ = ["WeightsError", "file_hash", "load_weights", "read_weights", "weights_bytes"]

_CHECKSUM = "foldgrid_sha256"
"""Entry of a `.safetensors` file's header: a hash of all that is in it. The only entry, since
several stand there in any order."""

_SHOWN = 3
"""Names that a message gives of those that do not fit."""

_AUXILIARY = ("auxiliary.", "aux1.", "aux2.", "AuxLogits.")
"""What names of auxiliary classifiers begin with, here and in torchvision; some files lack them."""


class WeightsError(ValueError):
    """A file of weights cannot be read or does not fit the model; the message is one line."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"it cannot be read: {error.strerror or error}") from error


def weights_bytes(state: Mapping[str, Any]) -> bytes:
    """A state dict as the content of a `.safetensors` file; equal tensors give equal bytes.

    Raises:
        WeightsError: it holds what such a file cannot.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"the model keeps {type(value).__name__} under {name!r}, no tensor")
        # A copy of its own: the format takes neither two tensors in one memory nor channels_last.
        copied = torch.empty(value.shape, dtype=value.dtype)
        tensors[name] = copied.copy_(value.detach())
    try:
        return save(tensors, {_CHECKSUM: _checksum(tensors)})
    # Of kinds of tensors that the format does not have.
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsError(error_line(error)) from error


def read_weights(path: Path) -> OrderedDict[str, torch.Tensor]:
    """A state dict from a file, on the CPU; no code in the file is run.

    Where `weights_bytes` made the file, its checksum must hold.

    Args:
        path: `.safetensors`, or `.pt` or `.pth` as `torch.save` writes them.

    Raises:
        WeightsError: it cannot be read, or holds anything but tensors by name.
    """
    try:
        content = _content(path)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"it cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError("it holds more than tensors, or is damaged") from error
    # The readers raise what they like on a damaged file.
    except Exception as error:
        line = next(iter(str(error).splitlines()), "")
        raise WeightsError(f"it is damaged ({type(error).__name__}: {line})") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"it holds {type(content).__name__}, not tensors by name")
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            kind = type(tensor).__name__
            raise WeightsError(f"it holds {kind} under {name!r}, not a tensor (a state dict does)")
    state = OrderedDict(content)
    _copy_metadata(content, state)
    return state


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            checksum = (file.metadata() or {}).get(_CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if checksum not in (None, _checksum(tensors)):
            raise WeightsError("it is damaged (the checksum does not match)")
        return tensors
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=True)
    raise WeightsError("its name ends in neither .safetensors, .pt nor .pth")


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash of names, types, shapes and values, hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\n{tensor.dtype}\n{list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(
    model: nn.Module, state: OrderedDict[str, torch.Tensor], heads: Collection[str]
) -> None:
    """Copy a state dict into a model.

    Classifiers of another size keep what they have; so do auxiliary ones that the state lacks.

    Args:
        model: changed in place; one of shapes alone (on the meta device) is only compared.
        state: tensors by the model's names.
        heads: names whose shapes depend on the number of classes.

    Raises:
        WeightsError: names or shapes that do not fit, the first of them named.
    """
    own = model.state_dict()
    kept = {name for name in heads if name in state and state[name].shape != own[name].shape}
    used = OrderedDict((name, state[name]) for name in state if name not in kept)
    missing = [n for n in own if n not in state and not _optional(n, heads)]
    unknown = [n for n in state if n not in own and not n.startswith(_AUXILIARY)]
    odd = [n for n in used if n in own and used[n].shape != own[n].shape]
    if missing:
        raise WeightsError(f"it lacks {_first(missing)}")
    if unknown:
        raise WeightsError(f"it holds {_first(unknown)}, which the model does not have")
    if odd:
        shapes = [f"{n} {list(used[n].shape)} for {list(own[n].shape)}" for n in odd]
        raise WeightsError(f"its shapes do not fit: {_first(shapes)}")
    if any(tensor.is_meta for tensor in own.values()):
        return
    _copy_metadata(state if hasattr(state, "_metadata") else own, used)
    model.load_state_dict(used, strict=False)


def _optional(name: str, heads: Collection[str]) -> bool:
    # Counters of batches are younger than some files.
    return name in heads or name.startswith(_AUXILIARY) or name.endswith("num_batches_tracked")


def _copy_metadata(source: Any, target: Any) -> None:
    """The layers' version numbers, which PyTorch hides in an attribute and some layers ask for."""
    if hasattr(source, "_metadata"):
        target._metadata = source._metadata


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
