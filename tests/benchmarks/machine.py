"""The cores of this machine, and a Ray on all of them as a user would start it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestrator.provenance import usable_cores

CORES = usable_cores()
"""That this process may run on."""


def start_ray() -> None:
    """Start a Ray of our own, whose workers find these scripts and what they import."""
    import ray

    here = str(Path(__file__).parent)
    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([here, *sys.path[1:]])}},
    )
