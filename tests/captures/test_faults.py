"""The faults capture: error codes, signals, counters and log lines of scripted accesses."""

from __future__ import annotations

import re

import pytest

from mmcore.arch.x86.fault import (
    SI_CODE_NAMES,
    Fixup,
    GeneralProtection,
    PtRegs,
    SigBus,
    SigSegv,
    Translation,
    describe_error_code,
    dump_pagetable,
    parse_oops,
    parse_segfault_line,
    show_fault_oops,
    show_signal,
    show_signal_msg,
    touch,
)
from mmcore.kernel.fork import spawn
from mmcore.machine import Machine
from mmcore.mm import filemap, madvise, shmem
from mmcore.mm.mm import MM_ANONPAGES
from mmcore.mm.mmap import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    do_mmap,
    do_munmap,
)
from mmcore.mm.mprotect import do_mprotect
from mmcore.proc import capture
from mmcore.proc.task_mmu import status_memory

PG = 4096
A = 0x200000000000
RW = PROT_READ | PROT_WRITE
MARK = re.compile(r"tracing_mark_write: (.*)")
FAULT = re.compile(
    r"page_fault_(user|kernel): address=(0x[0-9a-f]+) ip=\S+ error_code=(0x[0-9a-f]+)"
)


@pytest.fixture(scope="module")
def faults() -> dict[str, list[tuple[str, int, int]]]:
    """step -> [(user or kernel, address, error code)] as the tracepoints printed them."""
    out: dict[str, list[tuple[str, int, int]]] = {}
    step = ""
    for line in capture.load("n1-1g/faults")["trace"].splitlines():
        if mark := MARK.search(line):
            step = mark[1] if mark[1] != "end" else ""
            out.setdefault(step, [])
        elif fault := FAULT.search(line):
            out[step].append((fault[1], int(fault[2], 16), int(fault[3], 16)))
    return out


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    lines = capture.load("n1-1g/faults")["faults"].splitlines()
    return {k: v for k, _, v in (line.partition(": ") for line in lines)}


@pytest.fixture
def m() -> Machine:
    machine = Machine.boot("1G")
    spawn(machine, "faults")
    return machine


def mapped(m: Machine, addr: int, pages: int, prot: int = RW, flags: int = 0, file=None) -> int:
    flags = (flags or MAP_PRIVATE | MAP_ANONYMOUS) | MAP_FIXED
    assert do_mmap(m.current.mm, file, addr, pages * PG, prot, flags) == addr
    return addr


def run(m: Machine, address: int, kind: str, **how):
    """Touch and return (result, the fault events, min_flt more)."""
    before = m.current.min_flt
    with m.trace.record("exceptions:*") as log:
        result = touch(m, address, kind, **how)
    events = [(e.name.rpartition("_")[2], e.fields["address"], e.fields["error_code"]) for e in log]
    return result, events, m.current.min_flt - before


def check_signal(line: str, result) -> None:
    m = re.fullmatch(r"signal (\d+) si_code (\d+) si_addr ([0-9a-f]+) error_code ([0-9a-f]+)", line)
    assert m is not None, line
    signal, code, addr, err = int(m[1]), int(m[2]), int(m[3], 16), int(m[4], 16)
    if isinstance(result, GeneralProtection):
        assert (signal, code, addr, err) == (11, 128, 0, 0)
        assert SI_CODE_NAMES["SIGSEGV"][128] == "SI_KERNEL"
        return
    assert signal == (11 if isinstance(result, SigSegv) else 7)
    assert (result.si_code, result.address) == (code, addr)
    # The ucontext has set_signal_archinfo()'s code; the model's is the sanitized one.
    assert result.error_code | 4 == err


def test_plain_faults_of_one_mapping(m, faults, printed):
    mapped(m, A, 8)
    steps = [("read 0", 0, "r"), ("read 0 again", 0, "r"), ("write 0", 0, "w")]
    steps += [("write 1", 1, "w"), ("read 1", 1, "r")]
    for label, page, kind in steps:
        result, events, minor = run(m, A + page * PG, kind)
        assert isinstance(result, Translation)
        assert events == faults[label], label
        assert printed[label] == f"minflt +{minor} majflt +0"


def test_signals_and_their_error_codes(m, faults, printed):
    mm = m.current.mm
    mapped(m, A, 8)
    for page in (0, 1):
        touch(m, A + page * PG, "w")
    assert do_mprotect(mm, A + PG, PG, PROT_READ) == 0
    assert do_mprotect(mm, A + 2 * PG, PG, PROT_NONE) == 0
    memfd = shmem.shmem_file_setup("memfd:m", 2 * PG)
    mapped(m, 0x200050000000, 4, RW, MAP_SHARED, memfd)
    steps = [
        ("write to read-only 1", A + PG, "w"),
        ("read PROT_NONE 2", A + 2 * PG, "r"),
        ("read hole", 0x200040000000, "r"),
        ("execute 0", A, "x"),
        ("execute 3, fresh", A + 3 * PG, "x"),
        ("read kernel", 0xFFFF888000001000, "r"),
        ("write kernel hole", 0xFFFF800000001000, "w"),
        ("read non-canonical", 0x800000000000, "r"),
        ("read beyond EOF", 0x200050002000, "r"),
    ]
    for label, address, kind in steps:
        result, events, _ = run(m, address, kind)
        assert events == faults[label], label
        check_signal(printed[label], result)
        assert isinstance(result, SigBus) == (label == "read beyond EOF")


def test_the_kernel_writes_to_user_memory(m, faults, printed):
    mapped(m, A, 8)
    result, events, minor = run(m, A + 4 * PG, "w", user=False)
    assert isinstance(result, Translation) and minor == 1
    assert events == faults["kernel write to 4"]
    assert printed["kernel write to 4"] == "minflt +1 majflt +0"
    result, events, minor = run(m, 0x200040000000, "w", user=False)
    assert result == Fixup(0x200040000000, -14) and minor == 0
    assert printed["read into a hole"] == "-1 errno 14"
    # rep_stos_alternative's fixup stores byte by byte and faults once more.
    assert events == faults["kernel write to hole"][:1]


def test_1024_pages_read_then_written(m, printed):
    mm = m.current.mm
    w = mapped(m, 0x200080000000, 1024)
    assert madvise.madvise(mm, w, 1024 * PG, madvise.MADV_NOHUGEPAGE) == 0

    lines = capture.load("n1-1g/faults")["faults"].splitlines()
    sizes = {
        line.partition(":")[0]: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}
        for line in lines
        if "VmPTE=" in line
    }
    faults_before = m.current.min_flt
    for kind, label in (("r", "read 1024"), ("w", "write 1024")):
        for i in range(1024):
            touch(m, w + i * PG, kind)
        assert f"{label}: minflt +{m.current.min_flt - faults_before} majflt +0" in lines
        faults_before = m.current.min_flt
        now, kernel = status_memory(mm), sizes[label]
        # The fresh PUD of this machine's process is not in the kernel's difference: its libc has it.
        assert now["RssAnon"] == kernel["RssAnon"] - sizes["before 1024"]["RssAnon"]
        assert now["VmPTE"] - 4 == kernel["VmPTE"] - sizes["before 1024"]["VmPTE"]
    assert do_munmap(mm, w, 1024 * PG) == 0
    assert mm.rss_stat[MM_ANONPAGES] == 0 and status_memory(mm)["VmPTE"] == 0


@pytest.mark.parametrize(
    ("label", "start"), [("map 1 MiB", 0x2000C0000000), ("map 1 MiB off", 0x2000C0001000)]
)
def test_fault_around_of_a_cached_file(m, faults, label, start):
    memfd = shmem.shmem_file_setup("memfd:g", 256 * PG)
    for i in range(256):
        assert shmem.shmem_write(m, memfd, i)
    mapped(m, start, 256, PROT_READ, MAP_SHARED, memfd)
    events = []
    for i in range(256):
        events += run(m, start + i * PG, "r")[1]
    assert events == faults[label]
    assert len(events) == (16 if label == "map 1 MiB" else 17)
    assert status_memory(m.current.mm)["RssShmem"] == 1024


def test_the_windows_of_two_faults(m, faults):
    memfd = shmem.shmem_file_setup("memfd:g", 256 * PG)
    for i in range(256):
        shmem.shmem_write(m, memfd, i)
    h = mapped(m, 0x2000C0000000, 256, PROT_READ, MAP_SHARED, memfd)
    assert run(m, h + 37 * PG, "r")[1] == faults["fault 37"]
    assert run(m, h + 32 * PG, "r")[1] == run(m, h + 47 * PG, "r")[1] == []
    assert run(m, h + 48 * PG, "r")[1] == faults["fault 48"]


def test_segfault_lines_parse_and_render(m):
    mm = m.current.mm
    name = filemap.File(filemap.AddressSpace(0x200000, "faults"))
    assert do_mmap(mm, name, 0x401000, 0x7A000, 5, MAP_PRIVATE | MAP_FIXED, 1) == 0x401000
    lines = capture.load("n1-1g/faults")["segfaults"].splitlines()
    shown = 0
    for line in lines:
        if "segfault" not in line:
            gp = re.fullmatch(r"traps: faults\[(\d+)\] (.*) ip:(\w+) sp:(\w+) error:0 in .*", line)
            m.current.pid = int(gp[1])
            assert show_signal(m, PtRegs(int(gp[3], 16), int(gp[4], 16)), gp[2]) == line
            continue
        parsed = parse_segfault_line(line)
        m.current.pid = parsed.pid
        regs = PtRegs(parsed.ip, parsed.sp)
        assert show_signal_msg(m, regs, parsed.error_code, parsed.address) == line
        shown += 1
    assert shown == 5
    first = parse_segfault_line(lines[0])
    assert (first.file, first.start, first.size, first.offset) == (
        "faults",
        0x401000,
        0x7A000,
        0x227A,
    )
    assert first.explanation == "user-mode write at 0x0: no page is mapped"


@pytest.mark.parametrize("section", ["oops0", "oops1", "oops2", "oops3"])
def test_oops_lines(section):
    text = capture.load("n1-1g/oops")[section]
    info = parse_oops(text)
    lines = text.splitlines()
    assert lines[1:3] == describe_error_code(info.error_code)
    assert info.null_pointer == ("NULL pointer" in lines[0])
    assert dict(info.entries)["PGD"] == dict(info.entries)["P4D"]


def test_the_same_oops_lines_from_the_model(m):
    """oops2 reads ffff8880f0000000, beyond the direct map: all four lines, addresses included."""
    text = capture.load("n1-1g/oops")["oops2"].splitlines()
    info = parse_oops("\n".join(text))
    lines = show_fault_oops(m, PtRegs(user_mode=False), info.error_code, info.address)
    assert lines == text[:4]
    assert dump_pagetable(m.init_mm, info.address) == text[3]
