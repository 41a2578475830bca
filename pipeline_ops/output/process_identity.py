"""Identify the process that holds a lease, for people and for the next process on the same machine."""

import os
import pwd
import socket


def this_holder() -> str:
    """This process, for people: user, host, process number."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run under user ids without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def this_process() -> str | None:
    """Identifies this process among all machines and boots; None where /proc is missing."""
    return _process_identity(os.getpid())


def _process_identity(pid: int) -> str | None:
    """Boot id, process namespace, process number and start time, unique over machines and time; None without such a process.

    Source: proc(5), /proc/PID/stat: field 3 is the state, field 22 the start time in clock ticks since boot.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot, open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
            if fields[0] in "ZX":  # dead, and not yet reaped by its parent
                return None
            return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')} {pid} {fields[19]}"
    except OSError:
        return None


def is_gone(process: str | None) -> bool:
    """Whether the process ran on this machine and has ended; False for those of other machines and process namespaces."""
    here = this_process()
    if process is None or here is None or process.split()[:2] != here.split()[:2]:
        return False
    return _process_identity(int(process.split()[2])) != process
