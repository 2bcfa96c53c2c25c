"""Tracepoints: one vocabulary of events for the model, the figures, the tests and a real kernel.

Every operation that has a tracepoint in the kernel emits an event with the kernel's name
(``kmem:mm_page_alloc``) and the kernel's field names. Steps for which the kernel has none are
``model:*`` events; they never enter a comparison with a kernel.

An event costs one attribute test while nobody listens::

    trace = zone.machine.trace
    if trace.on:
        trace.emit("kmem:mm_page_alloc", page.pfn, order, gfp_flags, migratetype)

and is a tuple when somebody does; the trace adds time, CPU and task::

    with machine.trace.record("kmem:*") as log:
        page = alloc_pages(machine, GFP_KERNEL, 0)
    log[-1].fields["pfn"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from mmcore.errors import UsageError

__all__ = ["TRACEPOINTS", "Event", "Listener", "Trace"]

#: The fields of each event, in the order in which emit() takes their values.
TRACEPOINTS: dict[str, tuple[str, ...]] = {
    # include/trace/events/kmem.h
    "kmem:mm_page_alloc": ("pfn", "order", "gfp_flags", "migratetype"),
    "kmem:mm_page_alloc_zone_locked": ("pfn", "order", "migratetype", "percpu_refill"),
    "kmem:mm_page_alloc_extfrag": (
        "pfn",
        "alloc_order",
        "fallback_order",
        "alloc_migratetype",
        "fallback_migratetype",
        "change_ownership",
    ),
    "kmem:mm_page_free": ("pfn", "order"),
    "kmem:mm_page_free_batched": ("pfn",),
    "kmem:mm_page_pcpu_drain": ("pfn", "order", "migratetype"),
    "kmem:rss_stat": ("mm_id", "curr", "member", "size"),
    # include/trace/events/vmscan.h
    "vmscan:mm_vmscan_wakeup_kswapd": ("nid", "zid", "order", "gfp_flags"),
    "vmscan:mm_vmscan_direct_reclaim_begin": ("order", "gfp_flags"),
    "vmscan:mm_vmscan_direct_reclaim_end": ("nr_reclaimed",),
    "vmscan:mm_vmscan_kswapd_sleep": ("nid",),
    "vmscan:mm_vmscan_kswapd_wake": ("nid", "zid", "order"),
    "vmscan:mm_vmscan_lru_isolate": (
        "highest_zoneidx",
        "order",
        "nr_requested",
        "nr_scanned",
        "nr_skipped",
        "nr_taken",
        "lru",
    ),
    "vmscan:mm_vmscan_write_folio": ("pfn", "reclaim_flags"),
    "vmscan:mm_vmscan_lru_shrink_inactive": (
        "nid",
        "nr_scanned",
        "nr_reclaimed",
        "nr_dirty",
        "nr_writeback",
        "nr_congested",
        "nr_immediate",
        "nr_activate0",
        "nr_activate1",
        "nr_ref_keep",
        "nr_unmap_fail",
        "priority",
        "reclaim_flags",
    ),
    "vmscan:mm_vmscan_lru_shrink_active": (
        "nid",
        "nr_taken",
        "nr_active",
        "nr_deactivated",
        "nr_referenced",
        "priority",
        "reclaim_flags",
    ),
    # include/trace/events/pagemap.h
    "pagemap:mm_lru_insertion": ("pfn", "lru", "flags"),
    "pagemap:mm_lru_activate": ("pfn",),
    # include/trace/events/oom.h
    "oom:reclaim_retry_zone": (
        "node",
        "zone_idx",
        "order",
        "reclaimable",
        "available",
        "min_wmark",
        "no_progress_loops",
        "wmark_check",
    ),
    "oom:compact_retry": ("order", "priority", "result", "retries", "max_retries", "ret"),
    # arch/x86/include/asm/trace/exceptions.h
    "exceptions:page_fault_user": ("address", "ip", "error_code"),
    "exceptions:page_fault_kernel": ("address", "ip", "error_code"),
    # include/trace/events/tlb.h
    "tlb:tlb_flush": ("reason", "pages"),
    # include/trace/events/mmap.h
    "mmap:vm_unmapped_area": (
        "addr",
        "err",
        "total_vm",
        "flags",
        "length",
        "low_limit",
        "high_limit",
        "align_mask",
        "align_offset",
    ),
    "mmap:vma_mas_szero": ("mt", "start", "end"),
    "mmap:vma_store": ("mt", "vma", "vm_start", "vm_end"),
    "mmap:exit_mmap": ("mt",),
    # The model's own: steps for which the kernel has no tracepoint.
    # arch/x86/mm/fault.c, mm/memory.c: a decision, its outcome, and the locks held then
    "model:fault_step": ("function", "step", "lock"),
    "model:warn": ("text",),
    # mm/vma.c: with which neighbours a range is merged ("left", "right", "both" or "none"), and what
    # stood against each side, "" for nothing; splits
    "model:vma_merge": ("start", "end", "merged", "left", "right"),
    "model:vma_split": ("vm_start", "vm_end", "addr"),
    # mm/page_alloc.c: free lists; "to_tail" tells which end of the list got the block
    "model:buddy_merge": ("pfn", "buddy_pfn", "order", "migratetype"),
    "model:buddy_split": ("pfn", "order", "migratetype"),
    "model:free_list_add": ("pfn", "order", "migratetype", "to_tail"),
    "model:free_list_del": ("pfn", "order", "migratetype"),
    "model:free_list_move": ("pfn", "order", "old_mt", "new_mt"),
    "model:pageblock_migratetype": ("pfn", "old_mt", "new_mt"),
    "model:kernel_init_pages": ("pfn", "numpages"),
    "model:claim_test": (
        "pfn",
        "block_type",
        "start_type",
        "free_pages",
        "alike_pages",
        "claimed",
    ),
    "model:boost_watermark": ("nid", "zid", "watermark_boost"),
    # mm/page_alloc.c: the walk over the zonelist and the slow path
    "model:zone_tried": ("nid", "zone_idx", "wmark", "mark", "free_pages", "result"),
    "model:slowpath": ("step",),
    "model:wakeup_kswapd": ("nid", "zid", "order", "gfp_flags"),
    "model:try_to_free_pages": ("order", "gfp_flags", "nr_reclaimed"),
    "model:try_to_compact_pages": ("order", "gfp_flags", "priority", "result"),
    "model:out_of_memory": ("order", "gfp_flags"),
    "model:page_allocation_failure": ("order", "gfp_flags"),
    # mm/memcontrol.c: one step of a charge (value: batch, pages reclaimed, killed or not, pages due),
    # what a CPU keeps in advance, the wait above memory.high
    "model:memcg_charge": ("memcg", "step", "nr_pages", "value"),
    "model:memcg_event": ("memcg", "event"),
    "model:memcg_stock": ("cpu", "memcg", "action", "nr_pages", "stock"),
    "model:memcg_high": ("memcg", "nr_pages", "nr_reclaimed", "penalty_jiffies"),
}


class Event(NamedTuple):
    """One event as a listener sees it.

    ``time`` is in nanoseconds since the machine booted, ``cpu`` the model CPU, ``task`` the name of
    the task that was running, ``name`` the tracepoint, ``values`` its fields in table order.
    """

    time: int
    cpu: int
    task: str
    name: str
    values: tuple[Any, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The event's values by field name."""
        return dict(zip(TRACEPOINTS[self.name], self.values, strict=True))

    def __str__(self) -> str:
        shown = " ".join(f"{k}={v}" for k, v in self.fields.items())
        return f"{self.name.partition(':')[2]}: {shown}"


Listener = Callable[[Event], None]


class Trace:
    """The tracepoints of one machine.

    :param context: returns (time in ns, CPU, task name) for an event; the machine supplies it
    """

    __slots__ = ("_context", "_listeners", "on")

    def __init__(
        self, context: Callable[[], tuple[int, int, str]] = lambda: (0, 0, "swapper")
    ) -> None:
        self.on = False
        self._context = context
        self._listeners: list[tuple[tuple[str, ...], Listener]] = []

    def attach(self, listener: Listener, *patterns: str) -> None:
        """Call @listener for each event whose name matches one of @patterns (all when none is given).

        :raises UsageError: if a pattern matches no event that exists
        """
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in TRACEPOINTS):
                raise UsageError(
                    f"no event matches {pattern!r}; there are: {', '.join(TRACEPOINTS)}"
                )
        self._listeners.append((patterns or ("*",), listener))
        self.on = True

    def detach(self, listener: Listener) -> None:
        """Stop calling @listener."""
        self._listeners = [entry for entry in self._listeners if entry[1] is not listener]
        self.on = bool(self._listeners)

    @contextmanager
    def record(self, *patterns: str) -> Iterator[list[Event]]:
        """Collect the matching events in a list while the ``with`` block runs."""
        log: list[Event] = []
        listener = log.append
        self.attach(listener, *patterns)
        try:
            yield log
        finally:
            # A bound method is a new object each time, so detach the one that was attached.
            self.detach(listener)

    def emit(self, name: str, *values: Any) -> None:
        """Hand an event to the listeners. Callers test ``trace.on`` first."""
        time, cpu, task = self._context()
        event = Event(time, cpu, task, name, values)
        for patterns, listener in self._listeners:
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                listener(event)
