"""A Ray of our own can be reached from this machine only."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def listening(root: psutil.Process) -> set[tuple[str, str, int]]:
    """Process, address and port of each TCP socket that a process or one below it listens at."""
    found = set()
    for process in [root, *root.children(recursive=True)]:
        try:
            name = " ".join(process.cmdline()[:3])
            for socket in process.net_connections("tcp"):
                if socket.status == psutil.CONN_LISTEN:
                    found.add((name, *socket.laddr))
        except psutil.Error:
            continue
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def test_everything_of_a_ray_of_our_own_listens_on_loopback(write_spec, tmp_path: Path) -> None:
    train = {"epochs": 400, "optimizer": {"name": "sgd", "lr": 0.001}}
    command = [sys.executable, "-m", "orchestrator.cli", "run", write_spec(train=train)]
    driver = subprocess.Popen([*command, "--out", tmp_path / "run", "--quiet"])
    found: set[tuple[str, str, int]] = set()
    try:
        deadline = time.monotonic() + 60
        # Until trials run, and a little longer: some servers come late.
        while time.monotonic() < deadline:
            assert driver.poll() is None, "the sweep ended too early"
            now = listening(psutil.Process(driver.pid))
            found |= now
            if any("Trainable" in name for name, *_ in now):
                deadline = min(deadline, time.monotonic() + 2)
            time.sleep(0.1)
    finally:
        driver.terminate()
        assert driver.wait(60) == 130
    names = {name for name, *_ in found}
    assert any("gcs_server" in name for name in names), names
    assert any("raylet" in name for name in names), names
    assert any("Trainable" in name for name in names), names
    assert {place for place in found if not is_loopback(place[1])} == set()
    # The port of Ray's dashboard; another program's would not be in the list.
    assert 8265 not in {port for *_, port in found}
