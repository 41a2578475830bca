"""Machines that share nothing but a network, on this one: network namespaces on a bridge. Needs root, and `ip` of iproute2."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Machine:
    """A namespace with one address; its loopback is its own."""

    namespace: str
    link: str  # its end of the cable that is plugged into the bridge
    address: str

    def reaches(self, host: str, port: int) -> bool:
        """Whether a connection from there comes about, within three seconds."""
        connect = f"import socket; socket.create_connection(({host!r}, {port}), timeout=3)"
        inside = ["nsenter", f"--net=/var/run/netns/{self.namespace}"]
        return subprocess.run([*inside, sys.executable, "-c", connect], capture_output=True, check=False).returncode == 0

    def cut_off(self) -> None:
        """Pulls the cable: packets are dropped without an error."""
        _ip("link", "set", self.link, "down")


@dataclass(frozen=True)
class Network:
    """This machine's address on the bridge, and the machines on it."""

    host: str
    machines: tuple[Machine, ...]


@contextmanager
def network_namespaces(count: int) -> Iterator[Network]:
    """Namespaces on a bridge of this machine, gone when the block is left; skips the test where none can be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nsenter") is None:
        pytest.skip("network namespaces need root, ip and nsenter")
    name = f"lc{os.getpid() % 100_000}"  # names of links have 15 characters at the most
    part = 1 + os.getpid() % 250  # of addresses that are kept for tests of networks (RFC 2544)
    machines = tuple(Machine(f"{name}n{one}", f"{name}v{one}", f"198.18.{part}.{one + 2}") for one in range(count))
    host = f"198.18.{part}.1"
    try:
        try:
            _ip("link", "add", name, "type", "bridge")
        except RuntimeError as error:
            pytest.skip(f"no bridge can be made: {error}")
        _ip("address", "add", f"{host}/24", "dev", name)
        _ip("link", "set", name, "up")
        for machine in machines:
            inside = ("-n", machine.namespace)
            _ip("netns", "add", machine.namespace)
            _ip("link", "add", machine.link, "type", "veth", "peer", "name", "eth0", "netns", machine.namespace)
            _ip("link", "set", machine.link, "master", name, "up")
            _ip(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
            _ip(*inside, "link", "set", "lo", "up")
            _ip(*inside, "link", "set", "eth0", "up")
        yield Network(host, machines)
    finally:
        for machine in machines:
            subprocess.run(["ip", "netns", "delete", machine.namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
