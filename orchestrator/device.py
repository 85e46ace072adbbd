"""Where a trial computes, and PyTorch's settings while it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from orchestrator.packing import CONTEXT_BYTES, memory_fraction


def choose_device(gpus: float) -> torch.device:
    """The device for a trial that was given so many GPUs, a fraction counting as one.

    Raises:
        RuntimeError: a GPU was given, but PyTorch finds none.
    """
    if gpus <= 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(f"the trial was given {gpus:g} GPU, but torch finds no CUDA device")
    return torch.device("cuda", 0)


def device_name(device: torch.device) -> str:
    """`cpu` or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def limit_memory(device: torch.device, gpus: float, context: int = CONTEXT_BYTES) -> None:
    """Let this process reserve no more of a GPU's memory than a trial's share.

    A trial that wants more gets torch.OutOfMemoryError, and those beside it are not disturbed.

    Args:
        device: of the trial; on a CPU there is nothing to limit.
        gpus: the trial's share.
        context: bytes that CUDA takes for the process beside tensors.
    """
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(memory_fraction(gpus, context, total), device)


@contextmanager
def trial_settings(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Set PyTorch up for a trial, and back afterwards.

    On a GPU, products and convolutions of float32 are rounded to TF32 (19 bits, sums in float32):
    several times as fast where they are large. `deterministic` leaves them in float32, as a CPU
    computes them, and asks for deterministic algorithms, which a CPU always has.

    One thread, because sums over several depend on their number, and two trials of one thread
    are faster than one trial of two. No search for the fastest convolution, because its choice
    depends on the moment.
    """
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    changed = deterministic and device.type == "cuda"
    tf32 = _tf32()
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        _set_tf32(not deterministic, not deterministic)
    if changed:
        # cuBLAS needs it for reproducible sums; torch refuses to multiply without.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        if device.type == "cuda":
            _set_tf32(*tf32)
        if changed:
            torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)


def _tf32() -> tuple[bool, bool]:
    """Whether matrix products and convolutions are rounded to TF32.

    Read by the newer of torch's two interfaces, since the older one raises where a user's model
    has set either by the newer; and set by the older, which sets both.
    """
    backends: Any = torch.backends
    return (
        backends.cuda.matmul.fp32_precision == "tf32",
        backends.cudnn.conv.fp32_precision == "tf32",
    )


def _set_tf32(products: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
