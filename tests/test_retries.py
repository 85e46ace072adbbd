"""Which ends of a trial are tried again, how often and with what."""

from __future__ import annotations

import pytest

from orchestrator.deaths import death
from orchestrator.records import Cause, Timing, TrialFailure
from orchestrator.retries import Retries, larger_share, with_advice

TRIAL = "cnn1d-00000000-t1-f2-s0"


@pytest.mark.parametrize("cause", [Cause.DIED, Cause.MEMORY, Cause.TIMEOUT])
def test_a_death_is_tried_again_as_often_as_allowed(cause: Cause) -> None:
    retries = Retries(allowed=2)
    assert [retries.again(TRIAL, cause) for _ in range(3)] == [True, True, False]
    assert retries.again("another", cause)


def test_what_went_wrong_by_itself_is_not_tried_again() -> None:
    assert not Retries(allowed=5).again(TRIAL, Cause.OWN)


def test_the_death_of_a_node_does_not_count() -> None:
    retries = Retries(allowed=1)
    assert all(retries.again(TRIAL, Cause.LOST) for _ in range(50))
    assert retries.again(TRIAL, Cause.DIED)
    assert not retries.again(TRIAL, Cause.DIED)


def test_gpu_memory_is_tried_with_larger_shares_until_the_whole() -> None:
    retries, gpus = Retries(allowed=0), 1 / 8
    shares = []
    while retries.again(TRIAL, Cause.GPU_MEMORY, gpus):
        larger = larger_share(gpus)
        assert larger is not None
        gpus = larger
        shares.append(gpus)
    assert shares == [1 / 4, 1 / 2, 1]


def test_a_failure_for_lack_of_gpu_memory_says_what_may_help() -> None:
    timing = Timing("", 0.0, 0.0, 1, "", "cuda")
    failure = TrialFailure(TRIAL, "OutOfMemoryError: 20 MiB", "", timing, Cause.GPU_MEMORY)
    assert "train.batch_size" in with_advice(failure).error


# What Ray 2.60 said of real deaths, as Tune keeps it: without the exception's type.
KILLED = """The actor died unexpectedly before finishing this task.
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit
detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common causes
include: (1) the process was killed by the OOM killer due to high memory usage, (2) ..."""
NODE_DIED = """The actor died unexpectedly before finishing this task.
The actor died because its node has died. Node Id: e57ce987
the actor's node was terminated unexpectedly: health check failed due to missing too many
heartbeats"""
UNREACHABLE = """The actor 941f3a6e is unavailable: The actor is temporarily unavailable: RpcError:
RPC Error message: Socket closed. The task may or may not have been executed on the actor."""
MEMORY = "Task was killed due to the node running low on memory."


@pytest.mark.parametrize(
    ("story", "cause"),
    [
        (KILLED, Cause.DIED),
        (NODE_DIED, Cause.LOST),
        (UNREACHABLE, Cause.LOST),
        (MEMORY, Cause.MEMORY),
    ],
)
def test_what_a_trial_died_of(story: str, cause: Cause) -> None:
    assert death(TRIAL, story, 3.0, None).cause is cause
    assert death(TRIAL, story, 3.0, 5.0).cause is cause


@pytest.mark.parametrize("story", [KILLED, UNREACHABLE])
def test_a_process_that_its_guard_killed_took_too_long(story: str) -> None:
    failure = death(TRIAL, story, 5.1, 5.0)
    assert failure.cause is Cause.TIMEOUT
    assert failure.error == "TrialTimeout: no end within 5 s (execution.trial_timeout)"


def test_a_worker_that_cannot_start_says_why() -> None:
    story = "The actor died because of an error raised in its creation task, ray::Trainable\n"
    failure = death(TRIAL, f"{story}ModuleNotFoundError: No module named 'models'", 0.0, None)
    assert "it could not start: ModuleNotFoundError: No module named 'models'" in failure.error
