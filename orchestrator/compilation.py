"""`train.compile`: a model's training step compiled by torch.compile."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import nn


class CompilerMissing(RuntimeError):  # noqa: N818
    """`train.compile` was asked for where nothing can be compiled; the message says what lacks."""


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """A module that computes what the model does, and is compiled when it is first called.

    It shares the model's parameters. Each shape of a batch is compiled by itself, the first time
    for seconds to minutes; what was compiled before, in another process too, is found in the cache.

    Raises:
        CompilerMissing: there is nothing to compile with.
    """
    missing = missing_for(device)
    if missing is not None:
        raise CompilerMissing(f"train.compile needs {missing}")
    # What an earlier trial of this process compiled counts towards torch's limit of variants,
    # beyond which it silently does without.
    torch.compiler.reset()
    # In this process: a trial has one core.
    module = torch.compile(model, dynamic=False, options={"compile_threads": 1})
    return cast(nn.Module, module)


def missing_for(device: torch.device) -> str | None:
    """What torch.compile lacks here to compile for a device; None if nothing."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler: {compiler} is not found (the variable CXX names another)"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return f"Python's headers for C: Python.h of {sysconfig.get_python_version()} is not found"
    if device.type == "cuda" and find_spec("triton") is None:
        return "the package triton to compile for a GPU"
    return None
