"""Where a trial computes, and PyTorch's settings while it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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


@contextmanager
def trial_settings(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Set PyTorch up for a trial, and back afterwards.

    One thread, because sums over several depend on their number, and two trials of one thread
    are faster than one trial of two. No search for the fastest convolution, because its choice
    depends on the moment. Deterministic algorithms on a GPU where asked for; a CPU always has
    them.
    """
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    changed = deterministic and device.type == "cuda"
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    if changed:
        # cuBLAS needs it for reproducible sums; torch refuses to multiply without.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
        if changed:
            torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
