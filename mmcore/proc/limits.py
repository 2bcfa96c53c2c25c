"""``/proc/PID/limits``: what a process may use at most, and the limits that the first process begins with."""

from __future__ import annotations

from collections.abc import Mapping

from mmcore.cint import clamp
from mmcore.config import PAGE_SIZE
from mmcore.machine import Machine
from mmcore.mm import memblock
from mmcore.mm.util import INIT_RLIMITS, RLIM_INFINITY

__all__ = ["init_rlimits", "render", "set_max_threads"]

# include/uapi/asm-generic/resource.h
RLIMIT_CORE, RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_SIGPENDING = 4, 6, 7, 11
RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO = 12, 13, 14
MIN_THREADS, MAX_THREADS = 20, 0x3FFFFFFF
THREAD_SIZE = 16 << 10

#: Name and unit of each limit, in the order of their numbers.
NAMES: tuple[tuple[str, str], ...] = (
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
)


def set_max_threads(m: Machine) -> int:
    """Return how many threads there may be: their stacks get an eighth of what was free at boot.

    Mirrors kernel/fork.c:set_max_threads().
    """
    free = memblock.memblock_estimated_nr_free_pages(m.memblock)
    return clamp(free * PAGE_SIZE // (THREAD_SIZE * 8), MIN_THREADS, MAX_THREADS)


def init_rlimits(m: Machine) -> dict[int, tuple[int, int]]:
    """Return all limits of the first process, (soft, hard); its children have the same.

    Mirrors kernel/fork.c:fork_init().
    Simplified: of what it does, only the limits.
    """
    threads = set_max_threads(m) // 2
    limits = {limit: (RLIM_INFINITY, RLIM_INFINITY) for limit in range(len(NAMES))}
    limits |= INIT_RLIMITS
    limits[RLIMIT_CORE] = (0, RLIM_INFINITY)
    limits[RLIMIT_NPROC] = limits[RLIMIT_SIGPENDING] = (threads, threads)
    limits[RLIMIT_NOFILE] = (1024, 4096)
    limits[RLIMIT_MSGQUEUE] = (819200, 819200)
    limits[RLIMIT_NICE] = limits[RLIMIT_RTPRIO] = (0, 0)
    return limits


def render(limits: Mapping[int, tuple[int, int]]) -> str:
    """Return the table of all limits.

    Mirrors fs/proc/base.c:proc_pid_limits().
    """
    rows = [("Limit", "Soft Limit", "Hard Limit", "Units     ")]
    for number, (name, unit) in enumerate(NAMES):
        soft, hard = ("unlimited" if v == RLIM_INFINITY else str(v) for v in limits[number])
        rows.append((name, soft, hard, f"{unit:<10}" if unit else ""))
    return "".join(f"{name:<25} {soft:<20} {hard:<20} {unit}\n" for name, soft, hard, unit in rows)
