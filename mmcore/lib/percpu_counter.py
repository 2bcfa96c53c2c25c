"""Counters that each CPU keeps a part of.

Mirrors lib/percpu_counter.c: adding is cheap because a CPU passes its part on only when it has become
large; reading is cheap and up to batch * CPUs wrong, or exact and slow.
"""

from __future__ import annotations

__all__ = [
    "PercpuCounter",
    "percpu_counter_add_batch",
    "percpu_counter_read_positive",
    "percpu_counter_sum_positive",
    "percpu_counter_sync",
]


class PercpuCounter:
    """``struct percpu_counter``.

    :ivar count: what all CPUs have passed on
    :ivar counters: what each CPU has not passed on yet

    Mirrors include/linux/percpu_counter.h:percpu_counter.
    """

    __slots__ = ("count", "counters")

    def __init__(self) -> None:
        self.count = 0
        self.counters: dict[int, int] = {}


def percpu_counter_add_batch(fbc: PercpuCounter, cpu: int, amount: int, batch: int) -> None:
    """Add @amount on @cpu; its part is passed on when it reaches @batch either way.

    Mirrors lib/percpu_counter.c:percpu_counter_add_batch().
    """
    count = fbc.counters.get(cpu, 0) + amount
    if abs(count) >= batch:
        fbc.count += count
        count = 0
    fbc.counters[cpu] = count


def percpu_counter_sync(fbc: PercpuCounter, cpu: int) -> None:
    """Pass on the part of one CPU.

    Mirrors lib/percpu_counter.c:percpu_counter_sync().
    """
    fbc.count += fbc.counters.pop(cpu, 0)


def percpu_counter_read_positive(fbc: PercpuCounter) -> int:
    """Return what has been passed on, at least 0.

    Mirrors include/linux/percpu_counter.h:percpu_counter_read_positive().
    """
    return max(fbc.count, 0)


def percpu_counter_sum_positive(fbc: PercpuCounter) -> int:
    """Return the exact value, at least 0.

    Mirrors include/linux/percpu_counter.h:percpu_counter_sum_positive().
    """
    return max(fbc.count + sum(fbc.counters.values()), 0)
