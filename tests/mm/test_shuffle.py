"""Shuffled free lists."""

from __future__ import annotations

from mmcore.machine import Machine, bare_zone
from mmcore.mm import page_alloc as pa
from mmcore.mm import shuffle
from mmcore.mm.mmzone import MIGRATE_MOVABLE, for_each_populated_zone


def order_10(pages: int, seed: int) -> list[int]:
    zone = bare_zone(pages)
    zone.machine.seed = seed
    zone.machine._streams.clear()
    zone.machine.page_alloc_shuffle_key = True
    shuffle.shuffle_free_memory(zone.zone_pgdat)
    pa.validate_zone(zone)
    return [page.pfn for page in zone.free_area[10].free_list[MIGRATE_MOVABLE]]


def test_shuffling_permutes_the_largest_blocks_by_seed() -> None:
    plain = list(range(0, 64 << 10, 1 << 10))
    assert sorted(order_10(64 << 10, 1)) == plain
    assert order_10(64 << 10, 1) != plain
    assert order_10(64 << 10, 1) == order_10(64 << 10, 1) != order_10(64 << 10, 2)


def test_off_by_default() -> None:
    zone = bare_zone(8 << 10)
    shuffle.shuffle_free_memory(zone.zone_pgdat)
    blocks = [page.pfn for page in zone.free_area[10].free_list[MIGRATE_MOVABLE]]
    assert blocks == list(range(0, 8 << 10, 1 << 10))
    assert not shuffle.is_shuffle_order(zone.machine, 10)


def test_neighbours_on_a_list_swap() -> None:
    for i, j in ((0, 1), (1, 0), (1, 2), (0, 3), (3, 0)):
        zone = bare_zone(4 << 10)
        head = zone.free_area[10].free_list[MIGRATE_MOVABLE]
        pages = list(head)
        shuffle._list_swap(pages[i], pages[j])
        pages[i], pages[j] = pages[j], pages[i]
        assert list(head) == pages
        pa.validate_zone(zone)


def test_freed_blocks_of_order_10_go_to_either_end() -> None:
    m = Machine(seed=3)
    m.page_alloc_shuffle_key = True
    tosses = [shuffle.shuffle_pick_tail(m) for _ in range(64)]
    assert True in tosses and False in tosses
    zone = bare_zone(8 << 10)
    zone.machine.page_alloc_shuffle_key = True
    ends = set()
    for _ in range(40):
        page = pa.__rmqueue_smallest(zone, 10, MIGRATE_MOVABLE)
        assert page is not None
        pa.__free_one_page(page, page.pfn, zone, 10, MIGRATE_MOVABLE, pa.FPI_NONE)
        head = zone.free_area[10].free_list[MIGRATE_MOVABLE]
        ends.add("head" if head.next is page else "tail" if head.prev is page else "?")
    assert ends == {"head", "tail"}


def test_the_boot_option_shuffles_the_free_lists_and_loses_nothing() -> None:
    def order_10_of(option: str) -> list[int]:
        m = Machine.boot("512M", cmdline=option)
        zone = next(z for z in for_each_populated_zone(m) if z.name == "DMA32")
        pa.validate_zone(zone)
        return [page.pfn for page in zone.free_area[10].free_list[MIGRATE_MOVABLE]]

    plain = order_10_of("")
    assert plain == sorted(plain) == order_10_of("page_alloc.shuffle=0")
    for option in ("page_alloc.shuffle=1", "page_alloc.shuffle=on", "page_alloc.shuffle"):
        shuffled = order_10_of(option)
        assert shuffled != plain and sorted(shuffled) == plain
