"""memblock: the allocator that serves the kernel before the buddy allocator exists.

Two sorted arrays of regions: ``memory`` says what there is, ``reserved`` what is taken. Free memory
is stored nowhere: it is what is left of the first when the second is taken away, found anew for each
request by walking both arrays in lockstep.

The kernel has one global ``struct memblock``; here it is the first parameter, so that a figure or a
test can make one of its own. A machine's is ``m.memblock``.

Mirrors mm/memblock.c and include/linux/memblock.h.

Simplified: addresses are physical throughout (the kernel hands out virtual ones from
memblock_alloc*()); no kmemleak; memory is never "unaccepted"; region arrays never come from slab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import EBUSY, EINVAL, ENOMEM, KernelBug, UsageError
from mmcore.mm import mm_init

if TYPE_CHECKING:
    from mmcore.machine import Machine

INIT_MEMBLOCK_REGIONS = 128
PHYS_ADDR_MAX = (1 << 64) - 1
ULLONG_MAX = (1 << 64) - 1
MAX_NUMNODES = 1 << 10
NUMA_NO_NODE = -1
SMP_CACHE_BYTES = 64
SIZEOF_MEMBLOCK_REGION = 24

# enum memblock_flags
MEMBLOCK_NONE = 0x0
MEMBLOCK_HOTPLUG = 0x1
MEMBLOCK_MIRROR = 0x2
MEMBLOCK_NOMAP = 0x4
MEMBLOCK_DRIVER_MANAGED = 0x8
MEMBLOCK_RSRV_NOINIT = 0x10
MEMBLOCK_FLAG_NAMES: dict[int, str] = {
    MEMBLOCK_HOTPLUG: "HOTPLUG",
    MEMBLOCK_MIRROR: "MIRROR",
    MEMBLOCK_NOMAP: "NOMAP",
    MEMBLOCK_DRIVER_MANAGED: "DRV_MNG",
    MEMBLOCK_RSRV_NOINIT: "RSV_NIT",
}

# What @end may be instead of an address.
MEMBLOCK_ALLOC_ANYWHERE = PHYS_ADDR_MAX
MEMBLOCK_ALLOC_ACCESSIBLE = 0
MEMBLOCK_ALLOC_NOLEAKTRACE = 1
MEMBLOCK_LOW_LIMIT = 0

RESERVE_MEM_MAX_ENTRIES = 8
RESERVE_MEM_NAME_SIZE = 16


@dataclass(slots=True, eq=False)
class MemblockRegion:
    """``struct memblock_region``: addresses and sizes in bytes.

    Mirrors include/linux/memblock.h:memblock_region.
    """

    base: int
    size: int
    flags: int = 0
    nid: int = MAX_NUMNODES

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + self.size

    def __repr__(self) -> str:
        node = f" on node {self.nid}" if numa_valid_node(self.nid) else ""
        return f"<[{self.base:#x}-{self.end - 1:#x}]{node} flags: {self.flags:#x}>"


@dataclass(slots=True, eq=False)
class MemblockType:
    """``struct memblock_type``: one sorted array of regions.

    ``max`` is the room in the array, ``addr`` where it lies (0: the static one in the kernel image).

    Mirrors include/linux/memblock.h:memblock_type.
    """

    name: str
    max: int = INIT_MEMBLOCK_REGIONS
    total_size: int = 0
    regions: list[MemblockRegion] = field(default_factory=list)
    addr: int = 0

    @property
    def cnt(self) -> int:
        """The number of regions."""
        return len(self.regions)


@dataclass(slots=True, eq=False)
class Memblock:
    """``struct memblock`` with the file's other variables.

    :ivar bottom_up: search from low addresses (only with movable_node)
    :ivar current_limit: no allocation ends above this address
    :ivar memory: the memory there is
    :ivar reserved: the memory that is taken
    :ivar debug: ``memblock=debug``: write each operation to ``pr_info``
    :ivar warnings: what WARN_ON() and pr_warn() said

    Mirrors include/linux/memblock.h:memblock.
    """

    bottom_up: bool = False
    current_limit: int = MEMBLOCK_ALLOC_ANYWHERE
    memory: MemblockType = field(default_factory=lambda: MemblockType("memory"))
    reserved: MemblockType = field(default_factory=lambda: MemblockType("reserved"))
    debug: bool = False
    can_resize: bool = False
    system_has_some_mirror: bool = False
    movable_node_enabled: bool = False
    mirrored_kernelcore: bool = False
    slab_is_available: bool = False
    reserved_mem_table: dict[str, tuple[int, int]] = field(default_factory=dict)
    pr_info: Callable[[str], None] = field(default=lambda text: None, repr=False)
    warnings: list[str] = field(default_factory=list, repr=False)


def numa_valid_node(nid: int) -> bool:
    """Tell whether @nid names a node; MAX_NUMNODES and NUMA_NO_NODE do not.

    Mirrors include/linux/numa.h:numa_valid_node().
    """
    return 0 <= nid < MAX_NUMNODES


def PFN_UP(x: int) -> int:
    """Return the page frame number at or above address @x.

    Mirrors include/linux/pfn.h:PFN_UP().
    """
    return (x + PAGE_SIZE - 1) >> PAGE_SHIFT


def PFN_DOWN(x: int) -> int:
    """Return the page frame number at or below address @x.

    Mirrors include/linux/pfn.h:PFN_DOWN().
    """
    return x >> PAGE_SHIFT


def _dbg(memblock: Memblock, text: str, caller: str) -> None:
    if memblock.debug:
        memblock.pr_info(f"{text} {caller}" if caller else text)


def _range(base: int, size: int) -> str:
    return f"[0x{base:016x}-0x{base + size - 1 & ULLONG_MAX:016x}]"


def _check_range(what: str, base: int, size: int) -> None:
    if base < 0 or size < 0 or base > PHYS_ADDR_MAX or size > PHYS_ADDR_MAX:
        raise UsageError(f"{what}: base {base:#x} and size {size:#x} must be 0 to 2**64-1 bytes")


def choose_memblock_flags(memblock: Memblock) -> int:
    """Return what allocations ask for first: mirrored memory where there is some.

    Mirrors mm/memblock.c:choose_memblock_flags().
    """
    return MEMBLOCK_MIRROR if memblock.system_has_some_mirror else MEMBLOCK_NONE


def memblock_cap_size(base: int, size: int) -> int:
    """Return @size cut so that @base + size stays below 2**64.

    Mirrors mm/memblock.c:memblock_cap_size().
    """
    return min(size, PHYS_ADDR_MAX - base)


def memblock_addrs_overlap(base1: int, size1: int, base2: int, size2: int) -> bool:
    """Tell whether two ranges share a byte.

    Mirrors mm/memblock.c:memblock_addrs_overlap().
    """
    return base1 < base2 + size2 and base2 < base1 + size1


def memblock_overlaps_region(type: MemblockType, base: int, size: int) -> bool:
    """Tell whether a range shares a byte with any region of @type.

    Mirrors mm/memblock.c:memblock_overlaps_region().
    """
    size = memblock_cap_size(base, size)
    return any(memblock_addrs_overlap(base, size, r.base, r.size) for r in type.regions)


def __memblock_find_range_bottom_up(
    memblock: Memblock, start: int, end: int, size: int, align: int, nid: int, flags: int
) -> int:
    """Return the lowest fitting address in [@start, @end), 0 if there is none.

    Mirrors mm/memblock.c:__memblock_find_range_bottom_up().
    """
    for this_start, this_end, _ in for_each_free_mem_range(memblock, nid, flags):
        this_start = min(max(this_start, start), end)
        this_end = min(max(this_end, start), end)
        cand = ALIGN(this_start, align)
        if cand < this_end and this_end - cand >= size:
            return cand
    return 0


def __memblock_find_range_top_down(
    memblock: Memblock, start: int, end: int, size: int, align: int, nid: int, flags: int
) -> int:
    """Return the highest fitting address in [@start, @end), 0 if there is none.

    Mirrors mm/memblock.c:__memblock_find_range_top_down().
    """
    for this_start, this_end, _ in for_each_free_mem_range_reverse(memblock, nid, flags):
        this_start = min(max(this_start, start), end)
        this_end = min(max(this_end, start), end)
        if this_end < size:
            continue
        cand = this_end - size & ~(align - 1)
        if cand >= this_start:
            return cand
    return 0


def memblock_find_in_range_node(
    memblock: Memblock, size: int, align: int, start: int, end: int, nid: int, flags: int
) -> int:
    """Return a free address for @size bytes, 0 if there is none. Page 0 is never returned.

    :param end: ``phys_addr_t``; 0 and 1 (ACCESSIBLE, NOLEAKTRACE) stand for ``current_limit``

    Mirrors mm/memblock.c:memblock_find_in_range_node().
    """
    if end in (MEMBLOCK_ALLOC_ACCESSIBLE, MEMBLOCK_ALLOC_NOLEAKTRACE):
        end = memblock.current_limit
    start = max(start, PAGE_SIZE)
    end = max(start, end)
    find = __memblock_find_range_bottom_up if memblock.bottom_up else __memblock_find_range_top_down
    return find(memblock, start, end, size, align, nid, flags)


def memblock_find_in_range(memblock: Memblock, start: int, end: int, size: int, align: int) -> int:
    """Return a free address on any node, mirrored memory first; 0 if there is none.

    Mirrors mm/memblock.c:memblock_find_in_range().
    """
    flags = choose_memblock_flags(memblock)
    ret = memblock_find_in_range_node(memblock, size, align, start, end, NUMA_NO_NODE, flags)
    if not ret and flags & MEMBLOCK_MIRROR:
        _warn_mirror(memblock, size)
        ret = memblock_find_in_range_node(memblock, size, align, start, end, NUMA_NO_NODE, 0)
    return ret


def _warn_mirror(memblock: Memblock, size: int) -> None:
    memblock.warnings.append(f"Could not allocate 0x{size:016x} bytes of mirrored memory")


def memblock_remove_region(type: MemblockType, r: int) -> None:
    """Remove region number @r.

    Mirrors mm/memblock.c:memblock_remove_region().
    """
    type.total_size -= type.regions[r].size
    del type.regions[r]


def memblock_double_array(
    memblock: Memblock, type: MemblockType, new_area_start: int, new_area_size: int
) -> int:
    """Double the room for regions, in memory taken from memblock itself.

    The array of ``reserved`` must not land in the range that is about to be reserved: look above
    that range first, then below.

    :return: 0, or -1 when no memory was found
    :raises KernelBug: before memblock_allow_resize(), where the kernel panics

    Mirrors mm/memblock.c:memblock_double_array().
    """
    if not memblock.can_resize:
        raise KernelBug(f"memblock: cannot resize {type.name} array")
    old_alloc_size = ALIGN(type.max * SIZEOF_MEMBLOCK_REGION, PAGE_SIZE)
    new_size = type.max * SIZEOF_MEMBLOCK_REGION * 2
    new_alloc_size = ALIGN(new_size, PAGE_SIZE)
    if type is not memblock.reserved:
        new_area_start = new_area_size = 0
    limit = memblock.current_limit
    addr = memblock_find_in_range(
        memblock, new_area_start + new_area_size, limit, new_alloc_size, PAGE_SIZE
    )
    if not addr and new_area_size:
        end = min(new_area_start, limit)
        addr = memblock_find_in_range(memblock, 0, end, new_alloc_size, PAGE_SIZE)
    if not addr:
        memblock.warnings.append(
            f"memblock: Failed to double {type.name} array from {type.max} to "
            f"{type.max * 2} entries !"
        )
        return -1
    _dbg(
        memblock,
        f"memblock: {type.name} is doubled to {type.max * 2} at {_range(addr, new_size)}",
        "",
    )
    old_addr = type.addr
    type.addr = addr
    type.max <<= 1
    if old_addr:
        memblock_phys_free(memblock, old_addr, old_alloc_size, "memblock_double_array")
    if memblock_reserve(memblock, addr, new_alloc_size, "memblock_double_array"):
        raise KernelBug("memblock_double_array: the new array cannot be reserved")
    return 0


def memblock_merge_regions(type: MemblockType, start_rgn: int, end_rgn: int) -> None:
    """Merge neighbours among regions @start_rgn - 1 to @end_rgn that touch and are alike.

    :raises KernelBug: if two regions overlap

    Mirrors mm/memblock.c:memblock_merge_regions().
    """
    regions = type.regions
    i = start_rgn - 1 if start_rgn > 0 else 0
    end_rgn = min(end_rgn, len(regions) - 1)
    while i < end_rgn:
        this, next = regions[i], regions[i + 1]
        if this.end != next.base or this.nid != next.nid or this.flags != next.flags:
            if this.end > next.base:
                raise KernelBug(f"memblock: {type.name} regions overlap: {this} {next}")
            i += 1
            continue
        this.size += next.size
        del regions[i + 1]
        end_rgn -= 1


def memblock_insert_region(
    type: MemblockType, idx: int, base: int, size: int, nid: int, flags: int
) -> None:
    """Insert a region at @idx.

    :raises KernelBug: if the array is full

    Mirrors mm/memblock.c:memblock_insert_region().
    """
    if type.cnt >= type.max:
        raise KernelBug(f"memblock: {type.name} array is full ({type.max} regions)")
    type.regions.insert(idx, MemblockRegion(base, size, flags, nid))
    type.total_size += size


def _insert_uncovered(
    memblock: Memblock, type: MemblockType, base: int, end: int, nid: int, flags: int, insert: bool
) -> tuple[int, int, int]:
    """One round of memblock_add_range(): count, or insert, what no region covers yet."""
    idx = nr_new = 0
    start_rgn = end_rgn = -1
    while idx < type.cnt:
        rgn = type.regions[idx]
        rbase, rend = rgn.base, rgn.end
        if rbase >= end:
            break
        if rend <= base:
            idx += 1
            continue
        if rbase > base:
            if nid != rgn.nid or flags != rgn.flags:
                memblock.warnings.append(
                    f"WARNING: memblock_add_range: {type.name} {_range(base, rbase - base)} "
                    f"nid={nid} flags={flags:#x} meets nid={rgn.nid} flags={rgn.flags:#x}"
                )
            nr_new += 1
            if insert:
                start_rgn = idx if start_rgn == -1 else start_rgn
                end_rgn = idx + 1
                memblock_insert_region(type, idx, base, rbase - base, nid, flags)
                idx += 1
        base = min(rend, end)
        idx += 1
    if base < end:
        nr_new += 1
        if insert:
            start_rgn = idx if start_rgn == -1 else start_rgn
            end_rgn = idx + 1
            memblock_insert_region(type, idx, base, end - base, nid, flags)
    return nr_new, start_rgn, end_rgn


def memblock_add_range(
    memblock: Memblock, type: MemblockType, base: int, size: int, nid: int, flags: int
) -> int:
    """Add a range to @type. Where it overlaps regions, those stay as they are.

    Two rounds: the first counts the regions that are needed and doubles the array for them, the
    second inserts; the first is skipped when even the worst case fits.

    :return: 0, or -ENOMEM

    Mirrors mm/memblock.c:memblock_add_range().
    """
    _check_range("memblock_add_range", base, size)
    size = memblock_cap_size(base, size)
    end = base + size
    if not size:
        return 0
    if not type.cnt:
        type.regions.append(MemblockRegion(base, size, flags, nid))
        type.total_size = size
        return 0
    if type.cnt * 2 + 1 > type.max:
        nr_new = _insert_uncovered(memblock, type, base, end, nid, flags, False)[0]
        if not nr_new:
            return 0
        while type.cnt + nr_new > type.max:
            if memblock_double_array(memblock, type, base, size) < 0:
                return -ENOMEM
    nr_new, start_rgn, end_rgn = _insert_uncovered(memblock, type, base, end, nid, flags, True)
    if nr_new:
        memblock_merge_regions(type, start_rgn, end_rgn)
    return 0


def memblock_add_node(
    memblock: Memblock, base: int, size: int, nid: int, flags: int = 0, caller: str = ""
) -> int:
    """Add memory of node @nid.

    Mirrors mm/memblock.c:memblock_add_node().
    """
    _dbg(memblock, f"memblock_add_node: {_range(base, size)} nid={nid} flags={flags:x}", caller)
    return memblock_add_range(memblock, memblock.memory, base, size, nid, flags)


def memblock_add(memblock: Memblock, base: int, size: int, caller: str = "") -> int:
    """Add memory whose node is not known yet.

    Mirrors mm/memblock.c:memblock_add().
    """
    _dbg(memblock, f"memblock_add: {_range(base, size)}", caller)
    return memblock_add_range(memblock, memblock.memory, base, size, MAX_NUMNODES, 0)


def memblock_validate_numa_coverage(memblock: Memblock, threshold_bytes: int) -> bool:
    """Tell whether at most @threshold_bytes of memory belong to no node.

    Mirrors mm/memblock.c:memblock_validate_numa_coverage().
    """
    nr_pages = 0
    for start_pfn, end_pfn, nid in for_each_mem_pfn_range(memblock, MAX_NUMNODES):
        if not numa_valid_node(nid):
            nr_pages += end_pfn - start_pfn
    if nr_pages << PAGE_SHIFT > threshold_bytes:
        memblock.pr_info(
            f"NUMA: no nodes coverage for {nr_pages << PAGE_SHIFT >> 20}MB of "
            f"{memblock.memory.total_size >> 20}MB RAM"
        )
        return False
    return True


def memblock_isolate_range(
    memblock: Memblock, type: MemblockType, base: int, size: int
) -> tuple[int, int, int]:
    """Split regions so that none crosses an end of the range.

    :return: (0 or -ENOMEM, first region inside the range, first region after it)

    Mirrors mm/memblock.c:memblock_isolate_range().
    """
    _check_range("memblock_isolate_range", base, size)
    size = memblock_cap_size(base, size)
    end = base + size
    start_rgn = end_rgn = 0
    if not size:
        return 0, 0, 0
    while type.cnt + 2 > type.max:
        if memblock_double_array(memblock, type, base, size) < 0:
            return -ENOMEM, 0, 0
    idx = 0
    while idx < type.cnt:
        rgn = type.regions[idx]
        rbase, rend = rgn.base, rgn.end
        if rbase >= end:
            break
        if rend <= base:
            idx += 1
        elif rbase < base:
            rgn.base = base
            rgn.size -= base - rbase
            type.total_size -= base - rbase
            memblock_insert_region(type, idx, rbase, base - rbase, rgn.nid, rgn.flags)
            idx += 1
        elif rend > end:
            rgn.base = end
            rgn.size -= end - rbase
            type.total_size -= end - rbase
            memblock_insert_region(type, idx, rbase, end - rbase, rgn.nid, rgn.flags)
        else:
            if not end_rgn:
                start_rgn = idx
            end_rgn = idx + 1
            idx += 1
    return 0, start_rgn, end_rgn


def memblock_remove_range(memblock: Memblock, type: MemblockType, base: int, size: int) -> int:
    """Take a range out of @type.

    :return: 0, or -ENOMEM

    Mirrors mm/memblock.c:memblock_remove_range().
    """
    ret, start_rgn, end_rgn = memblock_isolate_range(memblock, type, base, size)
    if ret:
        return ret
    for i in range(end_rgn - 1, start_rgn - 1, -1):
        memblock_remove_region(type, i)
    return 0


def memblock_remove(memblock: Memblock, base: int, size: int, caller: str = "") -> int:
    """Take a range out of ``memory``.

    Mirrors mm/memblock.c:memblock_remove().
    """
    _dbg(memblock, f"memblock_remove: {_range(base, size)}", caller)
    return memblock_remove_range(memblock, memblock.memory, base, size)


def memblock_phys_free(memblock: Memblock, base: int, size: int, caller: str = "") -> int:
    """Give a range back to memblock. Nothing reaches the buddy allocator.

    Mirrors mm/memblock.c:memblock_phys_free().
    """
    _dbg(memblock, f"memblock_phys_free: {_range(base, size)}", caller)
    return memblock_remove_range(memblock, memblock.reserved, base, size)


def memblock_free(memblock: Memblock, ptr: int | None, size: int, caller: str = "") -> None:
    """Give back what memblock_alloc() returned.

    Mirrors mm/memblock.c:memblock_free().
    """
    if ptr:
        memblock_phys_free(memblock, ptr, size, caller)


def memblock_reserve(memblock: Memblock, base: int, size: int, caller: str = "") -> int:
    """Mark a range as taken, whether or not it is memory.

    Mirrors mm/memblock.c:memblock_reserve().
    """
    _dbg(memblock, f"memblock_reserve: {_range(base, size)}", caller)
    return memblock_add_range(memblock, memblock.reserved, base, size, MAX_NUMNODES, 0)


def memblock_setclr_flag(
    memblock: Memblock, type: MemblockType, base: int, size: int, set: bool, flag: int
) -> int:
    """Set or clear a flag on exactly the range, splitting regions at its ends.

    Mirrors mm/memblock.c:memblock_setclr_flag().
    """
    ret, start_rgn, end_rgn = memblock_isolate_range(memblock, type, base, size)
    if ret:
        return ret
    for r in type.regions[start_rgn:end_rgn]:
        r.flags = r.flags | flag if set else r.flags & ~flag
    memblock_merge_regions(type, start_rgn, end_rgn)
    return 0


def memblock_mark_hotplug(memblock: Memblock, base: int, size: int) -> int:
    """Mark memory that firmware says may be unplugged.

    Mirrors mm/memblock.c:memblock_mark_hotplug().
    """
    return memblock_setclr_flag(memblock, memblock.memory, base, size, True, MEMBLOCK_HOTPLUG)


def memblock_clear_hotplug(memblock: Memblock, base: int, size: int) -> int:
    """Undo memblock_mark_hotplug().

    Mirrors mm/memblock.c:memblock_clear_hotplug().
    """
    return memblock_setclr_flag(memblock, memblock.memory, base, size, False, MEMBLOCK_HOTPLUG)


def memblock_mark_mirror(memblock: Memblock, base: int, size: int) -> int:
    """Mark mirrored memory; without kernelcore=mirror nothing happens.

    Mirrors mm/memblock.c:memblock_mark_mirror().
    """
    if not memblock.mirrored_kernelcore:
        return 0
    memblock.system_has_some_mirror = True
    return memblock_setclr_flag(memblock, memblock.memory, base, size, True, MEMBLOCK_MIRROR)


def memblock_mark_nomap(memblock: Memblock, base: int, size: int) -> int:
    """Mark memory that the direct mapping must leave out.

    Mirrors mm/memblock.c:memblock_mark_nomap().
    """
    return memblock_setclr_flag(memblock, memblock.memory, base, size, True, MEMBLOCK_NOMAP)


def memblock_clear_nomap(memblock: Memblock, base: int, size: int) -> int:
    """Undo memblock_mark_nomap().

    Mirrors mm/memblock.c:memblock_clear_nomap().
    """
    return memblock_setclr_flag(memblock, memblock.memory, base, size, False, MEMBLOCK_NOMAP)


def memblock_reserved_mark_noinit(memblock: Memblock, base: int, size: int) -> int:
    """Mark reserved memory whose struct pages are somebody else's to initialise.

    Mirrors mm/memblock.c:memblock_reserved_mark_noinit().
    """
    return memblock_setclr_flag(memblock, memblock.reserved, base, size, True, MEMBLOCK_RSRV_NOINIT)


def should_skip_region(
    memblock: Memblock, type: MemblockType, m: MemblockRegion, nid: int, flags: int
) -> bool:
    """Tell whether an iteration for node @nid and @flags passes over region @m.

    Mirrors mm/memblock.c:should_skip_region().
    """
    if type is not memblock.memory:
        return False
    if numa_valid_node(nid) and nid != m.nid:
        return True
    if memblock.movable_node_enabled and m.flags & MEMBLOCK_HOTPLUG:
        if not flags & MEMBLOCK_HOTPLUG:
            return True
    if flags & MEMBLOCK_MIRROR and not m.flags & MEMBLOCK_MIRROR:
        return True
    if not flags & MEMBLOCK_NOMAP and m.flags & MEMBLOCK_NOMAP:
        return True
    return bool(not flags & MEMBLOCK_DRIVER_MANAGED and m.flags & MEMBLOCK_DRIVER_MANAGED)


def _gap(type_b: MemblockType, idx_b: int) -> tuple[int, int]:
    """Return the range before region @idx_b of @type_b."""
    r_start = type_b.regions[idx_b - 1].end if idx_b else 0
    return r_start, type_b.regions[idx_b].base if idx_b < type_b.cnt else PHYS_ADDR_MAX


def __next_mem_range(
    memblock: Memblock,
    idx: int,
    nid: int,
    flags: int,
    type_a: MemblockType,
    type_b: MemblockType | None,
) -> tuple[int, int, int, int]:
    """Return the next range of @type_a that @type_b does not cover.

    :param idx: ``u64``; low 32 bits index @type_a, high 32 bits the gaps of @type_b, where gap i
        lies before region i; 0 to start
    :return: (next idx, start, end, nid); idx is ULLONG_MAX when there is no more

    Mirrors mm/memblock.c:__next_mem_range().
    """
    idx_a = idx & 0xFFFFFFFF
    idx_b = idx >> 32
    while idx_a < type_a.cnt:
        m = type_a.regions[idx_a]
        if should_skip_region(memblock, type_a, m, nid, flags):
            idx_a += 1
            continue
        if type_b is None:
            return idx_a + 1 | idx_b << 32, m.base, m.end, m.nid
        while idx_b < type_b.cnt + 1:
            r_start, r_end = _gap(type_b, idx_b)
            if r_start >= m.end:
                break
            if m.base < r_end:
                out = max(m.base, r_start), min(m.end, r_end), m.nid
                if m.end <= r_end:
                    idx_a += 1
                else:
                    idx_b += 1
                return idx_a | idx_b << 32, *out
            idx_b += 1
        idx_a += 1
    return ULLONG_MAX, 0, 0, NUMA_NO_NODE


def __next_mem_range_rev(
    memblock: Memblock,
    idx: int,
    nid: int,
    flags: int,
    type_a: MemblockType,
    type_b: MemblockType | None,
) -> tuple[int, int, int, int]:
    """Return the range before the last one returned; start with ULLONG_MAX.

    Mirrors mm/memblock.c:__next_mem_range_rev().
    """
    idx_a = idx & 0xFFFFFFFF
    idx_b = idx >> 32
    if idx_a > 0x7FFFFFFF:
        idx_a -= 1 << 32  # an int in the kernel: -1 after the first region
    if idx == ULLONG_MAX:
        idx_a = type_a.cnt - 1
        idx_b = type_b.cnt if type_b is not None else 0
    while idx_a >= 0:
        m = type_a.regions[idx_a]
        if should_skip_region(memblock, type_a, m, nid, flags):
            idx_a -= 1
            continue
        if type_b is None:
            return idx_a - 1 & 0xFFFFFFFF | idx_b << 32, m.base, m.end, m.nid
        while idx_b >= 0:
            r_start, r_end = _gap(type_b, idx_b)
            if r_end <= m.base:
                break
            if m.end > r_start:
                out = max(m.base, r_start), min(m.end, r_end), m.nid
                if m.base >= r_start:
                    idx_a -= 1
                else:
                    idx_b -= 1
                return idx_a & 0xFFFFFFFF | (idx_b & 0xFFFFFFFF) << 32, *out
            idx_b -= 1
        idx_a -= 1
    return ULLONG_MAX, 0, 0, NUMA_NO_NODE


def for_each_free_mem_range(
    memblock: Memblock, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE
) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, nid) of each free range, lowest first.

    Mirrors include/linux/memblock.h:for_each_free_mem_range().
    """
    idx = 0
    while True:
        idx, start, end, out_nid = __next_mem_range(
            memblock, idx, nid, flags, memblock.memory, memblock.reserved
        )
        if idx == ULLONG_MAX:
            return
        yield start, end, out_nid


def for_each_free_mem_range_reverse(
    memblock: Memblock, nid: int = NUMA_NO_NODE, flags: int = MEMBLOCK_NONE
) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, nid) of each free range, highest first.

    Mirrors include/linux/memblock.h:for_each_free_mem_range_reverse().
    """
    idx = ULLONG_MAX
    while True:
        idx, start, end, out_nid = __next_mem_range_rev(
            memblock, idx, nid, flags, memblock.memory, memblock.reserved
        )
        if idx == ULLONG_MAX:
            return
        yield start, end, out_nid


def for_each_mem_range(memblock: Memblock) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, nid) of each memory region, whatever is reserved in it.

    Mirrors include/linux/memblock.h:for_each_mem_range().
    """
    for r in memblock.memory.regions:
        if not should_skip_region(
            memblock, memblock.memory, r, NUMA_NO_NODE, MEMBLOCK_HOTPLUG | MEMBLOCK_DRIVER_MANAGED
        ):
            yield r.base, r.end, r.nid


def __next_mem_pfn_range(memblock: Memblock, idx: int, nid: int) -> tuple[int, int, int, int]:
    """Return the next memory region of @nid (any node if it names none) in whole pages.

    :return: (index of the region, first pfn, pfn after the last, nid); the index is -1 at the end

    Mirrors mm/memblock.c:__next_mem_pfn_range().
    """
    regions = memblock.memory.regions
    for i in range(idx + 1, len(regions)):
        r = regions[i]
        start_pfn, end_pfn = PFN_UP(r.base), PFN_DOWN(r.end)
        if start_pfn < end_pfn and (not numa_valid_node(nid) or nid == r.nid):
            return i, start_pfn, end_pfn, r.nid
    return -1, 0, 0, NUMA_NO_NODE


def for_each_mem_pfn_range(memblock: Memblock, nid: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first pfn, pfn after the last, nid) of each memory region of @nid.

    Mirrors include/linux/memblock.h:for_each_mem_pfn_range().
    """
    i = -1
    while True:
        i, start_pfn, end_pfn, r_nid = __next_mem_pfn_range(memblock, i, nid)
        if i < 0:
            return
        yield start_pfn, end_pfn, r_nid


def memblock_set_node(
    memblock: Memblock, base: int, size: int, type: MemblockType, nid: int
) -> int:
    """Say which node a range of @type belongs to, splitting regions at its ends.

    Mirrors mm/memblock.c:memblock_set_node().
    """
    ret, start_rgn, end_rgn = memblock_isolate_range(memblock, type, base, size)
    if ret:
        return ret
    for r in type.regions[start_rgn:end_rgn]:
        r.nid = nid
    memblock_merge_regions(type, start_rgn, end_rgn)
    return 0


def memblock_alloc_range_nid(
    memblock: Memblock, size: int, align: int, start: int, end: int, nid: int, exact_nid: bool
) -> int:
    """Find and reserve @size bytes: on @nid, then anywhere, then in memory that is not mirrored.

    :return: ``phys_addr_t``; 0 when nothing fits
    :raises KernelBug: once the slab allocator is up, where the kernel warns

    Mirrors mm/memblock.c:memblock_alloc_range_nid().
    Simplified: a late call is an error; the kernel serves it from kzalloc_node().
    """
    if memblock.slab_is_available:
        raise KernelBug("WARNING: memblock_alloc_range_nid: slab is available, memblock is gone")
    if size < 0 or align < 0 or align & (align - 1):
        raise UsageError(f"memblock: size {size} and align {align}: align is a power of two or 0")
    flags = choose_memblock_flags(memblock)
    align = align or SMP_CACHE_BYTES
    caller = "memblock_alloc_range_nid+0xbd/0x180"
    while True:
        found = memblock_find_in_range_node(memblock, size, align, start, end, nid, flags)
        if found and not memblock_reserve(memblock, found, size, caller):
            return found
        if numa_valid_node(nid) and not exact_nid:
            found = memblock_find_in_range_node(
                memblock, size, align, start, end, NUMA_NO_NODE, flags
            )
            elsewhere = "memblock_alloc_range_nid+0x101/0x180"
            if found and not memblock_reserve(memblock, found, size, elsewhere):
                return found
        if not flags & MEMBLOCK_MIRROR:
            return 0
        flags &= ~MEMBLOCK_MIRROR
        _warn_mirror(memblock, size)


def memblock_phys_alloc_range(
    memblock: Memblock, size: int, align: int, start: int, end: int, caller: str = ""
) -> int:
    """Allocate @size bytes between @start and @end.

    :return: ``phys_addr_t``; 0 when nothing fits

    Mirrors mm/memblock.c:memblock_phys_alloc_range().
    """
    _dbg(
        memblock,
        f"memblock_phys_alloc_range: {size} bytes align=0x{align:x} from=0x{start:016x} "
        f"max_addr=0x{end:016x}",
        caller,
    )
    return memblock_alloc_range_nid(memblock, size, align, start, end, NUMA_NO_NODE, False)


def memblock_phys_alloc_try_nid(memblock: Memblock, size: int, align: int, nid: int) -> int:
    """Allocate on node @nid, elsewhere if it has no room. Not logged.

    Mirrors mm/memblock.c:memblock_phys_alloc_try_nid().
    """
    return memblock_alloc_range_nid(memblock, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, nid, False)


def memblock_alloc_internal(
    memblock: Memblock,
    size: int,
    align: int,
    min_addr: int,
    max_addr: int,
    nid: int,
    exact_nid: bool,
) -> int | None:
    """Allocate within limits, dropping the lower one if need be.

    Mirrors mm/memblock.c:memblock_alloc_internal().
    """
    max_addr = min(max_addr, memblock.current_limit)
    alloc = memblock_alloc_range_nid(memblock, size, align, min_addr, max_addr, nid, exact_nid)
    if not alloc and min_addr:
        alloc = memblock_alloc_range_nid(memblock, size, align, 0, max_addr, nid, exact_nid)
    return alloc or None


def _alloc_dbg(
    memblock: Memblock, name: str, size: int, align: int, nid: int, lo: int, hi: int, caller: str
) -> None:
    _dbg(
        memblock,
        f"{name}: {size} bytes align=0x{align:x} nid={nid} from=0x{lo:016x} max_addr=0x{hi:016x}",
        caller,
    )


def memblock_alloc_exact_nid_raw(
    memblock: Memblock,
    size: int,
    align: int,
    min_addr: int,
    max_addr: int,
    nid: int,
    caller: str = "",
) -> int | None:
    """Allocate on node @nid and nowhere else; None when it has no room.

    Mirrors mm/memblock.c:memblock_alloc_exact_nid_raw().
    """
    name = "memblock_alloc_exact_nid_raw"
    _alloc_dbg(memblock, name, size, align, nid, min_addr, max_addr, caller)
    return memblock_alloc_internal(memblock, size, align, min_addr, max_addr, nid, True)


def memblock_alloc_try_nid_raw(
    memblock: Memblock,
    size: int,
    align: int,
    min_addr: int,
    max_addr: int,
    nid: int,
    caller: str = "",
) -> int | None:
    """Allocate, preferably on node @nid, without zeroing.

    Mirrors mm/memblock.c:memblock_alloc_try_nid_raw().
    """
    name = "memblock_alloc_try_nid_raw"
    _alloc_dbg(memblock, name, size, align, nid, min_addr, max_addr, caller)
    return memblock_alloc_internal(memblock, size, align, min_addr, max_addr, nid, False)


def memblock_alloc_try_nid(
    memblock: Memblock,
    size: int,
    align: int,
    min_addr: int,
    max_addr: int,
    nid: int,
    caller: str = "",
) -> int | None:
    """Allocate zeroed memory, preferably on node @nid.

    Mirrors mm/memblock.c:memblock_alloc_try_nid().
    Simplified: memory has no contents here.
    """
    name = "memblock_alloc_try_nid"
    _alloc_dbg(memblock, name, size, align, nid, min_addr, max_addr, caller)
    return memblock_alloc_internal(memblock, size, align, min_addr, max_addr, nid, False)


def memblock_alloc(memblock: Memblock, size: int, align: int, caller: str = "") -> int | None:
    """Allocate anywhere below ``current_limit``.

    Mirrors include/linux/memblock.h:memblock_alloc().
    """
    return memblock_alloc_try_nid(
        memblock,
        size,
        align,
        MEMBLOCK_LOW_LIMIT,
        MEMBLOCK_ALLOC_ACCESSIBLE,
        NUMA_NO_NODE,
        caller,
    )


def memblock_alloc_from(
    memblock: Memblock, size: int, align: int, min_addr: int, caller: str = ""
) -> int | None:
    """Allocate, above @min_addr if possible.

    Mirrors include/linux/memblock.h:memblock_alloc_from().
    """
    return memblock_alloc_try_nid(
        memblock, size, align, min_addr, MEMBLOCK_ALLOC_ACCESSIBLE, NUMA_NO_NODE, caller
    )


def memblock_alloc_low(memblock: Memblock, size: int, align: int, caller: str = "") -> int | None:
    """Allocate below 4 GiB.

    Mirrors include/linux/memblock.h:memblock_alloc_low().
    """
    return memblock_alloc_try_nid(
        memblock, size, align, MEMBLOCK_LOW_LIMIT, 0xFFFFFFFF, NUMA_NO_NODE, caller
    )


def memblock_alloc_node(
    memblock: Memblock, size: int, align: int, nid: int, caller: str = ""
) -> int | None:
    """Allocate, on node @nid if possible.

    Mirrors include/linux/memblock.h:memblock_alloc_node().
    """
    return memblock_alloc_try_nid(
        memblock, size, align, MEMBLOCK_LOW_LIMIT, MEMBLOCK_ALLOC_ACCESSIBLE, nid, caller
    )


def memblock_phys_alloc(memblock: Memblock, size: int, align: int, caller: str = "") -> int:
    """Allocate anywhere below ``current_limit``; 0 when nothing fits.

    Mirrors include/linux/memblock.h:memblock_phys_alloc().
    """
    return memblock_phys_alloc_range(memblock, size, align, 0, MEMBLOCK_ALLOC_ACCESSIBLE, caller)


def memblock_phys_mem_size(memblock: Memblock) -> int:
    """Return the size of all memory in bytes. memblock_trim_memory() leaves it as it was.

    Mirrors mm/memblock.c:memblock_phys_mem_size().
    """
    return memblock.memory.total_size


def memblock_reserved_size(memblock: Memblock) -> int:
    """Return the size of all reservations in bytes.

    Mirrors mm/memblock.c:memblock_reserved_size().
    """
    return memblock.reserved.total_size


def memblock_estimated_nr_free_pages(memblock: Memblock) -> int:
    """Return memory minus reservations, in pages.

    Mirrors mm/memblock.c:memblock_estimated_nr_free_pages().
    """
    return memblock_phys_mem_size(memblock) - memblock_reserved_size(memblock) >> PAGE_SHIFT


def memblock_start_of_DRAM(memblock: Memblock) -> int:
    """Return the lowest address of memory.

    Mirrors mm/memblock.c:memblock_start_of_DRAM().
    """
    return memblock.memory.regions[0].base if memblock.memory.cnt else 0


def memblock_end_of_DRAM(memblock: Memblock) -> int:
    """Return the address after the highest memory.

    Mirrors mm/memblock.c:memblock_end_of_DRAM().
    """
    return memblock.memory.regions[-1].end if memblock.memory.cnt else 0


def __find_max_addr(memblock: Memblock, limit: int) -> int:
    """Return the address up to which there are @limit bytes; PHYS_ADDR_MAX if there are fewer.

    Mirrors mm/memblock.c:__find_max_addr().
    """
    for r in memblock.memory.regions:
        if limit <= r.size:
            return r.base + limit
        limit -= r.size
    return PHYS_ADDR_MAX


def memblock_enforce_memory_limit(memblock: Memblock, limit: int) -> None:
    """Forget memory and reservations behind the first @limit bytes.

    Mirrors mm/memblock.c:memblock_enforce_memory_limit().
    """
    max_addr = __find_max_addr(memblock, limit) if limit else PHYS_ADDR_MAX
    if max_addr == PHYS_ADDR_MAX:
        return
    memblock_remove_range(memblock, memblock.memory, max_addr, PHYS_ADDR_MAX)
    memblock_remove_range(memblock, memblock.reserved, max_addr, PHYS_ADDR_MAX)


def memblock_cap_memory_range(memblock: Memblock, base: int, size: int) -> None:
    """Forget memory outside the range, except NOMAP regions.

    Mirrors mm/memblock.c:memblock_cap_memory_range().
    """
    if not size:
        return
    memory = memblock.memory
    if not memory.total_size:
        memblock.warnings.append("memblock_cap_memory_range: No memory registered yet")
        return
    ret, start_rgn, end_rgn = memblock_isolate_range(memblock, memory, base, size)
    if ret:
        return
    for i in [*range(memory.cnt - 1, end_rgn - 1, -1), *range(start_rgn - 1, -1, -1)]:
        if not memory.regions[i].flags & MEMBLOCK_NOMAP:
            memblock_remove_region(memory, i)
    memblock_remove_range(memblock, memblock.reserved, 0, base)
    memblock_remove_range(memblock, memblock.reserved, base + size, PHYS_ADDR_MAX)


def memblock_mem_limit_remove_map(memblock: Memblock, limit: int) -> None:
    """Forget memory behind the first @limit bytes, except NOMAP regions.

    Mirrors mm/memblock.c:memblock_mem_limit_remove_map().
    """
    max_addr = __find_max_addr(memblock, limit) if limit else PHYS_ADDR_MAX
    if max_addr != PHYS_ADDR_MAX:
        memblock_cap_memory_range(memblock, 0, max_addr)


def memblock_search(type: MemblockType, addr: int) -> int:
    """Return the index of the region that holds @addr, -1 if there is none.

    Mirrors mm/memblock.c:memblock_search().
    """
    left, right = 0, type.cnt
    while left < right:
        mid = (right + left) // 2
        r = type.regions[mid]
        if addr < r.base:
            right = mid
        elif addr >= r.end:
            left = mid + 1
        else:
            return mid
    return -1


def memblock_is_reserved(memblock: Memblock, addr: int) -> bool:
    """Tell whether @addr is reserved.

    Mirrors mm/memblock.c:memblock_is_reserved().
    """
    return memblock_search(memblock.reserved, addr) != -1


def memblock_is_memory(memblock: Memblock, addr: int) -> bool:
    """Tell whether @addr is memory.

    Mirrors mm/memblock.c:memblock_is_memory().
    """
    return memblock_search(memblock.memory, addr) != -1


def memblock_is_map_memory(memblock: Memblock, addr: int) -> bool:
    """Tell whether @addr is memory that the direct mapping covers.

    Mirrors mm/memblock.c:memblock_is_map_memory().
    """
    i = memblock_search(memblock.memory, addr)
    return i != -1 and not memblock.memory.regions[i].flags & MEMBLOCK_NOMAP


def memblock_search_pfn_nid(memblock: Memblock, pfn: int) -> int:
    """Return the node of the memory region that holds @pfn, NUMA_NO_NODE if none does.

    Simplified: the region's ends are not returned.

    Mirrors mm/memblock.c:memblock_search_pfn_nid().
    """
    mid = memblock_search(memblock.memory, pfn << PAGE_SHIFT)
    return NUMA_NO_NODE if mid == -1 else memblock.memory.regions[mid].nid


def memblock_is_region_memory(memblock: Memblock, base: int, size: int) -> bool:
    """Tell whether the whole range lies in one memory region.

    Mirrors mm/memblock.c:memblock_is_region_memory().
    """
    idx = memblock_search(memblock.memory, base)
    end = base + memblock_cap_size(base, size)
    return idx != -1 and memblock.memory.regions[idx].end >= end


def memblock_is_region_reserved(memblock: Memblock, base: int, size: int) -> bool:
    """Tell whether any byte of the range is reserved.

    Mirrors mm/memblock.c:memblock_is_region_reserved().
    """
    return memblock_overlaps_region(memblock.reserved, base, size)


def memblock_trim_memory(memblock: Memblock, align: int) -> None:
    """Shrink each memory region to multiples of @align and drop those that vanish.

    ``total_size`` keeps the bytes that a region loses, so that "memory size" in the kernel's log
    may exceed the sum of the regions.

    Mirrors mm/memblock.c:memblock_trim_memory().
    """
    i = 0
    while i < memblock.memory.cnt:
        r = memblock.memory.regions[i]
        start = ALIGN(r.base, align)
        end = r.end & ~(align - 1)
        if start < end:
            r.base, r.size = start, end - start
            i += 1
        else:
            memblock_remove_region(memblock.memory, i)


def memblock_set_current_limit(memblock: Memblock, limit: int) -> None:
    """Set the address that no allocation may pass.

    Mirrors mm/memblock.c:memblock_set_current_limit().
    """
    memblock.current_limit = limit


def memblock_set_bottom_up(memblock: Memblock, enable: bool) -> None:
    """Choose the direction of searches.

    Mirrors include/linux/memblock.h:memblock_set_bottom_up().
    """
    memblock.bottom_up = enable


def memblock_dump(memblock: Memblock, type: MemblockType) -> None:
    """Log the regions of @type.

    Mirrors mm/memblock.c:memblock_dump().
    """
    memblock.pr_info(f" {type.name}.cnt  = 0x{type.cnt:x}")
    for idx, r in enumerate(type.regions):
        nid_buf = f" on node {r.nid}" if numa_valid_node(r.nid) else ""
        memblock.pr_info(
            f" {type.name}[{idx:#x}]\t{_range(r.base, r.size)}, "
            f"0x{r.size:016x} bytes{nid_buf} flags: {r.flags:#x}"
        )


def memblock_dump_all(memblock: Memblock) -> None:
    """Log both arrays, with memblock=debug.

    Mirrors mm/memblock.c:memblock_dump_all().
    """
    if not memblock.debug:
        return
    memblock.pr_info("MEMBLOCK configuration:")
    memblock.pr_info(
        f" memory size = 0x{memblock.memory.total_size:016x} "
        f"reserved size = 0x{memblock.reserved.total_size:016x}"
    )
    memblock_dump(memblock, memblock.memory)
    memblock_dump(memblock, memblock.reserved)


def memblock_debug_show(type: MemblockType) -> str:
    """Return the text of /sys/kernel/debug/memblock/``memory`` or ``reserved``.

    The file exists only in kernels that keep memblock (ARCH_KEEP_MEMBLOCK), which x86 does not.

    Mirrors mm/memblock.c:memblock_debug_show().
    """
    lines = []
    for i, r in enumerate(type.regions):
        node = f"{r.nid:4d} " if numa_valid_node(r.nid) else "   x "
        names = [
            MEMBLOCK_FLAG_NAMES.get(1 << j, "UNKNOWN")
            for j in range(r.flags.bit_length())
            if r.flags >> j & 1
        ]
        flags = "|".join(names) or "NONE"
        lines.append(f"{i:4d}: 0x{r.base:016x}..0x{r.end - 1:016x} {node}{flags}\n")
    return "".join(lines)


def memblock_allow_resize(memblock: Memblock) -> None:
    """Allow the arrays to grow, once all that must not be overwritten is reserved.

    Mirrors mm/memblock.c:memblock_allow_resize().
    """
    memblock.can_resize = True


def free_blocks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (pfn, order) of the blocks in which a range of pages is handed to the buddy allocator.

    Each is the largest that the alignment of its first page and the end of the range allow.

    Mirrors mm/memblock.c:__free_pages_memory().
    Simplified: yields the blocks; the caller frees them.
    """
    while start < end:
        order = min(10, (start & -start).bit_length() - 1) if start else 10
        while start + (1 << order) > end:
            order -= 1
        yield start, order
        start += 1 << order


def __free_memory_core(m: Machine, start: int, end: int) -> int:
    """Hand a free range, in bytes, to the buddy allocator and return its size in pages.

    Mirrors mm/memblock.c:__free_memory_core().
    """
    start_pfn = PFN_UP(start)
    end_pfn = min(PFN_DOWN(end), m.max_low_pfn)
    if start_pfn >= end_pfn:
        return 0
    for pfn, order in free_blocks(start_pfn, end_pfn):
        mm_init.memblock_free_pages(m, pfn, order)
    return end_pfn - start_pfn


def memmap_init_reserved_pages(m: Machine) -> None:
    """Give each reserved region the node of the memory it lies in.

    Mirrors mm/memblock.c:memmap_init_reserved_pages().
    Simplified: no struct page is marked PG_reserved; reserved memory has no page objects.
    """
    memblock = m.memblock
    while True:
        max_reserved = memblock.reserved.max
        for r in memblock.memory.regions:
            memblock_set_node(memblock, r.base, r.size, memblock.reserved, r.nid)
        if max_reserved == memblock.reserved.max:
            return


def free_low_memory_core_early(m: Machine) -> int:
    """Hand all free memory to the buddy allocator, lowest range first.

    :return: ``unsigned long``; pages handed over, counting those whose initialisation is deferred

    Mirrors mm/memblock.c:free_low_memory_core_early().
    """
    memblock_clear_hotplug(m.memblock, 0, ULLONG_MAX)
    memmap_init_reserved_pages(m)
    return sum(
        __free_memory_core(m, start, end) for start, end, _ in for_each_free_mem_range(m.memblock)
    )


def reset_all_zones_managed_pages(m: Machine) -> None:
    """Set the managed pages of every zone to 0; until here they equal the present pages.

    Simplified: a second call does it again.

    Mirrors mm/memblock.c:reset_all_zones_managed_pages().
    """
    for nid in sorted(m.node_data):
        for zone in m.node_data[nid].node_zones:
            zone.managed_pages = 0


def memblock_free_all(m: Machine) -> None:
    """Release all free memory to the buddy allocator.

    Simplified: no free_unused_memmap(), which does nothing with SPARSEMEM_VMEMMAP.

    Mirrors mm/memblock.c:memblock_free_all().
    """
    reset_all_zones_managed_pages(m)
    m.totalram_pages += free_low_memory_core_early(m)


def memblock_free_late(m: Machine, base: int, size: int, caller: str = "") -> None:
    """Free pages straight to the buddy allocator, one by one.

    Mirrors mm/memblock.c:memblock_free_late().
    """
    _dbg(m.memblock, f"memblock_free_late: {_range(base, size)}", caller)
    for pfn in range(PFN_UP(base), PFN_DOWN(base + size)):
        mm_init.memblock_free_pages(m, pfn, 0)
        m.totalram_pages += 1


def memblock_discard(m: Machine) -> None:
    """Free the region arrays, unless they are still the static ones.

    Mirrors mm/memblock.c:memblock_discard().
    """
    for type in (m.memblock.reserved, m.memblock.memory):
        if type.addr:
            size = ALIGN(SIZEOF_MEMBLOCK_REGION * type.max, PAGE_SIZE)
            memblock_free_late(m, type.addr, size, "memblock_discard")


def reserve_mem(memblock: Memblock, size: int, align: int, name: str) -> int:
    """Do what the boot option ``reserve_mem=size:align:name`` does.

    :return: 1, or -EBUSY (table full, name taken), -EINVAL (no size or name), -ENOMEM

    Simplified: the option's text has been taken apart already.

    Mirrors mm/memblock.c:reserve_mem().
    """
    if len(memblock.reserved_mem_table) >= RESERVE_MEM_MAX_ENTRIES:
        return -EBUSY
    if size <= 0 or not 0 < len(name) < RESERVE_MEM_NAME_SIZE or not name.strip():
        return -EINVAL
    if name in memblock.reserved_mem_table:
        return -EBUSY
    start = memblock_phys_alloc(memblock, size, max(align, SMP_CACHE_BYTES))
    if not start:
        return -ENOMEM
    memblock.reserved_mem_table[name] = (start, size)
    return 1


def validate_memblock(memblock: Memblock) -> None:
    """Check what must hold of both arrays.

    :raises KernelBug: regions unsorted, overlapping or empty; more than the array holds; sizes that
        do not add up (``memory`` may exceed them by what trimming took)
    """
    for type in (memblock.memory, memblock.reserved):
        total = 0
        for i, r in enumerate(type.regions):
            total += r.size
            if r.size <= 0:
                raise KernelBug(f"memblock: {type.name}[{i}] is empty: {r}")
            if i and type.regions[i - 1].end > r.base:
                raise KernelBug(f"memblock: {type.name}[{i}] overlaps its neighbour: {r}")
        if type.cnt > type.max:
            raise KernelBug(f"memblock: {type.name} has {type.cnt} of {type.max} regions")
        if total > type.total_size or (type is memblock.reserved and total != type.total_size):
            raise KernelBug(f"memblock: {type.name} holds {total}, says {type.total_size} bytes")


__all__ = [
    n
    for n, v in list(globals().items())
    if not n.startswith("_") and (n.isupper() or getattr(v, "__module__", None) == __name__)
]
