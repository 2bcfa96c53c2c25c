"""The explorables of chapter 2, physical memory allocation.

Every frame is drawn from the state of the engine at that moment, or from a capture; nothing here decides.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from mmcore import machine
from mmcore.errors import UsageError
from mmcore.lib.list import list_for_each
from mmcore.mm import page_alloc
from mmcore.mm.gfp import (
    __GFP_BITS_SHIFT,
    __GFP_COMP,
    __GFP_NOWARN,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    gfp_migratetype,
    gfp_str,
    gfp_zone,
    parse_gfp,
)
from mmcore.mm.internal import (
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    COMPACT_COMPLETE,
    COMPACT_SKIPPED,
    COMPACT_SUCCESS,
    PF_MEMALLOC,
)
from mmcore.mm.mmzone import (
    HPAGE_PMD_ORDER,
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    MIGRATETYPE_LETTERS,
    MIGRATETYPE_NAMES,
    NR_PAGE_ORDERS,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    ZONELIST_FALLBACK,
    Zone,
    for_each_populated_zone,
    high_wmark_pages,
    low_wmark_pages,
    min_wmark_pages,
    pageblock_nr_pages,
    promo_wmark_pages,
    wmark_pages,
)
from mmcore.mm.page_flags import PG_lru, page_flags_word, page_type_name
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.trace import Event
from mmcore.viz import svg
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Frame,
    Int,
    ParamError,
    Seed,
    Text,
    explorable,
)

__all__ = [
    "buddy",
    "fragmentation",
    "order_heatmap",
    "page_xray",
    "pcp",
    "slowpath",
    "watermarks",
    "zonelist",
]

#: The hue of each migratetype, in the order of ``enum migratetype``.
HUE = ("unmovable", "movable", "reclaimable", "highatomic", "isolate")


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def _boxes(rects: Sequence[tuple[float, float, float, float]]) -> str:
    """Return the path of several rectangles (x, y, width, height)."""
    num = svg.num
    return "".join(f"M{num(x)} {num(y)}h{num(w)}v{num(h)}h{num(-w)}z" for x, y, w, h in rects)


# ---- ch02.buddy: split and merge -----------------------------------------------------------------

Blocks = dict[int, int]  # pfn -> order


class _BuddyState:
    """One moment of a zone: its free lists in order, and the blocks that the script holds."""

    def __init__(self, zone: Zone, used: Blocks) -> None:
        self.nr_pages = zone.spanned_pages
        self.used = dict(used)
        self.lists = {
            order: [p.pfn for p in list_for_each(zone.free_area[order].free_list[MIGRATE_MOVABLE])]
            for order in range(NR_PAGE_ORDERS)
        }
        self.free: Blocks = {pfn: order for order, pfns in self.lists.items() for pfn in pfns}

    def rows(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            "free_lists": {order: pfns for order, pfns in self.lists.items() if pfns},
            "in_use": dict(sorted(self.used.items())),
        }

    def leaves(self, pfn: int, order: int) -> list[tuple[int, int, str]]:
        """Return the parts of a block in ascending order: (pfn, order, "free", "used" or "hand")."""
        if self.free.get(pfn) == order:
            return [(pfn, order, "free")]
        if self.used.get(pfn) == order:
            return [(pfn, order, "used")]
        inside = any(
            pfn <= p < pfn + (1 << order) for known in (self.free, self.used) for p in known
        )
        if not inside or order == 0:
            return [(pfn, order, "hand")]
        half = 1 << order - 1
        return self.leaves(pfn, order - 1) + self.leaves(pfn + half, order - 1)

    def roots(self) -> list[tuple[int, int]]:
        """Return the largest aligned blocks that the zone is made of."""
        out, pfn = [], 0
        while pfn < self.nr_pages:
            order = min(MAX_PAGE_ORDER, (pfn & -pfn).bit_length() - 1 if pfn else MAX_PAGE_ORDER)
            while pfn + (1 << order) > self.nr_pages:
                order -= 1
            out.append((pfn, order))
            pfn += 1 << order
        return out


ROW, TOP = 21, 46
LIST_X, LIST_W, SHOWN = 44, 46, 3
TREE_X = 226
TREE_W = svg.WIDTH - TREE_X


def _row(order: int) -> float:
    """Return the top of the row that an order has in both halves of the figure."""
    return TOP + (MAX_PAGE_ORDER - order) * ROW


def _spans(
    state: _BuddyState, leaves: list[tuple[int, int, str]]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Return where each block of the tree begins and ends, by (pfn, order).

    A leaf is as wide as its order plus two, not as its size, so that small blocks can be seen.
    """
    unit = TREE_W / sum(order + 2 for _, order, _ in leaves)
    spans: dict[tuple[int, int], tuple[float, float]] = {}
    for root, top in state.roots():
        for pfn, order, _ in leaves:
            if not root <= pfn < root + (1 << top):
                continue
            x = max((right for _, right in spans.values()), default=float(TREE_X))
            w = (order + 2) * unit
            for up in range(order, top + 1):
                node = (pfn >> up << up, up)
                left, _ = spans.get(node, (x, x))
                spans[node] = (left, x + w)
    return spans


def _tree(state: _BuddyState, focus: tuple[int, int] | None) -> list[str]:
    """Draw the zone as rows of halves, one row for each order."""
    leaves = [leaf for pfn, order in state.roots() for leaf in state.leaves(pfn, order)]
    spans = _spans(state, leaves)
    kinds = {(pfn, order): "lit" if kind == "hand" else kind for pfn, order, kind in leaves}
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    labels = []
    for (pfn, order), (left, right) in sorted(spans.items()):
        kind = kinds.get((pfn, order))
        boxes.setdefault(kind or "split", []).append((left, _row(order), right - left, ROW - 2))
        if kind and svg.text_width(str(pfn), svg.SMALL) + 2 <= right - left:
            middle = (left + right) / 2
            labels.append(
                svg.text(middle, _row(order) + 14, pfn, size=svg.SMALL, anchor="middle", on=kind)
            )
    rules = "".join(
        f"M{TREE_X} {svg.num(_row(order) + ROW - 1)}H{svg.WIDTH}" for order in range(NR_PAGE_ORDERS)
    )
    items = [svg.path(rules, stroke="faint", dash="1 3")]
    items.append(svg.path(_boxes(boxes.pop("split", [])), stroke="faint"))
    for hue, rects in sorted(boxes.items()):
        items.append(svg.path(_boxes(rects), hue, stroke="muted"))
    items += labels
    if focus in spans:
        left, right = spans[focus]
        items.append(svg.rect(left, _row(focus[1]), right - left, ROW - 2, stroke="ink", width=2))
    return items


def _ladder(state: _BuddyState, focus: tuple[int, int] | None) -> list[str]:
    """Draw the free lists, order 10 at the top, heads on the left."""
    items, labels, boxes = [], [], []
    for order in range(NR_PAGE_ORDERS):
        top = _row(order)
        items.append(svg.text(24, top + 14, order, size=svg.SMALL, ink="muted", anchor="end"))
        pfns = state.lists[order]
        for i, pfn in enumerate(pfns[:SHOWN]):
            left = LIST_X + i * (LIST_W + 2)
            boxes.append((left, top, LIST_W, ROW - 2))
            labels.append(
                svg.text(
                    left + LIST_W / 2, top + 14, pfn, size=svg.SMALL, anchor="middle", on="free"
                )
            )
            if focus == (pfn, order):
                labels.append(svg.rect(left, top, LIST_W, ROW - 2, stroke="ink", width=2))
        if not pfns:
            items.append(svg.text(LIST_X, top + 14, "–", size=svg.SMALL, ink="muted"))
        if len(pfns) > SHOWN:
            x = LIST_X + SHOWN * (LIST_W + 2)
            labels.append(svg.text(x, top + 14, f"+{len(pfns) - SHOWN}", size=svg.SMALL))
    if boxes:
        items.append(svg.path(_boxes(boxes), "free", stroke="muted"))
    return items + labels


def _buddy_frame(
    state: _BuddyState,
    caption: str,
    mark: str,
    focus: tuple[int, int] | None,
    event: Event | None,
    action: str,
) -> Frame:
    """Return the frame of one moment."""
    d = svg.Drawing()
    d.add(svg.text(0, 13, action, bold=True))
    for x, name in (
        (0, "order"),
        (LIST_X, "free list, head first"),
        (TREE_X, "the zone, lowest pfn left"),
    ):
        d.add(svg.text(x, TOP - 8, name, size=svg.SMALL, ink="muted"))
    d.add(*_ladder(state, focus), *_tree(state, focus))
    d.height = TOP + NR_PAGE_ORDERS * ROW + 2
    held = ", ".join(f"{p} (order {o})" for p, o in sorted(state.used.items())) or "none"
    lists = "; ".join(
        f"order {o}: {', '.join(map(str, p[:8]))}{' and more' if len(p) > 8 else ''}"
        for o, p in state.lists.items()
        if p
    )
    alt = f"{svg_plain(caption)} Blocks in use: {held}. Free lists, head first: {lists or 'all empty'}."
    return Frame(d, caption, alt, mark, event, state.rows())


def svg_plain(caption: str) -> str:
    """Return a caption without its marks."""
    return caption.replace("`", "").replace("**", "")


Moment = tuple[_BuddyState, Event]


def _recorded(zone: Zone, used: Blocks, step: Any) -> tuple[Any, list[Moment]]:
    """Run @step and return its result with the state of the lists at each event."""
    moments: list[Moment] = []
    trace = zone.machine.trace

    def listen(event: Event) -> None:
        moments.append((_BuddyState(zone, used), event))

    trace.attach(listen, "model:buddy_*", "model:free_list_*")
    try:
        return step(), moments
    finally:
        trace.detach(listen)


def _alloc_frames(zone: Zone, used: Blocks, order: int, action: str) -> Iterator[Frame]:
    """Yield what `__rmqueue_smallest()` does for one request."""
    page, moments = _recorded(
        zone, used, lambda: page_alloc.__rmqueue_smallest(zone, order, MIGRATE_MOVABLE)
    )
    if page is None:
        state = _BuddyState(zone, used)
        text = f"No list from order {order} up has a block: `__rmqueue_smallest()` returns NULL."
        yield _buddy_frame(state, text, "none", None, None, action)
        return
    taken = next(
        event.fields["order"] for _, event in moments if event.name == "model:free_list_del"
    )
    for state, event in moments:
        f = event.fields
        if event.name == "model:free_list_del":
            text = f"Order {taken} is the first from {order} up with a block. Its head, page {f['pfn']}, is taken off."
            yield _buddy_frame(state, text, "take", (f["pfn"], taken), event, action)
        elif event.name == "model:buddy_split":
            text = (
                f"`expand()` halves it: the upper half, page {f['pfn']}, goes to the head of order "
                f"{f['order']}; the lower half, page {page.pfn}, is kept."
            )
            yield _buddy_frame(state, text, "split", (f["pfn"], f["order"]), event, action)
    used[page.pfn] = order
    text = f"Page {page.pfn}, order {order}, is given out."
    yield _buddy_frame(_BuddyState(zone, used), text, "given", (page.pfn, order), None, action)


def _free_frames(zone: Zone, used: Blocks, pfn: int, action: str) -> Iterator[Frame]:
    """Yield what `__free_one_page()` does for one block."""
    order = used.pop(pfn)
    page = zone.mem_map[pfn]
    _, moments = _recorded(
        zone,
        used,
        lambda: page_alloc.__free_one_page(
            page, pfn, zone, order, MIGRATE_MOVABLE, page_alloc.FPI_NONE
        ),
    )
    for state, event in moments:
        f = event.fields
        if event.name == "model:buddy_merge":
            both, up = min(f["pfn"], f["buddy_pfn"]), f["order"] + 1
            text = (
                f"The buddy of page {f['pfn']} at order {f['order']} is {f['buddy_pfn']}, and it is free: "
                f"they merge into one block of order {up} at {both}."
            )
            yield _buddy_frame(state, text, "merge", (both, up), event, action)
        elif event.name == "model:free_list_add":
            text = _placed(f["pfn"], f["order"], f["to_tail"])
            mark = "tail" if f["to_tail"] else "place"
            yield _buddy_frame(state, text, mark, (f["pfn"], f["order"]), event, action)


def _placed(pfn: int, order: int, tail: bool) -> str:
    """Say where the finished block went, and why."""
    buddy = pfn ^ (1 << order)
    if tail:
        parent = pfn & ~(1 << order)
        return (
            f"Its buddy {buddy} is not free. But the parent's buddy, {parent ^ (2 << order)} at order "
            f"{order + 1}, is: a merge is likely, so the block goes to the **tail** of order {order}."
        )
    if order == MAX_PAGE_ORDER:
        return f"Order {order} is the largest: the block at {pfn} goes to the **head** of its list."
    return f"Its buddy {buddy} is not free as a whole. The block goes to the **head** of order {order}."


@explorable(
    "ch02.buddy",
    title="Buddy allocator: split and merge",
    key=("split", "tail"),
    params=dict(
        pages=Int(
            1024, 16, 4096, step=16, unit="pages", help="size of the zone, which starts at pfn 0"
        ),
        script=Actions(
            "alloc 0; alloc 0; alloc 0; alloc 0; free 0; free 1; free 3; free 2",
            verbs={"alloc": Int(0, 0, MAX_PAGE_ORDER), "free": Int(0, 0, 4095)},
            limit=60,
            help="alloc ORDER takes a block, free PFN gives back the block that begins there",
        ),
    ),
    help="Allocate by order and free by pfn; each step shows the tree of halves and all free lists.",
)
def buddy(p: Any) -> Iterator[Frame]:
    """Split and merge, one event at a time."""
    zone = machine.bare_zone(p.pages)
    used: Blocks = {}
    start = f"A zone of {_plural(p.pages, 'page')}, all free, in the largest blocks that fit."
    yield _buddy_frame(_BuddyState(zone, used), start, "start", None, None, "at the start")
    for i, (verb, arg) in enumerate(p.script, 1):
        action = f"{i}. {verb} {arg}"
        if verb == "alloc":
            yield from _alloc_frames(zone, used, arg, action)
            continue
        if arg not in used:
            held = ", ".join(str(pfn) for pfn in sorted(used)) or "none"
            raise ParamError(
                "script",
                f"action {i}, 'free {arg}': no block in use begins at page {arg}; in use are: {held}",
            )
        yield from _free_frames(zone, used, arg, action)


# ---- ch02.fragmentation: pageblocks over time ----------------------------------------------------


def _take_page(zone: Zone, mt: int, flags: int, policy: str, mode: list[int]) -> Any:
    """Take one page from the free lists of @zone under a policy of falling back.

    :param mode: where the search was lucky last time, kept for a batch as rmqueue_bulk() does
    """
    wanted = MIGRATE_UNMOVABLE if policy == "ungrouped" else mt
    if policy != "steal":
        return page_alloc.__rmqueue(zone, 0, wanted, flags, mode)
    page = page_alloc.__rmqueue_smallest(zone, 0, wanted)
    if page is None and not flags & ALLOC_NOFRAGMENT:
        page = page_alloc.__rmqueue_steal(zone, 0, wanted)
    return page


def _give_page(page: Any) -> None:
    """Give one page back to the free lists, under its pageblock's present type."""
    page.flags = 0
    block = page_alloc.get_pageblock_migratetype(page)
    page_alloc.__free_one_page(page, page.pfn, page.zone, 0, block, page_alloc.FPI_NONE)


#: Pages that are taken from the buddy lists at once, as a CPU's list does in a large zone.
BATCH = 63


class _Workload:
    """A seeded mix of movable and unmovable single pages in a Normal zone with a DMA32 zone behind it.

    Each round allocates and frees pages of both kinds; how a request falls back is the policy.
    """

    def __init__(self, blocks: int, seed: int, policy: str, nofragment: bool) -> None:
        self.zones = [machine.bare_zone(blocks * pageblock_nr_pages)]
        self.zones.append(machine.bare_zone(max(2, blocks // 4) * pageblock_nr_pages, name="DMA32"))
        for zone in self.zones:
            zone.machine.watermark_boost_factor = 0
            zone.machine.page_group_by_mobility_disabled = policy == "ungrouped"
        self.rng = random.Random(seed)
        self.policy, self.nofragment = policy, nofragment
        self.held: dict[int, list[Any]] = {MIGRATE_MOVABLE: [], MIGRATE_UNMOVABLE: []}
        self.mixed_by_steal = 0
        self._modes: dict[tuple[str, int, int], tuple[int, list[int]]] = {}
        for zone in self.zones:
            zone.machine.trace.attach(self._count, "kmem:mm_page_alloc_extfrag")

    def _count(self, event: Event) -> None:
        self.mixed_by_steal += 1 - event.fields["change_ownership"]

    def _mode(self, zone: Zone, mt: int, flags: int) -> list[int]:
        """Return the search mode of this kind of request, a fresh one for every batch."""
        left, mode = self._modes.get((zone.name, mt, flags), (0, []))
        if left == 0:
            left, mode = BATCH, [page_alloc.RMQUEUE_NORMAL]
        self._modes[zone.name, mt, flags] = (left - 1, mode)
        return mode

    def alloc(self, mt: int) -> bool:
        """Take one page of the kind @mt, walking the zones as the kernel would."""
        first = ALLOC_NOFRAGMENT if self.nofragment else 0
        for flags in dict.fromkeys((first, 0)):
            for zone in self.zones:
                page = _take_page(zone, mt, flags, self.policy, self._mode(zone, mt, flags))
                if page is not None:
                    page.flags = 1 << PG_lru if mt == MIGRATE_MOVABLE else 0
                    self.held[mt].append(page)
                    return True
        return False

    def free(self, mt: int, share: float) -> None:
        """Give back a random share of the pages of the kind @mt."""
        pages = self.held[mt]
        self.rng.shuffle(pages)
        for _ in range(int(len(pages) * share)):
            _give_page(pages.pop())

    def round(self, movable: int, unmovable: int) -> None:
        """Allocate in bursts of both kinds, as long as there is room."""
        self._modes.clear()
        wanted = [MIGRATE_MOVABLE] * movable + [MIGRATE_UNMOVABLE] * unmovable
        self.rng.shuffle(wanted)
        for mt in wanted:
            if not self.alloc(mt):
                return


class _BlockCount:
    """What the pages of one pageblock are: how many free, movable in use, unmovable in use."""

    def __init__(self) -> None:
        self.free = self.movable = self.unmovable = 0

    @property
    def mixed(self) -> bool:
        """Whether movable and unmovable pages share the block."""
        return self.movable > 0 and self.unmovable > 0


def _block_counts(load: _Workload, zone: Zone) -> list[_BlockCount]:
    """Count the pages of each pageblock of @zone."""
    counts = [_BlockCount() for _ in zone.pageblock_flags]
    for mt, pages in load.held.items():
        for page in pages:
            if page.zone is zone:
                count = counts[page.pfn // pageblock_nr_pages]
                if mt == MIGRATE_MOVABLE:
                    count.movable += 1
                else:
                    count.unmovable += 1
    for count in counts:
        count.free = pageblock_nr_pages - count.movable - count.unmovable
    return counts


TILE_W, TILE_H, PER_ROW = 46, 40, 12


def _tiles(zone: Zone, counts: list[_BlockCount], y: float) -> tuple[list[str], float]:
    """Draw the pageblocks of a zone: a bar of what is in each, and the letter of its type."""
    bars: dict[str, list[tuple[float, float, float, float]]] = {
        "unmovable": [],
        "movable": [],
        "free": [],
    }
    letters, frames, mixed = [], [], []
    for i, count in enumerate(counts):
        left = i % PER_ROW * TILE_W
        top = y + i // PER_ROW * (TILE_H + 8)
        bottom = top + TILE_H
        for hue, pages in (
            ("unmovable", count.unmovable),
            ("movable", count.movable),
            ("free", count.free),
        ):
            # A single page would be thinner than a hair: what is there at all is at least 2 high.
            h = max(2.0, (TILE_H - 14) * pages / pageblock_nr_pages) if pages else 0.0
            h = min(h, bottom - top - 14)
            if hue == "free" and pages:
                h = bottom - top - 14
            if h > 0:
                bottom -= h
                bars[hue].append((left + 1, bottom, TILE_W - 6, h))
        frames.append((left, top, TILE_W - 4, TILE_H))
        kind = zone.pageblock_flags[i]
        letters.append(
            svg.text(left + 3, top + 12, MIGRATETYPE_LETTERS[kind], size=svg.SMALL, bold=True)
        )
        if count.mixed:
            mixed.append((left, top, TILE_W - 4, TILE_H))
            letters.append(
                svg.text(
                    left + TILE_W - 8, top + 12, f"{count.unmovable}", size=svg.SMALL, anchor="end"
                )
            )
    items = [svg.path(_boxes(rects), hue) for hue, rects in bars.items() if rects]
    items.append(svg.path(_boxes(frames), stroke="muted"))
    if mixed:
        items.append(svg.path(_boxes(mixed), stroke="ink", width=2))
    rows = (len(counts) + PER_ROW - 1) // PER_ROW
    return items + letters, y + rows * (TILE_H + 8)


def _fragmentation_frame(load: _Workload, when: str, mark: str) -> Frame:
    """Return the picture of both zones now."""
    d = svg.Drawing()
    normal, dma32 = load.zones
    counts = _block_counts(load, normal)
    spare = _block_counts(load, dma32)
    blocks = counts + spare
    mixed = sum(c.mixed for c in blocks)
    whole = sum(c.unmovable == 0 for c in blocks)
    held = {
        name: len(load.held[mt])
        for name, mt in (("movable", MIGRATE_MOVABLE), ("unmovable", MIGRATE_UNMOVABLE))
    }
    d.add(
        svg.text(
            0,
            13,
            f"{when}: {held['movable']:,} movable and {held['unmovable']:,} unmovable pages in use",
            bold=True,
        )
    )
    d.add(svg.text(0, 36, "zone Normal", size=svg.SMALL, ink="muted"))
    items, y = _tiles(normal, counts, 42)
    d.add(*items)
    d.add(svg.text(0, y + 14, "zone DMA32, next on the zonelist", size=svg.SMALL, ink="muted"))
    items, y = _tiles(dma32, spare, y + 20)
    d.add(*items)
    x = 0.0
    for hue, label in (
        ("unmovable", "unmovable in use"),
        ("movable", "movable in use"),
        ("free", "free"),
    ):
        d.add(
            svg.rect(x, y + 6, 14, 12, hue, stroke="muted"),
            svg.text(x + 20, y + 17, label, size=svg.SMALL),
        )
        x += 34 + svg.text_width(label, svg.SMALL)
    d.add(
        svg.rect(x, y + 6, 14, 12, stroke="ink", width=2),
        svg.text(x + 20, y + 17, "mixed (how many unmovable)", size=svg.SMALL),
    )
    d.height = y + 26
    needed = -(-held["unmovable"] // pageblock_nr_pages)
    caption = (
        f"{when}: {_plural(mixed, 'pageblock')} of {len(blocks)} mix both kinds. If every movable page went away, "
        f"{whole} pageblocks could become huge pages; with perfect sorting it would be {len(blocks) - needed}."
    )
    data = {
        "types": {z.name: [MIGRATETYPE_NAMES[t] for t in z.pageblock_flags] for z in load.zones},
        "counts": {
            z.name: [(c.free, c.movable, c.unmovable) for c in cs]
            for z, cs in ((normal, counts), (dma32, spare))
        },
        "mixed": mixed,
        "whole": whole,
        "held": held,
        "steals": load.mixed_by_steal,
    }
    return Frame(d, caption, caption, mark, None, data)


@explorable(
    "ch02.fragmentation",
    title="Pageblocks under a mixed load",
    key=("first", "last"),
    params=dict(
        blocks=Int(
            16, 8, 24, unit="pageblocks", help="size of zone Normal; DMA32 gets a quarter more"
        ),
        policy=Choice(
            "kernel",
            {
                "kernel": "claim a pageblock, else steal (Linux 6.12)",
                "steal": "never claim, always steal",
                "ungrouped": "no grouping by mobility",
            },
            help="what a request does when its own lists are empty",
        ),
        nofragment=Bool(
            False, help="look at DMA32 before mixing types in Normal (ALLOC_NOFRAGMENT)"
        ),
        fill=Int(100, 20, 100, step=5, unit="%", help="how full zone Normal gets in each round"),
        rounds=Int(6, 1, 10, help="how many rounds of allocating and freeing"),
        seed=Seed(7),
    ),
    help="The same load under another policy: how many pageblocks stay whole?",
)
def fragmentation(p: Any) -> Iterator[Frame]:
    """A load of movable and unmovable pages, round by round."""
    load = _Workload(p.blocks, p.seed, p.policy, p.nofragment)
    total = p.blocks * pageblock_nr_pages
    yield _fragmentation_frame(load, "At the start", "start")
    for i in range(1, p.rounds + 1):
        room = total * p.fill // 100 - sum(len(pages) for pages in load.held.values())
        unmovable = max(0, room) // 16
        load.round(max(0, room) - unmovable, unmovable)
        mark = {1: "first", p.rounds: "last"}.get(i, "full")
        yield _fragmentation_frame(load, f"Round {i}, filled to {p.fill} %", mark)
        if i < p.rounds:
            load.free(MIGRATE_MOVABLE, 0.6)
            load.free(MIGRATE_UNMOVABLE, 0.3)


# ---- ch02.watermarks: the gauge ------------------------------------------------------------------

#: Who asks: what the row says, alloc_flags, the mark it is tested against.
CALLERS: tuple[tuple[str, int, int], ...] = (
    ("any request, fast path", 0, WMARK_LOW),
    ("GFP_KERNEL", 0, WMARK_MIN),
    ("GFP_NOWAIT", ALLOC_NON_BLOCK, WMARK_MIN),
    ("__GFP_HIGH, may sleep", ALLOC_MIN_RESERVE, WMARK_MIN),
    ("OOM victim", ALLOC_OOM, WMARK_MIN),
    ("GFP_ATOMIC", ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, WMARK_MIN),
    ("PF_MEMALLOC", ALLOC_NO_WATERMARKS, WMARK_MIN),
)


def _allowed(zone: Zone, free: int, alloc_flags: int, wmark: int) -> bool:
    """Ask the engine whether a single page may be taken with @free pages left."""
    if alloc_flags & ALLOC_NO_WATERMARKS:
        return free > 0
    if free <= 0:
        return False
    saved = zone.vm_stat[NR_FREE_PAGES]
    zone.vm_stat[NR_FREE_PAGES] = free
    try:
        mark = wmark_pages(zone, wmark)
        return page_alloc.zone_watermark_fast(zone, 0, mark, zone.zone_idx, alloc_flags | wmark, 0)
    finally:
        zone.vm_stat[NR_FREE_PAGES] = saved


def _floor(zone: Zone, alloc_flags: int, wmark: int) -> int:
    """Return the smallest number of free pages with which such a request is served."""
    low, high = 0, wmark_pages(zone, wmark) + 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _allowed(zone, middle, alloc_flags, wmark) else (middle, high)
    return high


def _spread(wanted: list[float], gap: float, bottom: float) -> list[float]:
    """Return label positions near the @wanted ones (ascending), at least @gap apart, none below @bottom."""
    out: list[float] = []
    for y in wanted:
        out.append(max(y, out[-1] + gap) if out else y)
    shift = max(0.0, out[-1] - bottom) if out else 0.0
    for i in reversed(range(len(out))):
        limit = bottom - (len(out) - 1 - i) * gap
        out[i] = min(out[i], limit) if shift else out[i]
    return out


GAUGE_TOP, GAUGE_H = 34, 300


def _gauge(zone: Zone, free: int, top_value: int) -> list[str]:
    """Draw the column of free memory with its marks."""

    def y_of(pages: float) -> float:
        return GAUGE_TOP + GAUGE_H * (1 - min(pages, top_value) / top_value)

    marks = [
        ("promo", promo_wmark_pages(zone)),
        ("high", high_wmark_pages(zone)),
        ("low", low_wmark_pages(zone)),
        ("min", min_wmark_pages(zone)),
        ("half of min", _floor(zone, ALLOC_MIN_RESERVE, WMARK_MIN) - 1),
        ("37.5 % of min", _floor(zone, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, WMARK_MIN) - 1),
    ]
    items = [
        svg.rect(0, GAUGE_TOP, 40, GAUGE_H, stroke="muted"),
        svg.rect(0, y_of(free), 40, GAUGE_TOP + GAUGE_H - y_of(free), "free", stroke="muted"),
    ]
    spots = _spread([y_of(value) for _, value in marks], 16, GAUGE_TOP + GAUGE_H)
    for (name, value), spot in zip(marks, spots, strict=True):
        y = y_of(value)
        items.append(svg.polyline([(0, y), (42, y), (54, spot), (60, spot)], "ink", width=1))
        items.append(svg.text(64, spot + 4, f"{name} {value:,}", size=svg.SMALL))
    items.append(svg.text(0, GAUGE_TOP - 8, f"free: {free:,} pages", bold=True))
    return items


def _watermark_frame(zone: Zone, free: int, top_value: int, where: str, mark: str) -> Frame:
    """Return the gauge at one level, with everybody's answer."""
    d = svg.Drawing()
    d.add(*_gauge(zone, free, top_value))
    x, y = 206, GAUGE_TOP + 4
    d.add(svg.text(x, y + 8, "who asks for one page, and the answer", size=svg.SMALL, ink="muted"))
    answers = {}
    for i, (who, flags, wmark) in enumerate(CALLERS):
        top = y + 18 + i * 38
        served = _allowed(zone, free, flags, wmark)
        answers[who] = served
        d.add(svg.rect(x, top, svg.WIDTH - x, 34, "panel", stroke="faint"))
        sign, ink = ("✓", "ink") if served else ("✗", "wrong")
        d.add(svg.text(x + 8, top + 22, sign, ink=ink, bold=True))
        d.add(svg.text(x + 28, top + 15, who, size=svg.SMALL, bold=True))
        needs = (
            "no mark is checked"
            if flags & ALLOC_NO_WATERMARKS
            else f"needs {_floor(zone, flags, wmark):,} free"
        )
        d.add(svg.text(x + 28, top + 29, needs, size=svg.SMALL, ink="muted"))
        word = "gets a page" if served else "refused"
        d.add(svg.text(svg.WIDTH - 8, top + 21, word, anchor="end", ink=ink, bold=True))
    d.height = GAUGE_TOP + GAUGE_H + 14
    refused = [who for who, ok in answers.items() if not ok]
    first = "Everybody is served" if not refused else f"Refused: {', '.join(refused)}"
    kswapd = "" if answers[CALLERS[0][0]] else " A request that fails here wakes kswapd."
    caption = f"{where}, {free:,} free pages. {first}.{kswapd}"
    marks = dict(
        zip(("min", "low", "high", "promo"), (wmark_pages(zone, w) for w in range(4)), strict=True)
    )
    return Frame(d, caption, caption, mark, None, {"free": free, "marks": marks, "served": answers})


@explorable(
    "ch02.watermarks",
    title="Watermarks: who may allocate",
    key=("min", "atomic"),
    params=dict(
        managed=Int(
            244001, 2048, 16777216, unit="pages", help="managed pages of the zone, the only one"
        ),
        min_free_kbytes=Int(45056, 128, 262144, unit="kB", help="vm.min_free_kbytes"),
        scale=Int(10, 1, 3000, help="vm.watermark_scale_factor, in 1/10000 of the zone"),
        boost=Int(0, 0, 65536, unit="pages", help="watermark_boost, added to every mark"),
    ),
    help="Change what the marks are computed from and step down through the levels.",
)
def watermarks(p: Any) -> Iterator[Frame]:
    """The marks of one zone and who is served at each level."""
    zone = machine.bare_zone(p.managed, free=False)
    zone.managed_pages = p.managed
    zone.machine.min_free_kbytes = p.min_free_kbytes
    zone.machine.watermark_scale_factor = p.scale
    page_alloc.setup_per_zone_wmarks(zone.machine)
    zone.watermark_boost = p.boost
    if high_wmark_pages(zone) >= p.managed:
        raise ParamError(
            "",
            f"the high mark is {high_wmark_pages(zone):,} pages, more than the zone's {p.managed:,}; nothing would ever be allocated",
        )
    top = promo_wmark_pages(zone) * 23 // 20 + 8
    minimum, half = min_wmark_pages(zone), _floor(zone, ALLOC_MIN_RESERVE, WMARK_MIN) - 1
    atomic = _floor(zone, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK, WMARK_MIN) - 1
    levels = (
        ("Above the high mark", high_wmark_pages(zone) + 1, "high"),
        ("Between low and high", (low_wmark_pages(zone) + high_wmark_pages(zone)) // 2, "between"),
        ("At the low mark", low_wmark_pages(zone), "low"),
        ("At the min mark", minimum, "min"),
        ("At half of min", half, "half"),
        ("At 37.5 % of min", atomic, "atomic"),
        ("Nothing left", 0, "empty"),
    )
    for where, free, mark in levels:
        yield _watermark_frame(zone, free, top, where, mark)


# ---- ch02.zonelist: the walk ---------------------------------------------------------------------

WMARK_NAMES = ("min", "low", "high", "promo")


class _Row:
    """One line of the walk's table."""

    def __init__(
        self, zone: Zone, wmark: int, free: int, exceed: int, verdict: str, served: bool
    ) -> None:
        self.zone, self.wmark, self.free = zone, wmark, free
        self.exceed, self.verdict, self.served = exceed, verdict, served

    def data(self) -> dict[str, Any]:
        """Return the line as plain data."""
        return {
            "zone": f"{self.zone.node}/{self.zone.name}",
            "mark": WMARK_NAMES[self.wmark],
            "free": self.free,
            "must_exceed": self.exceed,
            "verdict": self.verdict,
        }


def _keep_free(zone: Zone, pages: int) -> None:
    """Take blocks from @zone until it has @pages free pages."""
    for order in reversed(range(NR_PAGE_ORDERS)):
        while zone.vm_stat[NR_FREE_PAGES] - (1 << order) >= pages:
            if page_alloc.__rmqueue_smallest(zone, order, MIGRATE_MOVABLE) is None:
                break


def _must_exceed(zone: Zone, order: int, mark: int, highest_zoneidx: int, flags: int) -> int:
    """Return the number of free pages that the engine's watermark check wants exceeded."""
    low, high = 0, mark + zone.lowmem_reserve[highest_zoneidx] + zone.nr_free_highatomic + 2
    while high - low > 1:
        middle = (low + high) // 2
        ok = page_alloc.__zone_watermark_ok(zone, 0, mark, highest_zoneidx, flags, middle)
        low, high = (low, middle) if ok else (middle, high)
    return low + (1 << order) - 1


def _walk_row(m: Any, event: Event, gfp: int, order: int, slow: bool) -> _Row:
    """Explain one zone_tried event: what the free pages had to exceed, and why they did not."""
    f = event.fields
    zone = m.node_data[f["nid"]].node_zones[f["zone_idx"]]
    flags = page_alloc.gfp_to_alloc_flags(m, gfp, order) if slow else 0
    floor = _must_exceed(zone, order, f["mark"], zone.zone_idx, flags)
    exceed = _must_exceed(zone, order, f["mark"], gfp_zone(gfp), flags)
    if f["result"] == "ok":
        verdict = "passes"
    elif f["result"] == "no page":
        verdict = "no block of its kind"
    elif f["result"] != "watermark":
        verdict = f["result"]
    elif f["free_pages"] <= floor:
        verdict = "below the mark"
    elif f["free_pages"] <= exceed:
        verdict = "lowmem_reserve"
    else:
        verdict = f"no order-{order} block"
    return _Row(
        zone, f["wmark"], f["free_pages"], exceed, verdict, f["result"] in ("ok", "ignored")
    )


WALK_ROWS = 8


def _waiting_rows(zones: Sequence[tuple[str, int]], y: float) -> list[str]:
    """Return the zones of the list that will be asked, with what they have free."""
    items = []
    for i, (name, free) in enumerate(zones[:WALK_ROWS]):
        top = y + 20 + i * 26 + 16
        items.append(svg.text(6, top, name, size=svg.SMALL, ink="muted"))
        items.append(svg.text(116, top, "not asked yet", size=svg.SMALL, ink="muted"))
        items.append(svg.text(306, top, f"{free:,}", size=svg.SMALL, anchor="end", ink="muted"))
    return items


def _walk_frame(
    rows: list[_Row],
    head: list[str],
    caption: str,
    mark: str,
    event: Event | None,
    waiting: Sequence[tuple[str, int]] = (),
) -> Frame:
    """Return the table with the rows so far, or with the zones that are @waiting to be asked."""
    d = svg.Drawing()
    for i, line in enumerate(head):
        d.add(svg.text(0, 13 + 17 * i, line, size=svg.SMALL, bold=i == 0))
    y = 17 * len(head) + 12
    columns = (
        (0, "start", "zone"),
        (116, "start", "verdict"),
        (306, "end", "free"),
        (404, "end", "must exceed"),
        (420, "start", "of its mark"),
    )
    for x, anchor, name in columns:
        d.add(svg.text(x, y + 12, name, size=svg.SMALL, ink="muted", anchor=anchor))
    places = [(0.0, y + 20 + i * 26.0, float(svg.WIDTH), 23.0) for i in range(WALK_ROWS)]
    d.add(svg.path(_boxes(places), stroke="faint", dash="2 3"))
    d.add(*_waiting_rows(waiting, y))
    skipped = max(0, len(rows) - WALK_ROWS)
    for i, row in enumerate(rows[skipped:]):
        top = y + 20 + i * 26
        last = i == len(rows) - skipped - 1
        d.add(
            svg.rect(
                0, top, svg.WIDTH, 23, "lit" if last else "panel", stroke="ink" if last else "faint"
            )
        )
        values = (
            f"node {row.zone.node} {row.zone.name}",
            row.verdict,
            f"{row.free:,}",
            f"{row.exceed:,}",
            WMARK_NAMES[row.wmark],
        )
        for (x, anchor, _), value in zip(columns, values, strict=True):
            ink = "wrong" if x == 116 and not row.served else "ink"
            d.add(
                svg.text(
                    x + (6 if x == 0 else 0),
                    top + 16,
                    value,
                    size=svg.SMALL,
                    anchor=anchor,
                    ink=ink,
                )
            )
    d.height = y + 24 + WALK_ROWS * 26
    lines = [
        f"{r.zone.name} of node {r.zone.node}: {r.free:,} free against {r.exceed:,}, {r.verdict}"
        for r in rows[skipped:]
    ] + [f"{zone}: {free:,} free" for zone, free in waiting]
    alt = svg_plain(caption) + (f" {'; '.join(lines)}." if lines else "")
    return Frame(d, caption, alt, mark, event, [r.data() for r in rows])


def _gfp_of(text: str) -> int:
    """Return the gfp value of a text.

    :raises ParamError: saying what is wrong with it
    """
    try:
        value = parse_gfp(text)
        if value >> __GFP_BITS_SHIFT:
            raise UsageError(f"{value:#x} has bits that no gfp flag of this kernel has")
        gfp_zone(value)
        gfp_migratetype(value)
    except UsageError as err:
        raise ParamError("gfp", str(err)) from None
    return value


@explorable(
    "ch02.zonelist",
    title="The walk along a zonelist",
    key=("lowmem", "served"),
    params=dict(
        gfp=Text("0x140dca", limit=200, help="flags by value or by name"),
        order=Int(0, 0, MAX_PAGE_ORDER),
        node=Choice(
            "0",
            {"0": "node 0: 4 GiB, three zones", "1": "node 1: 1 GiB, zone Normal"},
            help="where the CPU is",
        ),
        normal0=Int(5000, 0, 245000, unit="pages", help="free in Normal of node 0"),
        dma32=Int(17500, 0, 770000, unit="pages", help="free in DMA32 of node 0"),
        dma=Int(3840, 0, 3840, unit="pages", help="free in DMA of node 0"),
        normal1=Int(9000, 0, 258000, unit="pages", help="free in Normal of node 1"),
    ),
    help="Which zones does a request try, and what does each answer?",
)
def zonelist(p: Any) -> Iterator[Frame]:
    """A request on a machine with two nodes, zone by zone."""
    gfp = _gfp_of(p.gfp)
    m = machine.Machine.boot("5G", nodes=["4G", "1G"])
    levels = {
        (0, "Normal"): p.normal0,
        (0, "DMA32"): p.dma32,
        (0, "DMA"): p.dma,
        (1, "Normal"): p.normal1,
    }
    for zone in for_each_populated_zone(m):
        _keep_free(zone, levels[zone.node, zone.name])
    nid = int(p.node)
    head = [
        f"gfp {gfp:#x}, order {p.order}, from node {nid}",
        gfp_str(gfp),
        f"highest zone {ZONE_NAMES[gfp_zone(gfp)]}, type {MIGRATETYPE_NAMES[gfp_migratetype(gfp)]}",
    ]
    rows: list[_Row] = []
    refs = m.node_data[nid].node_zonelists[ZONELIST_FALLBACK]._zonerefs
    waiting = [
        (f"node {r.zone.node} {r.zone.name}", r.zone.vm_stat[NR_FREE_PAGES])
        for r in refs
        if r.zone.zone_idx <= gfp_zone(gfp)
    ]
    with m.trace.record("model:zone_tried", "model:slowpath") as log:
        page = page_alloc.__alloc_pages(m, gfp, p.order, nid, None)
    text = f"The request may go to {_plural(len(waiting), 'zone')}, in this order."
    yield _walk_frame(rows, head, text, "start", None, waiting)
    slow = False
    first, again = "", False
    for event in log:
        if event.name == "model:slowpath":
            slow = True
            continue
        row = _walk_row(m, event, gfp, p.order, slow)
        rows.append(row)
        zone_name = f"{row.zone.node}/{row.zone.name}"
        again, first = again or zone_name == first, first or zone_name
        where = "Fast path, again without `ALLOC_NOFRAGMENT`" if again else "Fast path"
        where = "Slow path" if slow else where
        yield _walk_frame(rows, head, _walk_caption(row, where), _walk_mark(row), event)
    if page is None:
        yield _walk_frame(rows, head, "No zone gives a page: the request fails.", "failed", None)
    else:
        text = f"Zone {page.zone.name} of node {page.zone.node} gives page {page.pfn:#x}."
        yield _walk_frame(rows, head, text, "served", None)


def _walk_mark(row: _Row) -> str:
    if row.served:
        return "passes"
    return "lowmem" if row.verdict == "lowmem_reserve" else "refused"


def _walk_caption(row: _Row, where: str) -> str:
    """Say what happened at one zone."""
    name = f"{row.zone.name} of node {row.zone.node}"
    if row.served:
        return f"{where}: {name} has {row.free:,} free pages, more than {row.exceed:,}. It passes at the {WMARK_NAMES[row.wmark]} mark."
    why = {
        "below the mark": f"{row.free:,} free pages are not enough for the {WMARK_NAMES[row.wmark]} mark",
        "lowmem_reserve": f"its {row.free:,} free pages would do, but `lowmem_reserve` keeps them for requests that cannot go higher",
        "no block of its kind": "the mark is met, but no free list gives a block",
    }.get(row.verdict, row.verdict)
    return f"{where}: {name} refuses: {why}."


# ---- ch02.pcp: a CPU's lists over time -----------------------------------------------------------

PLOT_X, PLOT_W = 66, 400


class _Plot:
    """A line chart: one panel with an axis and directly labelled lines."""

    def __init__(self, y: float, h: float, n: int, top: int, unit: str) -> None:
        self.y, self.h, self.n, self.top = y, h, max(n - 1, 1), max(top, 1)
        self.items: list[str] = []
        for value in (0, self.top // 2, self.top):
            at = self.at(value)
            self.items.append(svg.line(PLOT_X, at, PLOT_X + PLOT_W, at, "faint"))
            self.items.append(
                svg.text(
                    PLOT_X - 6, at + 4, f"{value:,}", size=svg.SMALL, anchor="end", ink="muted"
                )
            )
        self.items.append(svg.text(0, y - 14, unit, size=svg.SMALL, ink="muted"))

    def at(self, value: float) -> float:
        """Return the y of a value."""
        return self.y + self.h * (1 - value / self.top)

    def x(self, i: float) -> float:
        """Return the x of operation @i."""
        return PLOT_X + PLOT_W * i / self.n

    def line(self, values: list[int], stroke: str, dash: str | None = None) -> None:
        """Draw values, one for each operation; what lies on a straight line becomes one segment."""
        points = [
            (self.x(i), self.at(v))
            for i, v in enumerate(values)
            if i in (0, len(values) - 1) or v - values[i - 1] != values[i + 1] - v
        ]
        self.items.append(svg.polyline(points, stroke, width=1.5, dash=dash))

    def labels(self, ends: list[tuple[str, int, str]]) -> None:
        """Write the lines' names at their right ends, apart from each other: (name, last value, ink)."""
        ends = sorted(ends, key=lambda e: -e[1])
        spots = _spread([self.at(v) for _, v, _ in ends], 15, self.y + self.h + 6)
        for (name, _, ink), spot in zip(ends, spots, strict=True):
            self.items.append(
                svg.text(PLOT_X + PLOT_W + 6, spot + 4, name, size=svg.SMALL, ink=ink)
            )


PCP_FIELDS = ("count", "high", "alloc_factor", "free_count")


class _PcpRun:
    """A CPU that allocates and frees single pages, with what its pcp looked like after each operation."""

    def __init__(self, managed: int, cpus: int) -> None:
        self.zone = machine.bare_zone(managed, cpus=cpus)
        m = self.zone.machine
        page_alloc.calculate_min_free_kbytes(m)
        page_alloc.setup_per_zone_wmarks(m)
        self.pcp = self.zone.per_cpu_pageset[0]
        self.held: list[Any] = []
        self.series: dict[str, list[int]] = {name: [getattr(self.pcp, name)] for name in PCP_FIELDS}
        self.phases: list[tuple[str, int, int]] = []
        self.locks = 0
        m.trace.attach(self._refill, "kmem:mm_page_alloc_zone_locked")
        self._refilled = 0

    def _refill(self, event: Event) -> None:
        self._refilled += 1

    def step(self, verb: str) -> bool:
        """Allocate or free one page."""
        self._refilled = 0
        if verb == "alloc":
            page = page_alloc.alloc_pages(self.zone.machine, GFP_KERNEL, 0)
            if page is None:
                return False
            self.held.append(page)
        else:
            release_page(self.held.pop())
        self.locks += self._refilled > 0
        for name, values in self.series.items():
            values.append(getattr(self.pcp, name))
        return True


def release_page(page: Any) -> None:
    """Drop the last reference to a single page."""
    page_alloc.__free_pages(page, 0)


def _nice(value: int) -> int:
    """Return a round number at or above @value, for the end of an axis."""
    unit = int("1" + "0" * max(0, len(str(value)) - 2))
    return max(2, -(-value // unit) * unit)


def _pcp_frame(run: _PcpRun, total: int, caption: str, mark: str) -> Frame:
    """Return the three panels as far as the run has come."""
    d = svg.Drawing()
    s = run.series
    top = max(max(s["count"]), max(s["high"]), run.pcp.high_min)
    upper = _Plot(30, 180, total + 1, _nice(top), "pages")
    middle = _Plot(244, 60, total + 1, _nice(max(max(s["free_count"]), 32)), "pages")
    lower = _Plot(338, 40, total + 1, 5, "doublings")
    for verb, start, end in run.phases:
        for plot in (upper, middle, lower):
            if verb == "alloc":
                d.add(svg.rect(plot.x(start), plot.y, plot.x(end) - plot.x(start), plot.h, "panel"))
        if upper.x(end) - upper.x(start) > 40:
            x = (upper.x(start) + upper.x(end)) / 2
            d.add(svg.text(x, 20, verb, size=svg.SMALL, anchor="middle", ink="muted"))
    upper.line([run.pcp.high_min] * (total + 1), "muted", "4 3")
    upper.line(s["high"], "accent")
    upper.line(s["count"], "ink")
    ends = [
        ("high_min", run.pcp.high_min, "muted"),
        ("high", s["high"][-1], "accent"),
        ("count", s["count"][-1], "ink"),
    ]
    upper.labels(ends)
    middle.line(s["free_count"], "ink")
    middle.labels([("free_count", s["free_count"][-1], "ink")])
    lower.line(s["alloc_factor"], "ink")
    lower.labels([("alloc_factor", s["alloc_factor"][-1], "ink")])
    d.add(*upper.items, *middle.items, *lower.items)
    d.add(
        svg.text(
            PLOT_X + PLOT_W, 396, f"{total:,} operations", size=svg.SMALL, anchor="end", ink="muted"
        )
    )
    d.height = 402
    data = {**{k: list(v) for k, v in s.items()}, "batch": run.pcp.batch, "refills": run.locks}
    return Frame(d, caption, svg_plain(caption), mark, None, data)


@explorable(
    "ch02.pcp",
    title="Per-CPU lists under load",
    key=("last",),
    params=dict(
        managed=Int(262144, 4096, 1048576, step=1024, unit="pages", help="size of the zone"),
        cpus=Int(4, 1, 64, help="CPUs of the node; the first one does the work"),
        script=Actions(
            "alloc 1500; free 1500; alloc 2400; free 300; alloc 100; free 2200",
            verbs={"alloc": Int(100, 1, 20000), "free": Int(100, 1, 20000)},
            limit=24,
            help="alloc N or free N single pages, in phases",
        ),
    ),
    help="Choose how much is allocated and freed in each phase.",
)
def pcp(p: Any) -> Iterator[Frame]:
    """Allocate and free in phases and watch one CPU's lists."""
    total = sum(n for _, n in p.script)
    if total > 60000:
        raise ParamError("script", f"{total:,} operations; 60,000 are allowed")
    if total == 0:
        raise ParamError("script", "has no phase; give for example 'alloc 1000; free 1000'")
    run = _PcpRun(p.managed, p.cpus)
    done = 0
    for i, (verb, n) in enumerate(p.script, 1):
        if verb == "free" and n > len(run.held):
            raise ParamError(
                "script",
                f"action {i}, 'free {n}': only {len(run.held)} pages are allocated by then",
            )
        before = run.locks
        start = done
        for _ in range(n):
            if not run.step(verb):
                break
            done += 1
        run.phases.append((verb, start, done))
        if done - start < n:
            yield _pcp_frame(
                run,
                total,
                f"After {done - start:,} of {n:,} allocations the zone is at its min mark.",
                "last",
            )
            return
        pcp_now = run.pcp
        trips = (
            f" {_plural(run.locks - before, 'refill')} from the buddy lists."
            if verb == "alloc"
            else ""
        )
        text = (
            f"After {verb} {n:,}: {pcp_now.count:,} pages on the lists, `high` {pcp_now.high:,}, "
            f"`alloc_factor` {pcp_now.alloc_factor}, `free_count` {pcp_now.free_count:,}.{trips}"
        )
        yield _pcp_frame(run, total, text, "last" if i == len(p.script) else "phase")


# ---- ch02.order-heatmap: which orders are left ---------------------------------------------------

_FREE_LIST = re.compile(r"Node (\d+) (\w+): ((?:\d+\*\d+kB (?:\(\w+\) )?)+)= (\d+)kB")


def captured_free_lists(text: str, zone: str) -> list[list[int]]:
    """Return the blocks per order of each free-list line of @zone in a kernel log."""
    rows = []
    for _, name, blocks, _ in _FREE_LIST.findall(text):
        if name == zone:
            rows.append([int(n) for n in re.findall(r"(\d+)\*\d+kB", blocks)])
    return rows


def exhausted_machine(size: str, kills: int, share: float, seed: int) -> list[list[int]]:
    """Fill a machine with user pages until a request fails, let a "task" go, and again.

    Three quarters of memory are huge pages of tasks that stay; the rest is single pages.

    :return: blocks per order of zone DMA32 at each failure
    """
    m = machine.Machine.boot(size)
    m.watermark_boost_factor = 0
    rng = random.Random(seed)
    zone = next(z for z in for_each_populated_zone(m) if z.name == "DMA32")
    gfp = GFP_HIGHUSER_MOVABLE | __GFP_NOWARN
    while zone.vm_stat[NR_FREE_PAGES] > zone.managed_pages // 4:
        if page_alloc.alloc_pages(m, gfp | __GFP_COMP, HPAGE_PMD_ORDER) is None:
            break
    held: list[Any] = []
    rows = []
    for _ in range(kills):
        while (page := page_alloc.alloc_pages(m, gfp, 0)) is not None:
            held.append(page)
        rows.append([area.nr_free for area in zone.free_area])
        start = rng.randrange(len(held))
        held = held[start:] + held[:start]
        gone = held[: int(len(held) * share)]
        held = held[len(gone) :]
        for page in gone:
            release_page(page)
    return rows


HEAT_W, HEAT_H = 23.5, 19


def _heat(rows: list[list[int]], x: float, y: float) -> list[str]:
    """Draw one table: a row per moment, a column per order, a bar for the order's share of free memory."""
    bars, items = [], []
    for order in range(NR_PAGE_ORDERS):
        items.append(
            svg.text(
                x + (order + 0.5) * HEAT_W,
                y - 5,
                order,
                size=svg.SMALL,
                anchor="middle",
                ink="muted",
            )
        )
    for i, row in enumerate(rows):
        top = y + i * HEAT_H
        total = sum(n << order for order, n in enumerate(row)) or 1
        for order, n in enumerate(row):
            h = (HEAT_H - 3) * (n << order) / total
            left = x + order * HEAT_W
            if n:
                bars.append((left + 1, top + HEAT_H - 2 - max(h, 1), HEAT_W - 2, max(h, 1)))
            label = f"{n}" if n < 1000 else f"{n // 1000}k"
            items.append(
                svg.text(
                    left + HEAT_W / 2,
                    top + 13,
                    label if n else "·",
                    size=svg.SMALL,
                    anchor="middle",
                    ink="ink" if n else "muted",
                )
            )
    frame = svg.rect(x, y, HEAT_W * NR_PAGE_ORDERS, HEAT_H * len(rows), stroke="faint")
    return [frame, svg.path(_boxes(bars), "free"), *items]


@explorable(
    "ch02.order-heatmap",
    title="What is left when memory is exhausted",
    params=dict(
        capture=Text("n1-256m/oom", limit=100, help="a recorded log with free-list lines"),
        share=Int(
            8, 1, 30, unit="%", help="model: how much of the single pages goes with each kill"
        ),
        seed=Seed(3),
    ),
    help="Blocks per order, kernel and model, each time a request had failed.",
)
def order_heatmap(p: Any) -> Iterator[Frame]:
    """Captured free lists under exhaustion beside the model's."""
    from mmcore.proc import capture

    recorded = capture.load(p.capture)
    kernel = captured_free_lists("\n".join(recorded[name] for name in recorded), "DMA32")
    if not kernel:
        raise ParamError("capture", f"{p.capture} has no free-list line of zone DMA32")
    kernel = kernel[:18]
    size = recorded.header.get("topology_spec", {}).get("mem", "256M")
    model = exhausted_machine(size, len(kernel), p.share / 100, p.seed)
    d = svg.Drawing()
    right = svg.WIDTH - HEAT_W * NR_PAGE_ORDERS
    d.add(
        svg.text(0, 13, "Linux 6.12, zone DMA32", bold=True),
        svg.text(right, 13, "model, zone DMA32", bold=True),
    )
    d.add(*_heat(kernel, 0, 38), *_heat(model, right, 38))
    d.height = 44 + HEAT_H * len(kernel)

    def largest(rows: list[list[int]]) -> int:
        return max(order for row in rows for order, n in enumerate(row) if n)

    text = (
        f"{len(kernel)} failures each, oldest at the top; numbers are blocks, a bar is the order's share of the free "
        f"memory. The largest block ever left is of order {largest(kernel)} in the kernel, {largest(model)} in the model."
    )
    yield Frame(d, text, text, "all", None, {"kernel": kernel, "model": model})


# ---- ch02.page: the 64 bytes ---------------------------------------------------------------------

Word = tuple[int, int, str, str]  # offset, size, field, value


def _free_words() -> list[Word]:
    """Read the words of the first page of a free block off the engine."""
    zone = machine.bare_zone(4096)
    page = next(list_for_each(zone.free_area[MAX_PAGE_ORDER].free_list[MIGRATE_MOVABLE]))
    return [
        (0, 8, "flags", f"{page_flags_word(page):#018x}"),
        (8, 8, "buddy_list.next", f"page of pfn {page.next.pfn}"),
        (16, 8, "buddy_list.prev", "head of the free list"),
        (24, 8, "", ""),
        (32, 8, "", ""),
        (40, 8, "private", f"order: {page.private}"),
        (48, 4, "page_type", f"{page.page_type:#010x} ({page_type_name(page.page_type)})"),
        (52, 4, "_refcount", f"{page._refcount}"),
        (56, 8, "memcg_data", "0"),
    ]


def _tail_words() -> list[Word]:
    """Read the words of the first tail of a large folio off the engine."""
    zone = machine.bare_zone(4096)
    m = zone.machine
    head = page_alloc.alloc_pages(m, GFP_KERNEL | __GFP_COMP, 4)
    assert head is not None and head.folio is not None
    folio = head.folio
    return [
        (0, 8, "flags", f"_flags_1: order {folio._folio_order} in the low byte"),
        (8, 8, "compound_head", f"page of pfn {head.pfn}, plus 1"),
        (16, 4, "_large_mapcount", f"{folio._large_mapcount}"),
        (20, 4, "_entire_mapcount", f"{folio._entire_mapcount}"),
        (24, 4, "_nr_pages_mapped", f"{folio._nr_pages_mapped}"),
        (28, 4, "_pincount", f"{folio._pincount}"),
        (32, 4, "_folio_nr_pages", f"{folio._folio_nr_pages}"),
        (36, 4, "", ""),
        (40, 8, "", ""),
        (48, 4, "_mapcount", "-1"),
        (52, 4, "_refcount", "0"),
        (56, 8, "", ""),
    ]


_LRU: list[Word] = [
    (0, 8, "flags", "PG_*, node, zone"),
    (8, 8, "lru.next", "LRU list"),
    (16, 8, "lru.prev", "LRU list"),
]


def _end(typed: str, value: str, refs: str, memcg: str, name: str = "memcg_data") -> list[Word]:
    return [(48, 4, typed, value), (52, 4, "_refcount", refs), (56, 8, name, memcg)]


PAGE_STATES: dict[str, tuple[str, str, list[Word]]] = {
    "pcp": (
        "on a per-CPU list",
        "movable",
        [
            (0, 8, "flags", "node, zone"),
            (8, 8, "pcp_list.next", "pcp list"),
            (16, 8, "pcp_list.prev", "pcp list"),
            (24, 8, "", ""),
            (32, 8, "", ""),
            (40, 8, "", ""),
            *_end("_mapcount", "-1", "0", "0"),
        ],
    ),
    "anon": (
        "anonymous memory",
        "anon",
        [
            *_LRU,
            (24, 8, "mapping", "anon_vma, bit 0 set"),
            (32, 8, "index", "linear index: vm_pgoff + page"),
            (40, 8, "private", "swap entry, if in the swap cache"),
            *_end("_mapcount", "mappings - 1", "references", "memory cgroup"),
        ],
    ),
    "file": (
        "page cache",
        "file",
        [
            *_LRU,
            (24, 8, "mapping", "address_space of the file"),
            (32, 8, "index", "page number in the file"),
            (40, 8, "private", "buffers of the file system"),
            *_end("_mapcount", "mappings - 1", "references", "memory cgroup"),
        ],
    ),
    "slab": (
        "slab (struct slab)",
        "unmovable",
        [
            (0, 8, "flags", "PG_*, node, zone"),
            (8, 8, "slab_cache", "its kmem_cache"),
            (16, 8, "slab_list.next", "or next partial slab"),
            (24, 8, "slab_list.prev", "or how many are left"),
            (32, 8, "freelist", "first free object"),
            (40, 8, "counters", "inuse 16, objects 15, frozen 1 bits"),
            *_end("page_type", "0xf5...... (slab)", "1", "accounting of its objects", "obj_exts"),
        ],
    ),
    "table": (
        "page table (struct ptdesc)",
        "unmovable",
        [
            (0, 8, "flags", "PG_*, node, zone"),
            (8, 8, "pt_list / pt_rcu_head", ""),
            (16, 8, "pmd_huge_pte", "spare table of a huge page"),
            (24, 8, "", ""),
            (32, 8, "pt_mm", "mm, in a top-level table"),
            (40, 8, "ptl", "the table's lock"),
            *_end("page_type", "0xf2...... (table)", "1", "memory cgroup", "pt_memcg_data"),
        ],
    ),
}
PAGE_NAMES = {
    "free": "first page of a free block",
    **{name: state[0] for name, state in PAGE_STATES.items()},
    "tail": "first tail page of a folio",
}
#: What is worth seeing in each state; the words themselves stand in the drawing.
PAGE_CAPTIONS = {
    "free": "**Free:** the links of its list, its order in `private`, and the type `buddy`. Two words have no use.",
    "pcp": (
        "**On a per-CPU list:** the same links, called `pcp_list`, and neither type nor order: to the buddy "
        "allocator the page is in use."
    ),
    "anon": (
        "**Anonymous memory:** `lru` links it to the pages that reclaim goes through, `mapping` is its anon_vma "
        "(bit 0 says so), `index` its place there; `_mapcount` counts the entries that map it."
    ),
    "file": "**Page cache:** the same words, but `mapping` is the file's address_space and `index` a page of the file.",
    "slab": (
        "**Slab:** `struct slab` lies over it: whose objects it holds, the first free one, and how many are in use."
    ),
    "table": (
        "**Page table:** `struct ptdesc` lies over it: the lock of the table, and the type `table`; a top-level "
        "table names its mm."
    ),
    "tail": (
        "**First tail page of a folio:** bit 0 of `compound_head` makes it a tail; the words that a tail does not "
        "need hold the folio's counts, and its `flags` the order."
    ),
}
BYTE_W, WORD_H, WORD_X = 42, 34, 34
#: A short name for each state, for the list beside the words.
SHORT_NAMES = {
    "free": "free block",
    "pcp": "per-CPU list",
    "anon": "anonymous",
    "file": "page cache",
    "slab": "slab",
    "table": "page table",
    "tail": "tail page",
}


def _page_frame(state: str) -> Frame:
    """Return the eight words of a page in one state."""
    if state == "free":
        hue, words = "free", _free_words()
    elif state == "tail":
        hue, words = "used", _tail_words()
    else:
        _, hue, words = PAGE_STATES[state]
    d = svg.Drawing()
    name = PAGE_NAMES[state]
    d.add(svg.text(0, 14, f"struct page: {name}", bold=True))
    for i in range(8):
        d.add(
            svg.text(
                WORD_X - 8,
                26 + i * WORD_H + 21,
                f"{i * 8}",
                size=svg.SMALL,
                anchor="end",
                ink="muted",
            )
        )
    for offset, size, word, value in words:
        x = WORD_X + offset % 8 * BYTE_W
        y, w = 26 + offset // 8 * WORD_H, size * BYTE_W
        if not word:
            d.add(svg.rect(x, y, w, WORD_H - 3, stroke="muted", dash="4 3"))
            continue
        typed = (
            word in ("page_type", "buddy_list.next", "buddy_list.prev", "private")
            and state == "free"
        )
        fill = hue if typed or (offset >= 8 and offset < 52 and state != "free") else "panel"
        d.add(svg.rect(x, y, w, WORD_H - 3, fill, stroke="muted"))
        narrow = svg.text_width(f"{word}  {value}", svg.SMALL) > w - 12
        d.add(svg.text(x + 6, y + (13 if narrow else 20), word, size=svg.SMALL, bold=True, on=fill))
        if value and narrow:
            d.add(svg.text(x + 6, y + 27, value, size=svg.SMALL, on=fill))
        elif value:
            d.add(svg.text(x + w - 6, y + 20, value, size=svg.SMALL, on=fill, anchor="end"))
    for i, (key, short) in enumerate(SHORT_NAMES.items()):
        y = 26 + i * WORD_H
        if key == state:
            d.add(svg.rect(394, y, 120, WORD_H - 3, "lit", stroke="ink"))
        d.add(svg.text(404, y + 20, short, size=svg.SMALL, bold=key == state))
    d.height = 26 + 8 * WORD_H + 2
    used = [word for _, _, word, _ in words if word]
    caption = PAGE_CAPTIONS[state]
    alt = f"{svg_plain(caption)} The words from offset 0: {', '.join(used)}."
    return Frame(d, caption, alt, state, None, [list(w) for w in words])


@explorable(
    "ch02.page",
    title="struct page: one union, many meanings",
    key=("free", "tail"),
    params=dict(state=Choice("free", PAGE_NAMES, help="what the page is now")),
    help="Step through the states, or choose the one to begin with.",
)
def page_xray(p: Any) -> Iterator[Frame]:
    """The words of a page in each state, the chosen one first."""
    states = list(PAGE_NAMES)
    at = states.index(p.state)
    for state in states[at:] + states[:at]:
        yield _page_frame(state)


# ---- ch02.slowpath: the stations -----------------------------------------------------------------

STATIONS: tuple[tuple[str, str], ...] = (
    ("gfp_to_alloc_flags", "mark and reserves"),
    ("wake_kswapd", "in every node of the list"),
    ("freelist", "walk the zonelist"),
    ("retry", "a round begins"),
    ("direct_reclaim", "free pages oneself"),
    ("direct_compact", "move pages together"),
    ("should_reclaim_retry", "whether to try again"),
    ("should_compact_retry", "after progress only"),
    ("may_oom", "the OOM killer"),
    ("nopage", "no way on"),
    ("nofail", "the caller cannot fail"),
    ("got_pg", "a page"),
    ("warn_alloc", "a report, and NULL"),
)


class _Scenario:
    """A small zone in trouble, and what reclaim, compaction and the OOM killer can do about it."""

    def __init__(self, p: Any) -> None:
        self.p = p
        self.zone = machine.bare_zone(16384)
        m = self.machine = self.zone.machine
        m.min_free_kbytes = 2048
        page_alloc.setup_per_zone_wmarks(m)
        m.watermark_boost_factor = 0
        self.held: list[Any] = []
        if p.memory == "fragmented":
            self.held = [_smallest(self.zone, 2) for _ in range(16384 // 4)]
            for page in self.held[::2]:
                _give(page, 2)
            self.held = self.held[1::2]
        else:
            low = min_wmark_pages(self.zone) * 45 // 100
            while self.zone.vm_stat[NR_FREE_PAGES] - 4 >= low:
                self.held.append(_smallest(self.zone, 2))
        m.init_task.comm, m.init_task.pid = "app", 100
        m.init_task.flags = PF_MEMALLOC if p.task == "memalloc" else 0
        m.hooks.try_to_free_pages = self.reclaim
        m.hooks.try_to_compact_pages = self.compact
        m.hooks.out_of_memory = self.oom
        m.hooks.tsk_is_oom_victim = lambda task: p.task == "victim"

    def release(self, blocks: int) -> None:
        """Give back the newest blocks in use, which lie side by side."""
        for _ in range(min(blocks, len(self.held))):
            _give(self.held.pop(), 2)

    def reclaim(self, m: Any, zonelist: Any, order: int, gfp_mask: int, nodemask: Any) -> int:
        """Stand in for direct reclaim."""
        if self.p.reclaim == "enough":
            self.release(512)
            return 2048
        return 32 if self.p.reclaim == "some" else 0

    def compact(
        self, m: Any, gfp_mask: int, order: int, alloc_flags: int, ac: Any, prio: int
    ) -> tuple[int, None]:
        """Stand in for compaction: on success the used blocks of one 4 MiB range move elsewhere."""
        if self.p.compaction == "skipped":
            return COMPACT_SKIPPED, None
        if self.p.compaction == "fails":
            return COMPACT_COMPLETE, None
        start = self.held[-1].pfn & -1024
        moving = [page for page in self.held if page.pfn >= start]
        self.held = [page for page in self.held if page.pfn < start]
        for page in moving:
            _give(page, 2)
        for _ in moving:
            self.held.insert(0, _smallest(self.zone, 2))
        return COMPACT_SUCCESS, None

    def oom(self, m: Any, oc: Any) -> bool:
        """Stand in for the OOM killer."""
        if self.p.oom == "kills":
            self.release(512)
            return True
        return False


def _smallest(zone: Zone, order: int) -> Any:
    return page_alloc.__rmqueue_smallest(zone, order, MIGRATE_MOVABLE)


def _give(page: Any, order: int) -> None:
    page_alloc.__free_one_page(
        page, page.pfn, page.zone, order, MIGRATE_MOVABLE, page_alloc.FPI_NONE
    )


def _slowpath_frame(
    visited: list[str], head: str, caption: str, mark: str, event: Event | None
) -> Frame:
    """Return the stations, those visited so far lit and numbered."""
    d = svg.Drawing()
    d.add(svg.text(0, 14, head, bold=True))
    index = {name: i for i, (name, _) in enumerate(STATIONS)}
    now = visited[-1] if visited else ""
    x, w, h = 52, 300, 26
    for i, (name, what) in enumerate(STATIONS):
        top = 28 + i * (h + 6)
        lit = name in visited
        end = name in ("got_pg", "warn_alloc")
        d.add(
            svg.rect(
                x,
                top,
                w,
                h,
                "lit" if lit else "panel",
                stroke="ink" if lit else "faint",
                width=2 if name == now else 1,
                rx=12 if end else 2,
            )
        )
        d.add(
            svg.text(
                x + 9, top + 17.5, name, size=svg.SMALL, bold=lit, on="lit" if lit else "panel"
            )
        )
        d.add(
            svg.text(
                x + w - 9,
                top + 17.5,
                what,
                size=svg.SMALL,
                anchor="end",
                on="lit" if lit else "panel",
            )
        )
        turns = [str(n) for n, v in enumerate(visited, 1) if v == name]
        shown = ", ".join(turns) if len(turns) <= 8 else ", ".join(turns[:3]) + " ... " + turns[-1]
        if turns:
            d.add(
                svg.text(
                    x + w + 10, top + 17.5, shown, size=svg.SMALL, ink="accent", bold=name == now
                )
            )
    if len(visited) > 1 and visited[-2] != now:
        a, b = (28 + index[v] * (h + 6) + h / 2 for v in visited[-2:])
        reach = 14 + 3.2 * abs(index[now] - index[visited[-2]])
        d.add(svg.arrow([(x, a), (x - reach, a), (x - reach, b), (x - 1, b)], "accent", width=2))
    d.height = 30 + len(STATIONS) * (h + 6)
    alt = f"{svg_plain(caption)} Stations so far: {', '.join(visited) or 'none'}."
    return Frame(d, caption, alt, mark, event, list(visited))


@explorable(
    "ch02.slowpath",
    title="The slow path of an allocation",
    key=("end",),
    params=dict(
        gfp=Text("GFP_KERNEL", limit=200, help="flags by value or by name"),
        order=Int(3, 0, MAX_PAGE_ORDER),
        memory=Choice(
            "fragmented",
            {"fragmented": "half free, in blocks of order 2", "low": "free memory at 45 % of min"},
        ),
        reclaim=Choice(
            "some",
            {
                "nothing": "frees nothing",
                "some": "frees pages, but others take them",
                "enough": "frees 8 MiB",
            },
        ),
        compaction=Choice(
            "fails",
            {"skipped": "is skipped", "fails": "runs and fails", "succeeds": "makes a free block"},
        ),
        oom=Choice("none", {"none": "finds no victim", "kills": "kills, 8 MiB come free"}),
        task=Choice(
            "ordinary",
            {
                "ordinary": "ordinary task",
                "memalloc": "PF_MEMALLOC: is reclaiming itself",
                "victim": "chosen by the OOM killer",
            },
        ),
    ),
    help="Which flag, and which failure, ends the request?",
)
def slowpath(p: Any) -> Iterator[Frame]:
    """One request through the slow path."""
    gfp = _gfp_of(p.gfp)
    scene = _Scenario(p)
    head = f"{gfp_str(gfp)}, order {p.order}"
    if svg.text_width(head) > svg.WIDTH:
        head = f"gfp {gfp:#x}, order {p.order}"
    free = scene.zone.vm_stat[NR_FREE_PAGES]
    with scene.machine.trace.record("model:slowpath") as log:
        page = page_alloc.alloc_pages(scene.machine, gfp, p.order)
    yield _slowpath_frame(
        [], head, f"The fast path looks at the low mark. Free now: {free:,} pages.", "start", None
    )
    if not log:
        yield _slowpath_frame(
            [], head, "The fast path succeeded: the slow path is not entered.", "fast", None
        )
        return
    visited: list[str] = []
    text = {name: what for name, what in STATIONS}
    for event in log:
        step = event.fields["step"]
        visited.append(step)
        caption = f"Step {len(visited)}: `{step}`, {text[step]}."
        if step == "got_pg" and page is not None:
            caption = f"Step {len(visited)}: the request gets page {page.pfn}."
        elif step == "warn_alloc":
            caption = f"Step {len(visited)}: the request fails; without `__GFP_NOWARN` the kernel prints a report."
        mark = "end" if event is log[-1] else step
        yield _slowpath_frame(visited, head, caption, mark, event)
