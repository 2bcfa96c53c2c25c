"""Allocation flags: what a caller says to the page allocator.

Mirrors include/linux/gfp_types.h and include/linux/gfp.h, with the values of the reference
configuration (no KASAN_HW_TAGS, no LOCKDEP, SLAB_OBJ_EXT on; no CMA, no HIGHMEM).
"""

from __future__ import annotations

from mmcore.errors import UsageError

# The flags are the module's subject: everything that is defined here is public.

__GFP_DMA = 0x1
__GFP_HIGHMEM = 0x2
__GFP_DMA32 = 0x4
__GFP_MOVABLE = 0x8
__GFP_RECLAIMABLE = 0x10
__GFP_HIGH = 0x20
__GFP_IO = 0x40
__GFP_FS = 0x80
__GFP_ZERO = 0x100
__GFP_DIRECT_RECLAIM = 0x400
__GFP_KSWAPD_RECLAIM = 0x800
__GFP_WRITE = 0x1000
__GFP_NOWARN = 0x2000
__GFP_RETRY_MAYFAIL = 0x4000
__GFP_NOFAIL = 0x8000
__GFP_NORETRY = 0x10000
__GFP_MEMALLOC = 0x20000
__GFP_COMP = 0x40000
__GFP_NOMEMALLOC = 0x80000
__GFP_HARDWALL = 0x100000
__GFP_THISNODE = 0x200000
__GFP_ACCOUNT = 0x400000
__GFP_ZEROTAGS = 0x800000
__GFP_NO_OBJ_EXT = 0x1000000
__GFP_SKIP_ZERO = 0
__GFP_SKIP_KASAN = 0
__GFP_NOLOCKDEP = 0
__GFP_BITS_SHIFT = 25
__GFP_BITS_MASK = (1 << __GFP_BITS_SHIFT) - 1
GFP_ZONEMASK = __GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE
__GFP_RECLAIM = __GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM

GFP_ATOMIC = __GFP_HIGH | __GFP_KSWAPD_RECLAIM
GFP_KERNEL = __GFP_RECLAIM | __GFP_IO | __GFP_FS
GFP_KERNEL_ACCOUNT = GFP_KERNEL | __GFP_ACCOUNT
GFP_NOWAIT = __GFP_KSWAPD_RECLAIM | __GFP_NOWARN
GFP_NOIO = __GFP_RECLAIM
GFP_NOFS = __GFP_RECLAIM | __GFP_IO
GFP_USER = __GFP_RECLAIM | __GFP_IO | __GFP_FS | __GFP_HARDWALL
GFP_DMA = __GFP_DMA
GFP_DMA32 = __GFP_DMA32
GFP_HIGHUSER = GFP_USER | __GFP_HIGHMEM
GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | __GFP_MOVABLE | __GFP_SKIP_KASAN
GFP_TRANSHUGE_LIGHT = (
    GFP_HIGHUSER_MOVABLE | __GFP_COMP | __GFP_NOMEMALLOC | __GFP_NOWARN
) & ~__GFP_RECLAIM
GFP_TRANSHUGE = GFP_TRANSHUGE_LIGHT | __GFP_DIRECT_RECLAIM

# mm/internal.h: which flags reclaim, watermarks and placement look at.
GFP_RECLAIM_MASK = (
    __GFP_RECLAIM
    | __GFP_HIGH
    | __GFP_IO
    | __GFP_FS
    | __GFP_NOWARN
    | __GFP_RETRY_MAYFAIL
    | __GFP_NOFAIL
    | __GFP_NORETRY
    | __GFP_MEMALLOC
    | __GFP_NOMEMALLOC
    | __GFP_NOLOCKDEP
)
GFP_BOOT_MASK = __GFP_BITS_MASK & ~(__GFP_RECLAIM | __GFP_IO | __GFP_FS)
GFP_CONSTRAINT_MASK = __GFP_HARDWALL | __GFP_THISNODE
# include/linux/gfp.h
GFP_MOVABLE_MASK = __GFP_RECLAIMABLE | __GFP_MOVABLE
GFP_MOVABLE_SHIFT = 3

#: The names in the order in which the kernel's trace output matches them: the first that fits
#: entirely is printed and its bits are taken away (include/trace/events/mmflags.h).
GFPFLAG_NAMES: tuple[tuple[int, str], ...] = (
    (GFP_TRANSHUGE, "GFP_TRANSHUGE"),
    (GFP_TRANSHUGE_LIGHT, "GFP_TRANSHUGE_LIGHT"),
    (GFP_HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
    (GFP_HIGHUSER, "GFP_HIGHUSER"),
    (GFP_USER, "GFP_USER"),
    (GFP_KERNEL_ACCOUNT, "GFP_KERNEL_ACCOUNT"),
    (GFP_KERNEL, "GFP_KERNEL"),
    (GFP_NOFS, "GFP_NOFS"),
    (GFP_ATOMIC, "GFP_ATOMIC"),
    (GFP_NOIO, "GFP_NOIO"),
    (GFP_NOWAIT, "GFP_NOWAIT"),
    (GFP_DMA, "GFP_DMA"),
    (__GFP_HIGHMEM, "__GFP_HIGHMEM"),
    (GFP_DMA32, "GFP_DMA32"),
    (__GFP_HIGH, "__GFP_HIGH"),
    (__GFP_IO, "__GFP_IO"),
    (__GFP_FS, "__GFP_FS"),
    (__GFP_NOWARN, "__GFP_NOWARN"),
    (__GFP_RETRY_MAYFAIL, "__GFP_RETRY_MAYFAIL"),
    (__GFP_NOFAIL, "__GFP_NOFAIL"),
    (__GFP_NORETRY, "__GFP_NORETRY"),
    (__GFP_COMP, "__GFP_COMP"),
    (__GFP_ZERO, "__GFP_ZERO"),
    (__GFP_NOMEMALLOC, "__GFP_NOMEMALLOC"),
    (__GFP_MEMALLOC, "__GFP_MEMALLOC"),
    (__GFP_HARDWALL, "__GFP_HARDWALL"),
    (__GFP_THISNODE, "__GFP_THISNODE"),
    (__GFP_RECLAIMABLE, "__GFP_RECLAIMABLE"),
    (__GFP_MOVABLE, "__GFP_MOVABLE"),
    (__GFP_ACCOUNT, "__GFP_ACCOUNT"),
    (__GFP_WRITE, "__GFP_WRITE"),
    (__GFP_RECLAIM, "__GFP_RECLAIM"),
    (__GFP_DIRECT_RECLAIM, "__GFP_DIRECT_RECLAIM"),
    (__GFP_KSWAPD_RECLAIM, "__GFP_KSWAPD_RECLAIM"),
    (__GFP_ZEROTAGS, "__GFP_ZEROTAGS"),
)

#: Every name that a gfp expression may use.
GFP_BY_NAME: dict[str, int] = {
    **{n: v for n, v in globals().items() if n.startswith(("GFP_", "__GFP_")) and type(v) is int},
}

# include/linux/gfp.h: two bits of zone number for each value of the four zone bits.
_ZONE_DMA, _ZONE_DMA32, _ZONE_NORMAL, _ZONE_MOVABLE = range(4)
GFP_ZONE_BAD = sum(1 << combination for combination in (3, 5, 6, 7, 11, 13, 14, 15))
_GFP_ZONE = {0: _ZONE_NORMAL, 1: _ZONE_DMA, 2: _ZONE_NORMAL, 4: _ZONE_DMA32}
_GFP_ZONE |= {8: _ZONE_NORMAL, 9: _ZONE_DMA, 10: _ZONE_MOVABLE, 12: _ZONE_DMA32}


def gfp_zone(flags: int) -> int:
    """Return the highest zone that an allocation with @flags may use.

    :param flags: ``gfp_t``
    :return: ``enum zone_type``: ZONE_DMA, ZONE_DMA32, ZONE_NORMAL or ZONE_MOVABLE
    :raises UsageError: for a combination of zone bits that the kernel forbids

    Mirrors include/linux/gfp.h:gfp_zone().
    """
    bits = flags & GFP_ZONEMASK
    if GFP_ZONE_BAD >> bits & 1:
        raise UsageError(
            f"gfp flags {flags:#x} name more than one zone: only one of __GFP_DMA, __GFP_HIGHMEM "
            "and __GFP_DMA32 may be set (the kernel's GFP_ZONE_BAD)"
        )
    return _GFP_ZONE[bits]


def gfp_migratetype(gfp_flags: int, page_group_by_mobility_disabled: bool = False) -> int:
    """Return the migratetype that @gfp_flags ask for.

    :param gfp_flags: ``gfp_t``
    :param page_group_by_mobility_disabled: the kernel's global: memory too small to group
    :return: ``int``: MIGRATE_UNMOVABLE 0, MIGRATE_MOVABLE 1 or MIGRATE_RECLAIMABLE 2
    :raises UsageError: if both mobility flags are set

    Mirrors include/linux/gfp.h:gfp_migratetype().
    """
    if gfp_flags & GFP_MOVABLE_MASK == GFP_MOVABLE_MASK:
        raise UsageError(f"gfp flags {gfp_flags:#x} are both __GFP_MOVABLE and __GFP_RECLAIMABLE")
    if page_group_by_mobility_disabled:
        return 0
    return (gfp_flags & GFP_MOVABLE_MASK) >> GFP_MOVABLE_SHIFT


def gfpflags_allow_blocking(gfp_flags: int) -> bool:
    """Tell whether the caller may sleep: __GFP_DIRECT_RECLAIM is set.

    Mirrors include/linux/gfp.h:gfpflags_allow_blocking().
    """
    return gfp_flags & __GFP_DIRECT_RECLAIM != 0


def gfp_str(gfp_flags: int) -> str:
    """Return @gfp_flags as the kernel's tracepoints print them.

    Mirrors include/trace/events/mmflags.h:show_gfp_flags().
    """
    if not gfp_flags:
        return "none"
    names = []
    left = gfp_flags
    for mask, name in GFPFLAG_NAMES:
        if mask and left & mask == mask:
            names.append(name)
            left &= ~mask
            if not left:
                break
    if left:
        names.append(f"{left:#x}")
    return "|".join(names)


def parse_gfp(text: str) -> int:
    """Return the value of a gfp expression: names and numbers joined by ``|``.

    Reads what `gfp_str()` writes, and what people paste: ``0x140dca``,
    ``GFP_KERNEL|__GFP_ZERO``, ``gfp_mask=0xcc0(GFP_KERNEL)``.

    :raises UsageError: for a name that is no gfp flag or a number outside ``gfp_t``
    """
    text = text.strip().removeprefix("gfp_mask=").removeprefix("mode:").strip()
    if text == "none":
        return 0
    number, paren, _ = text.partition("(")
    if paren and number.strip():
        text = number
    flags = 0
    for word in text.split("|"):
        word = word.strip().strip("()")
        if word in GFP_BY_NAME:
            flags |= GFP_BY_NAME[word]
            continue
        try:
            value = int(word, 0 if word[:2].lower() == "0x" else 16)
        except ValueError:
            raise UsageError(
                f"{word[:60]!r} is no gfp flag; give a number such as 0xcc0 or names such as "
                "GFP_KERNEL|__GFP_ZERO"
            ) from None
        if not 0 <= value < 1 << 32:
            raise UsageError(f"{word[:60]} does not fit gfp_t, an unsigned int")
        flags |= value
    return flags


__all__ = [
    "GFPFLAG_NAMES",
    "GFP_ZONE_BAD",
    "gfp_migratetype",
    "gfp_str",
    "gfp_zone",
    "gfpflags_allow_blocking",
    "parse_gfp",
    *GFP_BY_NAME,
]
