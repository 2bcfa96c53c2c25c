"""The kernel configuration that the model is built for.

The reference is Debian's 6.12 cloud kernel for x86-64. The constants that a kernel fixes when it is
compiled stand here as module constants; what a machine may have otherwise is a field of `Config`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAGE_MASK", "PAGE_SHIFT", "PAGE_SIZE", "REFERENCE", "Config"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = ~(PAGE_SIZE - 1)


@dataclass(frozen=True, slots=True)
class Config:
    """Kernel configuration and CPU profile; the defaults are the reference kernel's.

    Fields in capitals are ``CONFIG_`` options; the others describe the processor or a boot option.
    """

    HZ: int = 250
    NR_CPUS: int = 8192
    NODES_SHIFT: int = 10
    NUMA: bool = True
    TRANSPARENT_HUGEPAGE: bool = True
    COMPACTION: bool = True
    CMA: bool = False
    LRU_GEN: bool = True
    PCP_BATCH_SCALE_MAX: int = 5
    DEFERRED_STRUCT_PAGE_INIT: bool = True
    SHUFFLE_PAGE_ALLOCATOR: bool = True
    DEBUG_VM: bool = False
    MEM_SOFT_DIRTY: bool = True
    USERFAULTFD: bool = True
    PER_VMA_LOCK: bool = True
    X86_5LEVEL: bool = True
    RANDOMIZE_BASE: bool = True
    RANDOMIZE_MEMORY: bool = True
    MITIGATION_PAGE_TABLE_ISOLATION: bool = True
    vsyscall: str = "none"  # LEGACY_VSYSCALL_NONE; or "xonly"
    cpu_la57: bool = False
    cpu_pcid: bool = True
    cpu_pku: bool = False
    cpu_nx: bool = True
    cpu_gbpages: bool = True
    cpu_bug_meltdown: bool = False
    cpu_bug_l1tf: bool = False
    cpu_intel: bool = False


REFERENCE = Config()
