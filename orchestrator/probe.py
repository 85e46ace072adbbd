"""A probe: what one trial needs of a GPU, from a few of its updates on one that it has alone."""

from __future__ import annotations

import ctypes
import gc
import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity

from orchestrator.batches import GPU_EVALUATION_BATCH
from orchestrator.device import choose_device
from orchestrator.packing import Need
from orchestrator.records import TrialFailure
from orchestrator.training import SplitData
from orchestrator.trial import TrialInput, TrialRun

_BATCHES = 3
"""Full batches of a tried epoch; the last one takes in another clip, the most that can be."""

_COMPUTE_MODE = 20
"""CU_DEVICE_ATTRIBUTE_COMPUTE_MODE; its value 0 lets any number of processes in."""

_EPOCHS = 4
"""One more than are run: the end of a trial is of no interest here."""


class ProbeError(Exception):
    """A trial could not be tried out; the trial itself will say why."""


def probe(given: TrialInput) -> Need:
    """Run two or three shortened epochs of a trial and read the meters of the GPU.

    Nothing of it is kept: each trial seeds its own generators when it begins. The clips that are
    left out of an epoch are added to the memory, as a trial moves its splits to the GPU.

    Raises:
        ProbeError: the trial failed, or there is no GPU that could be shared.
    """
    try:
        device = choose_device(1.0)
    except RuntimeError as error:
        raise ProbeError(str(error)) from error
    if _exclusive():
        raise ProbeError("the GPU takes one process at a time (its compute mode is not default)")
    few = shortened(given)
    torch.cuda.init()
    # What an earlier trial of this process left behind.
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run = TrialRun(few)
    _epoch(run)
    seconds = _timed(lambda: _epoch(run))
    memory = torch.cuda.max_memory_reserved(device)
    context = _context(device)
    kernels = _kernel_seconds(lambda: _epoch(run))
    left_out = _clips(given.split) - _clips(few.split)
    return Need(
        memory=memory + left_out * given.features.nbytes // max(len(given.features), 1),
        context=context,
        total=torch.cuda.get_device_properties(device).total_memory,
        seconds=seconds * _worked(given.split) / _worked(few.split),
        busy=min(1.0, kernels / seconds) if kernels else None,
    )


def _exclusive() -> bool:
    """Whether a GPU refuses a second process, as clusters set them up; asked of CUDA's driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    device, mode = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(mode), _COMPUTE_MODE, device)
    )
    return not failed and mode.value != 0


def shortened(given: TrialInput) -> TrialInput:
    """The same trial with as few clips as its batches allow, from its first epoch on."""
    configuration, split = given.trial.configuration, given.split
    assert configuration.train is not None
    clips = _BATCHES * configuration.train.batch_size + 1
    val, test, twin = (
        None if rows is None else rows[:GPU_EVALUATION_BATCH]
        for rows in (split.val, split.test, split.twin)
    )
    few = SplitData(split.train[:clips], val, test, twin)
    train = configuration.train.model_copy(update={"epochs": _EPOCHS, "early_stopping": None})
    trial = replace(given.trial, configuration=replace(configuration, train=train))
    return replace(given, trial=trial, split=few, gpus=1.0, checkpoint=None, timeout=None)


def _epoch(run: TrialRun) -> None:
    run.step()
    if isinstance(run.outcome, TrialFailure):
        raise ProbeError(run.outcome.error)


def _timed(work: Callable[[], None]) -> float:
    """Seconds; an epoch ends with reading its loss, when the GPU has nothing left to do."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _context(device: torch.device) -> int:
    """Bytes in use on the GPU beside what the allocator of this process holds."""
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device))


def _kernel_seconds(work: Callable[[], None]) -> float | None:
    """Seconds in which the GPU computed; None where no profiler can tell."""
    if ProfilerActivity.CUDA not in torch.profiler.supported_activities():
        return None
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profile:
        work()
    microseconds = sum(
        event.self_device_time_total
        for event in profile.events()
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    )
    return microseconds / 1e6 or None


def _clips(split: SplitData) -> int:
    parts = (split.train, split.val, split.test, split.twin)
    return sum(len(rows) for rows in parts if rows is not None)


def _worked(split: SplitData) -> float:
    """Clips of an epoch, where one that is only evaluated costs a third."""
    evaluated = sum(len(rows) for rows in (split.val, split.twin) if rows is not None)
    return len(split.train) + math.ceil(evaluated / 3)
