"""execve(): the recorded layout line by line, what randomisation moves and how far, and the limits of arguments."""

from __future__ import annotations

import dataclasses

import pytest

from mmcore.errors import E2BIG, EINVAL, UsageError
from mmcore.fs import exec as ex
from mmcore.kernel.fork import kernel_clone, spawn, switch_to
from mmcore.machine import Machine
from mmcore.mm import mmap, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import VM_ACCOUNT, VM_GROWSDOWN, vm_flags_str
from mmcore.proc import task_mmu
from mmcore.proc.capture import load

PG, MIB, GIB = 4096, 1 << 20, 1 << 30
STATIC_PIE = dataclasses.replace(ex.PIE, name="/bin/static-pie", interpreter=None)


def run(program, *, seed=0, level=2, stack=8 * MIB, legacy=0, strings=(256,)):
    m = Machine.boot("128M", seed=seed)
    m.paging.randomize_va_space = level if seed else 0
    m.paging.sysctl_legacy_va_layout = legacy
    task = spawn(m, "exec")
    task.rlim[util.RLIMIT_STACK] = (stack, util.RLIM_INFINITY)
    return task, ex.do_execve(task, program, strings)


def lines(mm):
    return [(v.vm_start, v.vm_end, "" if v.vm_file else task_mmu.vma_name(v)) for v in mm.mm_mt]


def named(mm, name):
    return next(v for v in mm.mm_mt if not v.vm_file and task_mmu.vma_name(v) == name)


def test_the_layout_is_the_recorded_one():
    from mmcore.report.mapscript import kernel_questions, model_questions

    capture = load("n1-1g/mappings")
    theirs = kernel_questions(capture, "at the start")
    assert len(theirs) == 10 and model_questions(capture, "at the start") == theirs


def test_flags_of_the_kernels_own_mappings_and_of_the_stack_are_the_recorded_ones():
    task, error = run(ex.STATIC)
    assert not error
    assert vm_flags_str(named(task.mm, "[vvar]").vm_flags) == "rd mr pf io de dd sd"
    assert vm_flags_str(named(task.mm, "[vdso]").vm_flags) == "rd ex mr mw me de sd"
    assert vm_flags_str(named(task.mm, "[stack]").vm_flags) == "rd wr mr mw me gd ac"


@pytest.mark.parametrize(
    "program", [ex.STATIC, ex.PIE, ex.DYNAMIC, STATIC_PIE], ids=lambda p: p.name
)
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5])
def test_counters_and_order_hold_for_every_program(program, seed):
    task, error = run(program, seed=seed)
    mm = task.mm
    assert not error
    vma_.validate_mm(mm)
    pages = sum((v.vm_end - v.vm_start) // PG for v in mm.mm_mt)
    assert mm.total_vm == pages and mm.map_count == len(mm.mm_mt)
    charged = sum((v.vm_end - v.vm_start) // PG for v in mm.mm_mt if v.vm_flags & VM_ACCOUNT)
    assert util.vm_memory_committed(task.machine) == charged
    assert mm.start_brk < mm.mmap_base <= ex.STACK_TOP
    stack = named(mm, "[stack]")
    assert stack.vm_flags & VM_GROWSDOWN and stack.vm_end - stack.vm_start == 33 * PG


def test_without_randomisation_everything_is_where_it_always_is():
    for program, start in ((ex.STATIC, 0x400000), (ex.PIE, 0x555555554000), (ex.DYNAMIC, 0x400000)):
        task, _ = run(program)
        mm = task.mm
        assert next(iter(mm.mm_mt)).vm_start == start
        assert mm.mmap_base == 0x7FFFF7FFF000 and named(mm, "[stack]").vm_end == ex.STACK_TOP
        end = max(s.vaddr + s.memsz for s in program.segments) + (start if program is ex.PIE else 0)
        assert mm.start_brk == -(-end // PG) * PG
    task, _ = run(STATIC_PIE)
    assert task.mm.start_brk == ex.ELF_ET_DYN_BASE + PG - 1 & -PG
    assert next(iter(task.mm.mm_mt)).vm_start > 0x7FFFF7000000


def test_the_linker_is_mapped_before_the_kernels_own_and_so_lies_above():
    task, _ = run(ex.PIE)
    linker = [v for v in task.mm.mm_mt if v.vm_file and "ld-linux" in v.vm_file.f_path]
    assert linker[-1].vm_end == task.mm.mmap_base
    assert named(task.mm, "[vdso]").vm_end == linker[0].vm_start


def test_randomisation_moves_things_as_far_as_it_may_and_no_farther():
    fixed = run(ex.PIE)[0].mm
    for seed in range(1, 40):
        mm = run(ex.PIE, seed=seed)[0].mm
        top = named(mm, "[stack]").vm_end
        assert 0 <= ex.STACK_TOP - top <= (16 << 30) + 2 * PG
        gap = 8 * MIB + (0x3FFFFF << 12) + (256 << 12)
        assert ex.STACK_TOP - gap - (1 << 40) < mm.mmap_base <= ex.STACK_TOP - gap + PG
        start = next(iter(mm.mm_mt)).vm_start
        assert 0x555555554000 <= start < 0x555555554000 + (1 << 40)
        last = [v for v in mm.mm_mt if v.vm_file and "pie" in v.vm_file.f_path][-1].vm_end
        assert PG <= mm.start_brk - last < GIB + 2 * PG
        assert mm.mmap_base != fixed.mmap_base


def test_level_one_leaves_the_heap_behind_the_program():
    mm = run(ex.STATIC, seed=3, level=1)[0].mm
    assert mm.start_brk == 0x4CD000 and mm.mmap_base != 0x7FFFF7FFF000


def test_two_executions_differ_and_a_seed_repeats_them():
    a, b, again = (run(ex.PIE, seed=s)[0].mm for s in (1, 2, 1))
    assert lines(a) == lines(again) and lines(a) != lines(b)


@pytest.mark.parametrize(
    ("limit", "gap"),
    [
        (64 << 10, 128 * MIB),
        (8 * MIB, 128 * MIB),
        (GIB, GIB + MIB),
        (util.RLIM_INFINITY, (ex.STACK_TOP // 6) * 5),
    ],
)
def test_the_gap_below_the_stack_follows_its_limit(limit, gap):
    mm = run(ex.STATIC, stack=limit)[0].mm
    assert mm.mmap_base == ex.STACK_TOP - gap + PG - 1 & -PG


def test_the_old_layout_is_bottom_up():
    mm = run(ex.PIE, legacy=1)[0].mm
    assert mm.mmap_base == mm.mmap_legacy_base == ex.STACK_TOP // 3 + PG - 1 & -PG
    a, b = (mmap.do_mmap(mm, None, 0, PG, 3, 0x22) for _ in range(2))
    assert b == a + PG > named(mm, "[vdso]").vm_start


def test_arguments_make_the_stack_longer():
    task, error = run(ex.STATIC, strings=(100_000, 100_000))
    stack = named(task.mm, "[stack]")
    assert not error and stack.vm_end - stack.vm_start == (49 + 32) * PG
    task, error = run(ex.STATIC, stack=128 << 10)
    assert not error and named(task.mm, "[stack]").vm_start == ex.STACK_TOP - (128 << 10)


@pytest.mark.parametrize(
    ("limit", "argc", "bytes_"),
    [
        (8 * MIB, 1, 2 * MIB - 8),
        (64 * MIB, 1, 6 * MIB - 8),
        (util.RLIM_INFINITY, 10, 6 * MIB - 80),
        (4096, 1, 131072 - 8),
        (8 * MIB, 1 << 18, -E2BIG),
    ],
)
def test_how_long_arguments_may_be(limit, argc, bytes_):
    assert ex.bprm_stack_limits(limit, argc, 0) == bytes_


def test_arguments_that_are_too_long_are_refused_and_nothing_happens():
    task, _ = run(ex.STATIC)
    before = task.mm
    assert ex.do_execve(task, ex.PIE, [ex.MAX_ARG_STRLEN + 1]) == -E2BIG
    assert ex.do_execve(task, ex.PIE, [ex.MAX_ARG_STRLEN] * 17) == -E2BIG
    bad = dataclasses.replace(ex.PIE, segments=(ex.Segment(0, 0, 2, 1),))
    assert ex.do_execve(task, bad) == -EINVAL
    assert task.mm is before and before.mm_users == 1
    with pytest.raises(UsageError, match="no segment"):
        ex.do_execve(task, dataclasses.replace(ex.PIE, segments=()))


def test_a_child_that_executes_leaves_its_parents_memory():
    task, _ = run(ex.STATIC)
    m = task.machine
    parents = lines(task.mm)
    child = kernel_clone(task)
    switch_to(m, child)
    assert ex.do_execve(child, ex.PIE) == 0
    assert lines(task.mm) == parents and lines(child.mm) != parents
    assert child.mm.mm_users == task.mm.mm_users == 1


def test_bss_is_zero_pages_of_its_own_and_the_files_last_page_is_copied():
    task, _ = run(ex.STATIC)
    data = next(v for v in task.mm.mm_mt if v.vm_start == 0x4C1000)
    assert data.anon_vma is not None and task.mm.rss_stat[1] >= 1
    bss = next(v for v in task.mm.mm_mt if v.vm_start == data.vm_end)
    assert bss.vm_file is None and bss.vm_end == task.mm.start_brk
