"""Pages and folios: the unions, the sizes, tails."""

from __future__ import annotations

import sys

import pytest

from mmcore import Machine
from mmcore.errors import UsageError
from mmcore.lib.list import ListHead, list_add, list_del
from mmcore.mm import mm_types as mt
from mmcore.mm import page_flags as pf
from mmcore.mm.mmzone import ZONE_NORMAL, PgData, Zone


@pytest.fixture
def zone() -> Zone:
    machine = Machine()
    pgdat = machine.node_data[0] = PgData(machine, 0)
    zone = Zone(machine, "Normal", ZONE_NORMAL, 0, pgdat, zone_start_pfn=0x100, spanned_pages=0x100)
    pgdat.node_zones.append(zone)
    return zone


def test_page_type_and_mapcount_are_one_word(zone: Zone) -> None:
    page = mt.Page(0x100, zone)
    assert page._mapcount == page.page_type == -1
    page._mapcount += 1
    assert page.page_type == 0 and not pf.PageBuddy(page)
    page.page_type = pf.PAGE_TYPE_BUDDY
    assert page._mapcount == 0xF0000000 and pf.PageBuddy(page)
    assert pf.page_type_name(page.page_type) == "buddy"


def test_a_page_with_its_number_stays_small(zone: Zone) -> None:
    page = mt.Page(1 << 28, zone)
    assert sys.getsizeof(page) + sys.getsizeof(page.pfn) <= 200


def test_a_listed_page_is_no_tail_and_a_tail_finds_its_head(zone: Zone) -> None:
    page, head = mt.Page(0x100, zone), ListHead()
    assert not mt.PageTail(page)
    list_add(page, head)
    assert not mt.PageTail(page)
    list_del(page)

    folio = zone.mem_map[0x120] = mt.Page(0x120, zone)
    folio.folio = mt.LargeFolio(3)
    folio.flags |= 1 << pf.PG_head
    tail = mt.pfn_to_page(zone.machine, 0x127)
    assert mt.PageTail(tail) and mt.page_folio(tail) is folio and mt.compound_head(folio) is folio
    assert mt.folio_order(tail.next) == 3 and mt.folio_nr_pages(folio) == 8
    assert mt.pfn_to_page(zone.machine, 0x127) is tail
    beyond = mt.pfn_to_page(zone.machine, 0x128)
    assert not mt.PageTail(beyond) and mt.page_folio(beyond) is beyond
    assert mt.folio_order(beyond) == 0 and mt.folio_nr_pages(beyond) == 1


def test_large_folio_counts_start_as_in_the_kernel() -> None:
    words = mt.LargeFolio(9)
    assert words._large_mapcount == words._entire_mapcount == -1
    assert words._nr_pages_mapped == 0 and words._folio_nr_pages == 512


def test_pfn_outside_every_zone(zone: Zone) -> None:
    with pytest.raises(UsageError, match="no zone"):
        mt.pfn_to_page(zone.machine, 0x200)


def test_flags_word_layout(zone: Zone) -> None:
    page = mt.Page(0x100, zone)
    page.flags = 1 << pf.PG_uptodate | 1 << pf.PG_dirty
    word = pf.page_flags_word(page)
    assert word >> pf.NODES_PGSHIFT == 0
    assert word >> pf.ZONES_PGSHIFT & 7 == ZONE_NORMAL
    assert word >> pf.LAST_CPUPID_PGSHIFT & 0x1FFFFF == 0x1FFFFF
    assert word & pf.PAGEFLAGS_MASK == page.flags
    assert pf.LRU_REFS_PGOFF >= pf.NR_PAGEFLAGS
    assert (pf.PG_head, pf.PG_waiters) == (6, 7)
    assert pf.flags_str(page.flags) == "uptodate|dirty" and pf.flags_str(0) == "none"
