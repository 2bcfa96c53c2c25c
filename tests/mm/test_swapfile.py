"""Swap areas: which slot is next, how often it is used, and when it is free."""

from __future__ import annotations

import random

import pytest

from mmcore.errors import EEXIST, ENOENT, KernelBug, UsageError
from mmcore.machine import Machine, bare_zone
from mmcore.mm import page_alloc, swap, swap_state, swapfile
from mmcore.mm.gfp import GFP_HIGHUSER_MOVABLE
from mmcore.mm.mm_types import Folio
from mmcore.mm.page_flags import PG_locked, PG_swapbacked, PG_swapcache
from mmcore.mm.swapops import swp_entry, swp_offset, swp_type

MIB = 256


def machine(pages: int = 4096, cpus: int = 1) -> Machine:
    return bare_zone(pages, cpus=cpus).machine


def locked_folio(m: Machine) -> Folio:
    folio = page_alloc.folio_alloc(m, GFP_HIGHUSER_MOVABLE, 0)
    assert folio is not None
    folio.flags |= 1 << PG_locked | 1 << PG_swapbacked
    return folio


def offsets(m: Machine, n: int) -> list[int]:
    folio = locked_folio(m)
    return [swp_offset(swapfile.folio_alloc_swap(m, folio)) for _ in range(n)]


def test_the_first_slots_of_a_fresh_area() -> None:
    m = machine()
    swapfile.swapon(m, 256 * MIB)
    assert offsets(m, 5) == [16384, 16385, 16386, 16387, 16388]
    # Clusters 32, 64, 96, then column 1.
    si = m.swap.swap_info[0]
    assert [ci.index for ci in si.free_clusters][:5] == [64, 96, 1, 33, 65]
    small = machine()
    swapfile.swapon(small, 32 * MIB)
    assert offsets(small, 2) == [512, 513]


def test_a_rotating_disk_is_used_from_its_beginning() -> None:
    m = machine()
    swapfile.swapon(m, 1024, rotational=True)
    # With fewer than 128 slots free the CPU's batch is given back, and the search goes on behind it.
    expected = [*range(1, 834), *range(897, 1024), *range(834, 897)]
    assert offsets(m, 1023) == expected
    assert offsets(m, 1) == [0] and m.nr_swap_pages == 0
    swapfile.validate_swap(m)


def test_areas_of_one_priority_take_turns_by_batches_of_64() -> None:
    m = machine()
    for name in ("a", "b"):
        swapfile.swapon(m, 64 * MIB, name=name, prio=5)
    folio = locked_folio(m)
    kinds = [swp_type(swapfile.folio_alloc_swap(m, folio)) for _ in range(200)]
    assert kinds == [0] * 64 + [1] * 64 + [0] * 64 + [1] * 8


def test_higher_priority_first_and_automatic_ones_in_order() -> None:
    m = machine()
    first, second, best = (
        swapfile.swapon(m, 2048, name="x"),
        swapfile.swapon(m, 2048, name="y"),
        swapfile.swapon(m, 2048, name="z", prio=1),
    )
    assert (first.prio, second.prio, best.prio) == (-2, -3, 1)
    order = [si.name for _, si in m.swap.swap_avail_heads[0]]
    assert order == ["z", "x", "y"]


def test_large_folios_need_clusters_of_their_order() -> None:
    m = machine()
    si = swapfile.swapon(m, 3 * 512)
    assert [swp_offset(e) for e in swapfile.get_swap_pages(m, 1, 4)] == [512]
    assert [swp_offset(e) for e in swapfile.get_swap_pages(m, 1, 0)] == [1024]
    # Clusters 1 and 2 have orders 4 and 0 now; cluster 0 has order 0: nothing for order 9 or 2.
    assert swapfile.get_swap_pages(m, 1, 9) == [] == swapfile.get_swap_pages(m, 1, 2)
    assert [swp_offset(e) for e in swapfile.get_swap_pages(m, 1, 4)] == [528]
    swapfile.validate_swap(m)
    taken = [swp_offset(e) for _ in range(16) for e in swapfile.get_swap_pages(m, 64, 0)]
    # The rest of cluster 2, then cluster 0, then what order 4 has left.
    assert taken[:511] == list(range(1025, 1536))
    assert taken[511:1022] == list(range(1, 512)) and taken[1022] == 544
    swapfile.validate_swap(m)
    assert si.cluster_info[1].order == 4


def test_a_freed_slot_waits_in_the_cpus_cache() -> None:
    m = machine()
    si = swapfile.swapon(m, 4096)
    folio = locked_folio(m)
    entry = swapfile.folio_alloc_swap(m, folio)
    free = m.nr_swap_pages
    swapfile.put_swap_folio(m, folio, entry)
    assert m.nr_swap_pages == free and si.swap_map[swp_offset(entry)] == 0x40
    for _ in range(64):
        other = swapfile.folio_alloc_swap(m, folio)
        swapfile.put_swap_folio(m, folio, other)
    assert m.nr_swap_pages == free and si.swap_map[swp_offset(entry)] == 0  # 64 back, 64 taken


def test_the_byte_of_a_slot() -> None:
    m = machine()
    si = swapfile.swapon(m, 4096)
    folio = locked_folio(m)
    entry = swapfile.folio_alloc_swap(m, folio)
    offset = swp_offset(entry)
    assert swapfile.swapcache_prepare(m, entry, 1) == -EEXIST
    assert swapfile.swapcache_prepare(m, swp_entry(0, 9), 1) == -ENOENT
    values = []
    for _ in range(64):
        assert swapfile.swap_duplicate(m, entry) == 0
        values.append(si.swap_map[offset])
    assert values[:2] == [0x41, 0x42] and values[61:] == [0x7E, 0xC0, 0xC1]
    swapfile.put_swap_folio(m, folio, entry)
    down = []
    for _ in range(63):
        swapfile.swap_free_nr(m, entry)
        down.append(si.swap_map[offset])
    assert down[:3] == [0x80, 0x3E, 0x3D] and down[-1] == 1
    swapfile.swap_free_nr(m, entry)
    assert si.swap_map[offset] == 0x40  # in the cache of freed slots
    with pytest.raises(KernelBug, match="Unused swap offset entry"):
        swapfile.swap_free_nr(m, swp_entry(0, 9))
    with pytest.raises(KernelBug, match="Bad swap offset entry"):
        swapfile.swap_free_nr(m, swp_entry(0, 4096))
    with pytest.raises(KernelBug, match="Bad swap file entry"):
        swapfile.swap_free_nr(m, swp_entry(3, 1))


def test_areas_that_cannot_be() -> None:
    m = machine()
    for pages, bad in ((1, ()), (2, (1,)), (8, (8,)), (8, (0,))):
        with pytest.raises(UsageError):
            swapfile.swapon(m, pages, badpages=bad)
    swapfile.swapon(m, 8, badpages=(3, 3, 5))
    assert m.nr_swap_pages == 5 == m.total_swap_pages
    swapfile.validate_swap(m)


def test_readahead_windows() -> None:
    window = swap_state.swapin_nr_pages
    assert window(0, 100, 3, 8, 8) == 8
    assert window(0, 100, 0, 8, 0) == 1 and window(99, 100, 0, 8, 0) == 2
    assert window(0, 100, 1, 8, 0) == 4 and window(0, 100, 9, 8, 0) == 8
    assert window(0, 100, 0, 8, 8) == 4


@pytest.mark.parametrize("rotational", [False, True])
def test_random_work_keeps_bytes_lists_and_counts_in_agreement(rotational: bool) -> None:
    m = machine(cpus=2)
    swapfile.swapon(m, 2000, rotational=rotational, badpages=(7, 1999))
    if not rotational:
        swapfile.swapon(m, 1030, name="second")
    rng = random.Random(3)
    held: list[tuple[Folio, int]] = []
    for step in range(4000):
        m.this_cpu = rng.randrange(2)
        if rng.random() < 0.56 and len(held) < 3000:
            folio = locked_folio(m)
            if swap_state.add_to_swap(folio):
                folio.flags &= ~(1 << PG_locked)
                swapfile.swap_duplicate(m, folio.private)
                held.append((folio, folio.private))
            else:
                swap.folio_put(folio)
        elif held:
            folio, entry = held.pop(rng.randrange(len(held)))
            cached = folio.flags >> PG_swapcache & 1 and folio.private == entry
            swapfile.free_swap_and_cache(m, entry)
            assert cached and not folio.flags >> PG_swapcache & 1
            swap.folio_put(folio)
        if step % 100 == 0:
            swapfile.validate_swap(m)
    swapfile.validate_swap(m)
    assert held and any(si.inuse_pages > 300 for si in m.swap.swap_info)
