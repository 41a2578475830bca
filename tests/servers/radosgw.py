"""Ceph's S3 server on this machine, in memory: atomic where `tests/s3_server.py`, which is quicker to start, is not.

Needs Debian's ceph-mon, ceph-osd, radosgw and ceph-common. One monitor, one store and the gateway run as processes of their own
on loopback; no manager is needed.
"""

import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.s3_server import S3Server

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "ceph", "ceph-authtool", "monmaptool", "radosgw-admin", "setpriv")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 10
MEMORY_BYTES = 3 * 2**30  # what the store takes at most; deleted objects leave it hours later only
# cephx stays on: without it this gateway hangs at its start. Sockets for administration would have too long paths.
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
log file = {folder}/$name.log
admin socket =
mon data = {folder}/mon
mon data avail crit = 1
mon allow pool size one = true
mon max pg per osd = 1000
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = {memory}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
rgw data = {folder}
rgw frontends = beast endpoint=127.0.0.1:{ports[2]}
rgw thread pool size = 64
"""


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def radosgw_server(folder: Path, access_key: str = "testing", secret_key: str = "testing") -> Iterator[S3Server]:
    """Runs a whole Ceph with one user in `folder`, which must be empty; takes about 12 seconds.

    Args:
        access_key, secret_key: of the user; every other key and wrong secrets are refused with 403.
    """
    ports = _free_ports(3)
    fsid, store = str(uuid.uuid4()), str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(CONFIGURATION.format(fsid=fsid, folder=folder, ports=ports, memory=MEMORY_BYTES))
    ceph = ("-c", str(configuration))
    _make_keyring(folder / "keyring")
    monitor_map, monitor = str(folder / "monmap"), ("ceph-mon", *ceph, "-i", "a")
    addresses = f"[v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]"
    _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monitor_map)
    _run(*monitor, "--mkfs", "--monmap", monitor_map, "--keyring", str(folder / "keyring"))
    with ExitStack() as processes:
        processes.enter_context(_process(folder, *monitor, "-f"))
        _run("ceph", *ceph, "--connect-timeout", str(START_TIMEOUT_S), "osd", "new", store)
        (folder / "osd").mkdir()
        _run("ceph-osd", *ceph, "-i", "0", "--mkfs", "--osd-uuid", store)
        processes.enter_context(_process(folder, "ceph-osd", *ceph, "-i", "0", "-f"))
        user = ("--uid", "tests", "--display-name", "tests", "--access-key", access_key, "--secret-key", secret_key)
        _run("radosgw-admin", *ceph, "user", "create", *user)
        gateway = processes.enter_context(_process(folder, "radosgw", *ceph, "-n", "client.rgw", "-f"))
        server = S3Server(f"http://127.0.0.1:{ports[2]}", access_key, secret_key)
        _wait_for_answer(server.endpoint_url, gateway, folder)
        yield server


def _make_keyring(keyring: Path) -> None:
    """One key for each process, and one for the commands."""
    allowed = {
        "mon.": ("mon",),
        "client.admin": ("mon", "osd"),
        "osd.0": ("mon", "osd"),
        "client.rgw": ("mon", "osd"),
    }
    for name, services in allowed.items():
        capabilities = [part for service in services for part in ("--cap", service, "allow *")]
        _run(
            "ceph-authtool",
            *([] if keyring.exists() else ["--create-keyring"]),
            str(keyring),
            "--gen-key",
            "-n",
            name,
            *capabilities,
        )


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on; somebody may in a moment, for these programs cannot choose one themselves."""
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(number)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]


def _environment() -> dict[str, str]:
    """Without what is meant for the tests' own Python: `ceph` is a Python program of the system."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CEPH_"))}


def _run(*command: str) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=START_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


@contextmanager
def _process(folder: Path, *command: str) -> Iterator[subprocess.Popen]:
    with (folder / f"{command[0]}.out").open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],  # ends when the tests are gone
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # Ctrl-C in the terminal is for the tests
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_answer(url: str, gateway: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and gateway.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"radosgw did not start: {(folder / 'radosgw.out').read_text()}")
