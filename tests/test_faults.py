"""The harness of random kills in a small form; the full one is tests/benchmarks/faults.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "benchmarks" / "faults.py"


@pytest.mark.ray
@pytest.mark.slow
def test_random_kills_of_driver_workers_and_a_node_change_no_table(tmp_path: Path) -> None:
    size = ["--trials", "4", "--kills", "5", "--own-kills", "0", "--data", "synthetic"]
    size += ["--reference", "serial", "--epochs", "20", "--delay", "2"]
    done = subprocess.run(
        [sys.executable, HARNESS, *size, "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "no fault" in done.stdout
    for kind in ("driver", "worker", "node"):
        assert f"kills of {kind}" in done.stdout
