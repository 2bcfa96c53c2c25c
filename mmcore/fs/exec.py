"""The layout that execve() makes: stack, program, linker, vDSO, heap.

Mirrors parts of fs/exec.c, fs/binfmt_elf.c, arch/x86/entry/vdso/vma.c and arch/x86/kernel/process.c.

Simplified: a program is a list of segments, given; nothing is parsed, and nothing runs. The stack is made where it
ends up and is not moved there; what create_elf_tables() writes below the arguments is one page that is touched.
No 32-bit programs, no executable stacks, no MMAP_PAGE_ZERO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmcore.arch.x86 import uaccess
from mmcore.arch.x86.mmap import (
    ADDR_NO_RANDOMIZE,
    DEFAULT_MAP_WINDOW,
    PF_RANDOMIZE,
    STACK_RND_MASK,
    arch_pick_mmap_layout,
    arch_rnd,
    randomized,
)
from mmcore.cint import ALIGN
from mmcore.config import PAGE_SHIFT, PAGE_SIZE
from mmcore.errors import E2BIG, EFAULT, EINVAL, ENOMEM, UsageError
from mmcore.kernel.fork import TaskStruct, mm_alloc, mmput, switch_to
from mmcore.mm import filemap, mmap, util
from mmcore.mm import vma as vma_
from mmcore.mm.mm import (
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SOFTDIRTY,
    VM_STACK_FLAGS,
    MmStruct,
    VmOperationsStruct,
    mmap_write_lock,
    mmap_write_unlock,
)

__all__ = [
    "DYNAMIC",
    "ELF_ET_DYN_BASE",
    "LINKER",
    "MAX_ARG_STRLEN",
    "PIE",
    "STACK_TOP",
    "STATIC",
    "Program",
    "Segment",
    "bprm_stack_limits",
    "do_execve",
    "load_elf_binary",
    "map_vdso",
    "randomize_page",
    "setup_arg_pages",
]

STACK_TOP = DEFAULT_MAP_WINDOW
ELF_ET_DYN_BASE = DEFAULT_MAP_WINDOW // 3 * 2
MAX_ARG_STRLEN = PAGE_SIZE * 32
ARG_MAX = 131072
_STK_LIM = 8 << 20
STACK_EXPAND = 131072
VVAR_PAGES, VDSO_PAGES = 4, 2
_OFFSET = PAGE_SIZE - 1


@dataclass(slots=True, frozen=True)
class Segment:
    """A PT_LOAD program header.

    :ivar vaddr: address, without the load bias
    :ivar offset: where its bytes begin in the file
    :ivar filesz: bytes from the file
    :ivar memsz: bytes in memory; what is beyond @filesz is zero (.bss)
    :ivar rights: ``"r"``, ``"rx"`` or ``"rw"``
    """

    vaddr: int
    offset: int
    filesz: int
    memsz: int
    rights: str = "r"

    @property
    def prot(self) -> int:
        """Its rights as PROT_ bits."""
        bits = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "x": mmap.PROT_EXEC}
        return sum(bits[c] for c in self.rights)


@dataclass(slots=True, frozen=True)
class Program:
    """An executable: its segments in order of address, whether it may go anywhere, and its linker.

    :ivar dyn: ET_DYN: position-independent
    :ivar interpreter: the dynamic linker (PT_INTERP)
    """

    name: str
    segments: tuple[Segment, ...]
    dyn: bool = False
    interpreter: Program | None = field(default=None, repr=False)
    alignment: int = PAGE_SIZE

    @property
    def total_size(self) -> int:
        """From the first segment's page to the last one's end (``total_mapping_size()``)."""
        first = self.segments[0].vaddr & -PAGE_SIZE
        return max(s.vaddr + s.memsz for s in self.segments) - first


#: A small static program, a dynamic linker, and two programs that use it.
STATIC = Program(
    "/bin/static",
    (
        Segment(0x400000, 0, 0x5F0, 0x5F0),
        Segment(0x401000, 0x1000, 0x96C61, 0x96C61, "rx"),
        Segment(0x498000, 0x98000, 0x284D3, 0x284D3),
        Segment(0x4C17B0, 0xC07B0, 0x5B58, 0xB370, "rw"),
    ),
)
LINKER = Program(
    "/lib64/ld-linux-x86-64.so.2",
    (
        Segment(0, 0, 0xF90, 0xF90),
        Segment(0x1000, 0x1000, 0x25901, 0x25901, "rx"),
        Segment(0x27000, 0x27000, 0x9A2C, 0x9A2C),
        Segment(0x319A0, 0x309A0, 0x2738, 0x28D8, "rw"),
    ),
    dyn=True,
)
_BODY = (
    Segment(0, 0, 0x640, 0x640),
    Segment(0x1000, 0x1000, 0x1B1, 0x1B1, "rx"),
    Segment(0x2000, 0x2000, 0x104, 0x104),
    Segment(0x3DD0, 0x2DD0, 0x248, 0x250, "rw"),
)
PIE = Program("/bin/pie", _BODY, dyn=True, interpreter=LINKER)
DYNAMIC = Program(
    "/bin/dynamic",
    tuple(Segment(s.vaddr + 0x400000, s.offset, s.filesz, s.memsz, s.rights) for s in _BODY),
    interpreter=LINKER,
)


def bprm_stack_limits(rlim_stack: int, argc: int, envc: int) -> int:
    """Return how many bytes the strings of arguments and environment may have together, or -E2BIG.

    :param rlim_stack: RLIMIT_STACK in bytes

    Mirrors fs/exec.c:bprm_stack_limits().
    """
    limit = max(min(_STK_LIM // 4 * 3, rlim_stack // 4), ARG_MAX)
    pointers = (max(argc, 1) + envc) * 8
    return -E2BIG if limit <= pointers else limit - pointers


def randomize_page(mm: MmStruct, start: int, size: int) -> int:
    """Return a page-aligned address in [@start, @start + @size).

    Mirrors mm/util.c:randomize_page().
    """
    first = ALIGN(start, PAGE_SIZE)
    pages = (size - (first - start)) >> PAGE_SHIFT
    if pages <= 0 or mm.machine is None:
        return first
    return first + (mm.machine.rng("aslr").getrandbits(64) % pages << PAGE_SHIFT)


def _randomize_stack_top(mm: MmStruct) -> int:
    """Return the top of the stack, up to 16 GiB and 8 KiB lower at random (``arch_align_stack()`` as well)."""
    if not randomized(mm) or mm.machine is None:
        return STACK_TOP
    rng = mm.machine.rng("aslr")
    top = STACK_TOP - ((rng.getrandbits(64) & STACK_RND_MASK) << PAGE_SHIFT)
    return ALIGN(top - rng.randrange(8192) & ~0xF, PAGE_SIZE)


def setup_arg_pages(mm: MmStruct, stack_top: int, string_bytes: int) -> int:
    """Make the stack below @stack_top: what the arguments need, and 128 KiB more: 0 or -errno.

    Mirrors fs/exec.c:setup_arg_pages().
    """
    size = ALIGN(string_bytes + 8, PAGE_SIZE)
    if size >= stack_top - mm.sys.mmap_min_addr:
        return -ENOMEM
    vma = vma_.vm_area_alloc(mm, stack_top - size, stack_top, VM_STACK_FLAGS, 0)
    if vma is None:
        return -ENOMEM
    vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
    mmap_write_lock(mm)
    ret = mmap.insert_vm_struct(mm, vma)
    if not ret:
        vma_.vm_stat_account(mm, vma.vm_flags, size >> PAGE_SHIFT)
        mm.arg_start = mm.start_stack = stack_top - 8 - string_bytes & ~0xF
        limit = util.rlimit(mm, util.RLIMIT_STACK) & -PAGE_SIZE
        expand = min(limit, size + STACK_EXPAND)
        ret = -EFAULT if mmap.expand_stack_locked(vma, stack_top - expand) else 0
    mmap_write_unlock(mm)
    return ret


def elf_load(
    mm: MmStruct, file: filemap.File, addr: int, segment: Segment, flags: int, total_size: int
) -> int:
    """Map a segment, clear the rest of its last page, and map zeros for what follows: its address or -errno.

    :param total_size: size of the whole image, for its first segment; 0 else

    Mirrors fs/binfmt_elf.c:elf_load().
    """
    m = mm.machine
    inside = segment.vaddr & _OFFSET
    at = addr & -PAGE_SIZE
    if segment.filesz:
        size = ALIGN(segment.filesz + inside, PAGE_SIZE)
        wanted = ALIGN(total_size, PAGE_SIZE) if total_size else size
        pgoff = (segment.offset - inside) >> PAGE_SHIFT
        at = mmap.do_mmap(mm, file, at, wanted, segment.prot, flags, pgoff)
        if at < 0:
            return at
        if wanted > size:
            mmap.do_munmap(mm, at + size, wanted - size)
    zero_start, zero_end = at + inside + segment.filesz, at + inside + segment.memsz
    if segment.memsz > segment.filesz:
        if segment.filesz and zero_start & _OFFSET and m is not None and m.current is not None:
            left = uaccess.clear_user(m, zero_start, PAGE_SIZE - (zero_start & _OFFSET))
            if left and segment.prot & mmap.PROT_WRITE:
                return -EFAULT
        first, last = ALIGN(zero_start, PAGE_SIZE), ALIGN(zero_end, PAGE_SIZE)
        error = mmap.vm_brk_flags(
            mm, first, last - first, VM_EXEC if segment.prot & mmap.PROT_EXEC else 0
        )
        if error:
            return error
    return at


def _load_image(mm: MmStruct, program: Program, bias: int, first_flags: int) -> int:
    """Map all segments of a program: the load bias that it got, or -errno."""
    size = max(s.offset + s.filesz for s in program.segments)
    file = filemap.File(filemap.AddressSpace(size, program.name), f_path=program.name)
    flags = mmap.MAP_PRIVATE | first_flags
    total = program.total_size if program.dyn else 0
    for i, segment in enumerate(program.segments):
        at = elf_load(mm, file, bias + segment.vaddr, segment, flags, total)
        if at < 0:
            return at
        if i == 0:
            bias = at - (segment.vaddr & -PAGE_SIZE) if program.dyn else 0
        flags, total = mmap.MAP_PRIVATE | mmap.MAP_FIXED, 0
    return bias


def _special_mapping(mm: MmStruct, start: int, pages: int, flags: int, name: str) -> int:
    """Install a mapping of the kernel's own (``_install_special_mapping()``): 0 or -ENOMEM."""
    ops = VmOperationsStruct(
        name="special_mapping_vmops", vma_name=lambda _vma: name, close=lambda _vma: None
    )
    vma = vma_.vm_area_alloc(
        mm, start, start + pages * PAGE_SIZE, flags | mm.def_flags | VM_DONTEXPAND | VM_SOFTDIRTY, 0
    )
    if vma is None:
        return -ENOMEM
    vma.vm_ops = ops
    mmap_write_lock(mm)
    error = vma_.vma_link(mm, vma)
    if not error:
        vma_.vm_stat_account(mm, vma.vm_flags, pages)
    mmap_write_unlock(mm)
    return error


def map_vdso(mm: MmStruct) -> int:
    """Map the kernel's code for programs, and below it the data it reads: the code's address or -errno.

    Mirrors arch/x86/entry/vdso/vma.c:map_vdso().
    """
    addr = mmap.get_unmapped_area(mm, None, 0, (VVAR_PAGES + VDSO_PAGES) * PAGE_SIZE, 0, 0)
    if addr < 0:
        return addr
    text = addr + VVAR_PAGES * PAGE_SIZE
    may = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    error = _special_mapping(mm, text, VDSO_PAGES, VM_READ | VM_EXEC | may, "[vdso]")
    if error:
        return error
    data = VM_READ | VM_MAYREAD | VM_IO | VM_DONTDUMP | VM_PFNMAP
    error = _special_mapping(mm, addr, VVAR_PAGES, data, "[vvar]")
    if error:
        mmap.do_munmap(mm, text, VDSO_PAGES * PAGE_SIZE)
        return error
    return text


def _place_image(mm: MmStruct, program: Program) -> int:
    """Map the program where its type and randomisation say: its load bias or -errno."""
    if not program.dyn:
        return _load_image(mm, program, 0, mmap.MAP_FIXED_NOREPLACE)
    if program.interpreter is None:
        return _load_image(mm, program, 0, 0)
    bias = ELF_ET_DYN_BASE + arch_rnd(mm)
    bias = (bias & -program.alignment) - (program.segments[0].vaddr & -PAGE_SIZE) & -PAGE_SIZE
    return _load_image(mm, program, bias, mmap.MAP_FIXED_NOREPLACE)


def _set_brk(mm: MmStruct, program: Program, bias: int) -> None:
    """Decide where the heap begins."""
    end = max(s.vaddr + s.memsz for s in program.segments) + bias
    moved = program.dyn and program.interpreter is None
    if moved:
        end = ELF_ET_DYN_BASE
    mm.start_brk = mm.brk = ALIGN(end, PAGE_SIZE)
    if randomized(mm) and mm.sys.randomize_va_space > 1:
        start = mm.brk if moved else mm.brk + PAGE_SIZE
        mm.start_brk = mm.brk = randomize_page(mm, start, 1 << 30)


def load_elf_binary(mm: MmStruct, program: Program, string_bytes: int) -> int:
    """Fill an empty address space: 0 or -errno.

    Mirrors fs/binfmt_elf.c:load_elf_binary().
    """
    error = setup_arg_pages(mm, _randomize_stack_top(mm), string_bytes)
    if error:
        return error
    bias = _place_image(mm, program)
    if bias < 0:
        return bias
    if program.interpreter is not None:
        at = _load_image(mm, program.interpreter, 0, 0)
        if at < 0:
            return at
    text = map_vdso(mm)
    if text < 0:
        return text
    code = [s for s in program.segments if "x" in s.rights]
    mm.start_code, mm.end_code = code[0].vaddr + bias, code[-1].vaddr + code[-1].filesz + bias
    last = program.segments[-1]
    mm.start_data = last.vaddr + bias
    mm.end_data = max(s.vaddr + s.filesz for s in program.segments) + bias
    _set_brk(mm, program, bias)
    if mm.machine is not None and uaccess.copy_to_user(mm.machine, mm.start_stack - 256, 256):
        return -EFAULT
    return 0


def do_execve(
    task: TaskStruct, program: Program, strings: Sequence[int] = (256,), pointers: int = 8
) -> int:
    """Replace the task's address space by that of @program: 0 or -errno.

    :param strings: lengths in bytes of the arguments and the environment's strings
    :param pointers: how many of both there are, for the limit

    Mirrors fs/exec.c:do_execveat_common().
    """
    m, old = task.machine, task.mm
    if not program.segments:
        raise UsageError(f"{program.name} has no segment to load")
    if any(n > MAX_ARG_STRLEN for n in strings):
        return -E2BIG
    limit = bprm_stack_limits(task.rlim[util.RLIMIT_STACK][0], pointers, 0)
    if limit < 0 or sum(strings) > limit:
        return -E2BIG
    if any(s.filesz > s.memsz for s in program.segments):
        return -EINVAL
    mm = mm_alloc(m)
    if mm is None:
        return -ENOMEM
    task.flags &= ~PF_RANDOMIZE
    if not task.personality & ADDR_NO_RANDOMIZE and mm.sys.randomize_va_space:
        task.flags |= PF_RANDOMIZE
    task.mm = task.active_mm = mm
    switch_to(m, task)
    if old is not None:
        mmput(old)
    arch_pick_mmap_layout(mm)
    return load_elf_binary(mm, program, sum(strings))
