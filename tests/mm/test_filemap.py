"""The page cache in a fault: minor, major, read errors, locked pages."""

from __future__ import annotations

import pytest

from mmcore.arch.x86.fault import BUS_ADRERR, SigBus, Translation, touch
from mmcore.errors import EIO, UsageError
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine, bare_zone
from mmcore.mm import filemap, memory, shmem
from mmcore.mm.filemap import AddressSpace, File
from mmcore.mm.mm import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, VM_RAND_READ
from mmcore.mm.mmap import *
from mmcore.mm.page_flags import PG_dirty, PG_readahead, PG_uptodate
from mmcore.mm.vmstat import NR_FILE_PAGES, NR_SHMEM

PG = 4096
A = 0x200000000000


@pytest.fixture
def m() -> Machine:
    machine = bare_zone(4096).machine
    spawn(machine, "t")
    return machine


def opened(m: Machine, pages: int, prot: int = 1, flags: int = MAP_SHARED) -> File:
    file = File(AddressSpace(pages * PG, "f"))
    assert do_mmap(m.current.mm, file, A, pages * PG, prot, flags | MAP_FIXED) == A
    return file


def test_a_cold_read_reads_a_window_around_it(m):
    file = opened(m, 256)
    assert isinstance(touch(m, A + 100 * PG), Translation)
    assert sorted(file.f_mapping.i_pages) == list(range(84, 116))
    marked = [i for i, p in file.f_mapping.i_pages.items() if p.flags >> PG_readahead & 1]
    assert marked == [84 + 32 - 8]
    assert m.current.maj_flt == 1


def test_random_access_advice_reads_one_page(m):
    file = opened(m, 256)
    m.current.mm.mm_mt.walk(A).vm_flags |= VM_RAND_READ
    touch(m, A + 100 * PG)
    assert list(file.f_mapping.i_pages) == [100]
    assert m.current.maj_flt == 1


def test_a_read_error_is_sigbus(m):
    file = opened(m, 8)
    file.f_mapping.read_errors[2] = -EIO
    result = touch(m, A + 2 * PG)
    assert isinstance(result, SigBus) and result.si_code == BUS_ADRERR
    assert isinstance(touch(m, A + PG), Translation)
    assert not file.f_mapping.i_pages[2].flags >> PG_uptodate & 1


def test_truncation_makes_the_tail_unreachable(m):
    file = opened(m, 8)
    filemap.populate(m, file.f_mapping, 0, 8)
    file.f_mapping.i_size = 3 * PG + 1
    assert isinstance(touch(m, A + 3 * PG), Translation)
    assert isinstance(touch(m, A + 4 * PG), SigBus)
    assert m.current.mm.rss_stat[MM_FILEPAGES] == 4


def test_a_private_write_copies_at_once(m):
    file = opened(m, 4, 3, MAP_PRIVATE)
    filemap.populate(m, file.f_mapping, 0, 4)
    touch(m, A, "w")
    rss = m.current.mm.rss_stat
    assert (rss[MM_ANONPAGES], rss[MM_FILEPAGES]) == (1, 0)
    touch(m, A + PG)  # a read maps the cached pages around
    assert (rss[MM_ANONPAGES], rss[MM_FILEPAGES]) == (1, 3)
    touch(m, A + PG, "w")
    assert (rss[MM_ANONPAGES], rss[MM_FILEPAGES]) == (2, 2)
    assert not file.f_mapping.i_pages[1].flags >> PG_dirty & 1
    memory.validate_mappings(m)


def test_shared_memory_counts_as_shmem(m):
    assert do_mmap(m.current.mm, None, A, 4 * PG, 3, 0x31) == A
    touch(m, A)
    touch(m, A + PG, "w")
    assert m.current.mm.rss_stat[MM_SHMEMPAGES] == 2
    stat = m.node_data[0].vm_stat
    assert stat[NR_SHMEM] == stat[NR_FILE_PAGES] == 2
    memory.validate_mappings(m)


def test_a_memfd_ends_where_its_size_says(m):
    file = shmem.shmem_file_setup("memfd:m", 2 * PG)
    assert do_mmap(m.current.mm, file, A, 4 * PG, 3, MAP_SHARED | MAP_FIXED) == A
    assert isinstance(touch(m, A + PG, "w"), Translation)
    assert isinstance(touch(m, A + 2 * PG, "w"), SigBus)


@pytest.mark.parametrize(("first", "n"), [(-1, 1), (0, 9), (8, 1), (0, -1)])
def test_populate_refuses_what_is_not_in_the_file(m, first, n):
    with pytest.raises(UsageError, match="are not in a file"):
        filemap.populate(m, AddressSpace(8 * PG), first, n)


def test_removing_a_page_that_is_not_cached(m):
    mapping = AddressSpace(PG)
    filemap.populate(m, mapping, 0, 1)
    folio = mapping.i_pages[0]
    filemap.filemap_remove_folio(mapping, folio)
    with pytest.raises(UsageError, match="not a cached page"):
        filemap.filemap_remove_folio(mapping, folio)
