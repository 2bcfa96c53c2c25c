"""Counter tables and their sums."""

from __future__ import annotations

from mmcore import Machine
from mmcore.mm import vmstat as vs
from mmcore.mm.mmzone import PgData, Zone


def test_tables_are_as_long_as_their_enums() -> None:
    assert len(vs.ZONE_STAT_TEXT) == vs.NR_VM_ZONE_STAT_ITEMS
    assert len(vs.NODE_STAT_TEXT) == vs.NR_VM_NODE_STAT_ITEMS
    assert len(vs.VM_EVENT_TEXT) == vs.NR_VM_EVENT_ITEMS
    assert len(set(vs.VMSTAT_TEXT)) == len(vs.VMSTAT_TEXT)
    assert vs.VM_EVENT_TEXT[vs.PGFAULT] == "pgfault"
    assert vs.NODE_STAT_TEXT[vs.NR_PAGETABLE] == "nr_page_table_pages"
    assert vs.ZONE_STAT_TEXT[vs.NR_FREE_PAGES] == "nr_free_pages"


def test_sums_never_go_below_zero() -> None:
    machine = Machine()
    for nid in range(2):
        pgdat = machine.node_data[nid] = PgData(machine, nid)
        pgdat.node_zones.append(Zone(machine, "Normal", 2, nid, pgdat))
    zones = [pgdat.node_zones[0] for pgdat in machine.node_data.values()]
    vs.mod_zone_page_state(zones[0], vs.NR_FREE_PAGES, 5)
    vs.mod_zone_page_state(zones[1], vs.NR_FREE_PAGES, -2)
    assert vs.zone_page_state(zones[1], vs.NR_FREE_PAGES) == 0
    assert vs.global_zone_page_state(machine, vs.NR_FREE_PAGES) == 3
    vs.mod_node_page_state(machine.node_data[0], vs.NR_SHMEM, 4)
    assert vs.global_node_page_state(machine, vs.NR_SHMEM) == 4
    assert vs.node_page_state(machine.node_data[1], vs.NR_SHMEM) == 0
    vs.count_vm_event(machine, vs.PGFREE)
    vs.count_vm_events(machine, vs.PGFREE, 2)
    assert machine.vm_event[vs.PGFREE] == 3
