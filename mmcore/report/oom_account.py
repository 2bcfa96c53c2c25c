"""Where memory was when the OOM killer ran: every page of the machine, or of the cgroup, and the rest.

Counters overlap (shared memory lies on the anonymous lists, free CMA pages are free), so only disjoint
ones are added; what they leave of RAM is named as unaccounted: vmalloc and per-CPU areas, pages that
drivers took straight from the allocator, zsmalloc, a balloon.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmcore.report.oom_parse import OomReport

__all__ = ["Account", "Part", "account", "kernel_stack_kb", "task_sums"]


@dataclass(slots=True)
class Part:
    """A disjoint part of memory.

    :ivar name: the kernel's counter, or counters
    :ivar words: what that is
    """

    name: str
    kb: int
    words: str


@dataclass(slots=True)
class Account:
    """All memory, in parts.

    :ivar of: what is divided: ``RAM``, or a cgroup's usage
    :ivar total_kb: its size: for RAM, what the page allocator was given
    :ivar reserved_kb: RAM that the page allocator never had
    :ivar unaccounted_kb: what no counter names; negative if counters lag
    :ivar inside: counters that lie within the parts
    """

    of: str
    total_kb: int
    reserved_kb: int = 0
    parts: list[Part] = field(default_factory=list)
    inside: list[Part] = field(default_factory=list)
    unaccounted_kb: int = 0

    @property
    def known(self) -> bool:
        """There is a total to hold the parts against."""
        return self.total_kb > 0


#: Disjoint counters of the machine, in pages, with what they are.
GLOBAL: tuple[tuple[str, str], ...] = (
    ("active_anon", "anonymous memory and shared memory, used lately"),
    ("inactive_anon", "anonymous memory and shared memory, not used lately"),
    ("isolated_anon", "of these, off the lists for a moment"),
    ("active_file", "file pages, used lately"),
    ("inactive_file", "file pages, not used lately"),
    ("isolated_file", "of these, off the lists for a moment"),
    ("active", "pages of processes and files, used lately"),
    ("inactive", "pages of processes and files, not used lately"),
    ("unevictable", "locked in memory, or of ramfs"),
    ("slab_reclaimable", "kernel objects that shrinkers can free"),
    ("slab_unreclaimable", "kernel objects that they cannot"),
    ("slab", "kernel objects"),
    ("pagetables", "page tables of processes"),
    ("sec_pagetables", "page tables of virtual machines and IOMMUs"),
    ("kernel_misc_reclaimable", "other kernel memory that shrinkers can free"),
    ("bounce", "buffers for devices that cannot reach all memory"),
    ("free", "free"),
    ("free_pcp", "free, kept by CPUs"),
)
#: Counters within these.
INSIDE: tuple[tuple[str, str], ...] = (
    ("shmem", "shared memory and tmpfs, on the anonymous lists"),
    ("mapped", "pages of files in page tables"),
    ("dirty", "to be written"),
    ("writeback", "being written"),
    ("unstable", "sent to an NFS server, not yet committed"),
    ("free_cma", "of free, only for movable pages"),
)


def kernel_stack_kb(report: OomReport) -> int | None:
    """Return the kernel stacks' size; nodes print it, or zones (3.0 to 4.19). None before."""
    for parts in (
        [node for node in report.mem.nodes.values()],
        [zone.values for zone in report.mem.zones],
    ):
        found = [values["kernel_stack"] for values in parts if "kernel_stack" in values]
        if found:
            return sum(n for n, _ in found)
    return None


def _hugetlb_kb(report: OomReport) -> int:
    return sum(h["total"] * h["size"] for h in report.hugepages)


def _from_nodes(report: OomReport) -> dict[str, int]:
    """Return the counters in pages out of the lines of nodes and zones, where their paragraph is lost."""
    mem = report.mem
    out: dict[str, int] = {}
    names = [name for name, _ in (*GLOBAL, *INSIDE)]
    spelt = {"isolated_anon": "isolated(anon)", "isolated_file": "isolated(file)"}
    zones = [zone.values for zone in mem.zones]
    nodes = list(mem.nodes.values())
    for name in names:
        key = spelt.get(name, name)
        parts = nodes if any(key in values for values in nodes) else zones
        found = [values[key][0] for values in parts if key in values]
        if found:
            out[name] = sum(found) // mem.page_kb
    return out


def _machine(report: OomReport) -> Account:
    mem = report.mem
    kb = mem.page_kb
    ram = mem.counts.get("pages RAM", 0) * kb
    reserved = min(mem.counts.get("pages reserved", 0) * kb, ram)
    if not ram:
        present = sum(z.values.get("present", (0, ""))[0] for z in mem.zones)
        ram, reserved = sum(z.values.get("managed", (0, ""))[0] for z in mem.zones), 0
        ram = ram or present
    account = Account("RAM", ram - reserved, reserved)
    counts = mem.counts if "free" in mem.counts else _from_nodes(report) | mem.counts
    for name, words in GLOBAL:
        if name in counts:
            account.parts.append(Part(name, counts[name] * kb, words))
    stacks = kernel_stack_kb(report)
    if stacks is not None:
        account.parts.append(Part("kernel_stack", stacks, "kernel stacks of threads"))
    if (huge := _hugetlb_kb(report)) > 0:
        account.parts.append(Part("hugetlb", huge, "huge pages set aside (vm.nr_hugepages)"))
    balloon = sum(n.get("Balloon", n.get("balloon", (0, "")))[0] for n in mem.nodes.values())
    if balloon:
        account.parts.append(Part("balloon", balloon, "given back to the hypervisor"))
    tmp = sum(n.get("writeback_tmp", (0, ""))[0] for n in mem.nodes.values())
    if tmp:
        account.parts.append(Part("writeback_tmp", tmp, "FUSE's copies being written"))
    for name, words in INSIDE:
        if counts.get(name):
            account.inside.append(Part(name, counts[name] * kb, words))
    if mem.counts.get("pages in swap cache"):
        n = mem.counts["pages in swap cache"] * kb
        account.inside.append(Part("swap cache", n, "on the anonymous lists, and in swap, too"))
    for name, words in (
        ("shmem_thp", "shared memory in huge pages"),
        ("anon_thp", "anonymous memory in huge pages"),
        ("mlocked", "locked by processes"),
    ):
        n = sum(v.get(name, (0, ""))[0] for v in mem.nodes.values())
        n = n or sum(z.values.get(name, (0, ""))[0] for z in mem.zones)
        if n:
            account.inside.append(Part(name, n, words))
    return account


def _cgroup(report: OomReport) -> Account:
    memcg = report.memcg
    assert memcg is not None
    usage = memcg.limits["memory"].usage if "memory" in memcg.limits else 0
    account = Account(f"cgroup {memcg.oom or ''}".strip(), usage)
    stats = memcg.stats
    if memcg.old:
        wanted = [("rss", "anonymous memory"), ("cache", "file pages and shared memory")]
        if "kmem" in memcg.limits:
            kmem = memcg.limits["kmem"].usage
            account.parts.append(Part("kmem", kmem, "kernel memory on its behalf"))
        inner = [("mapped_file", "files in page tables"), ("shmem", "shared memory")]
        inner += [("rss_huge", "anonymous memory in huge pages"), ("swap", "in swap")]
    else:
        wanted = [("anon", "anonymous memory"), ("file", "file pages, tmpfs and shared memory")]
        kernel = ["kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc"]
        kernel += ["slab"] if "slab" in stats else ["slab_reclaimable", "slab_unreclaimable"]
        if "kernel" in stats or "kmem" in memcg.limits:
            wanted.append(("kernel", "kernel memory on its behalf"))
            inner = [(name, "kernel memory") for name in kernel]
            if "kernel" not in stats:
                kmem = memcg.limits["kmem"].usage
                account.parts.append(Part("kmem", kmem, "kernel memory on its behalf"))
        else:
            wanted += [(name, "kernel memory on its behalf") for name in kernel]
            inner = []
        wanted.append(("sock", "buffers of sockets"))
        inner += [("shmem", "tmpfs and shared memory"), ("file_mapped", "files in page tables")]
        inner += [("anon_thp", "anonymous memory in huge pages"), ("unevictable", "locked")]
    account.parts = [
        *(Part(name, stats[name], words) for name, words in wanted if name in stats),
        *account.parts,
    ]
    account.inside = [Part(name, stats[name], words) for name, words in inner if stats.get(name)]
    return account


def account(report: OomReport) -> Account | None:
    """Return where memory was, largest parts first; None if the report does not say."""
    if report.memcg is not None and report.memcg.stats and report.is_memcg:
        result = _cgroup(report)
    elif report.mem.counts or report.mem.nodes:
        result = _machine(report)
    else:
        return None
    if not result.parts:
        return None
    result.parts.sort(key=lambda part: -part.kb)
    result.unaccounted_kb = result.total_kb - sum(part.kb for part in result.parts)
    if not result.known:
        result.unaccounted_kb = 0
    return result


def task_sums(report: OomReport) -> dict[str, int]:
    """Return the sums of the task table's columns, in kB."""
    kb = report.mem.page_kb
    sums: dict[str, int] = {}
    for name in ("rss", "rss_anon", "rss_file", "rss_shmem", "swapents"):
        if name in report.columns:
            sums[name] = sum(task.get(name) for task in report.tasks) * kb
    if "pgtables_bytes" in report.columns:
        sums["pgtables"] = sum(task.get("pgtables_bytes") for task in report.tasks) >> 10
    elif "nr_ptes" in report.columns:
        pages = sum(t.get("nr_ptes") + t.get("nr_pmds") + t.get("nr_puds") for t in report.tasks)
        sums["pgtables"] = pages * kb
    return sums
