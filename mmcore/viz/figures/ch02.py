"""The explorables of chapter 2, physical memory allocation.

Every frame is drawn from the state of the engine at that moment, or from a capture; nothing here decides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from mmcore import machine
from mmcore.lib.list import list_for_each
from mmcore.mm import page_alloc
from mmcore.mm.internal import (
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    ALLOC_NOFRAGMENT,
    ALLOC_OOM,
)
from mmcore.mm.mmzone import (
    MAX_PAGE_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    MIGRATETYPE_LETTERS,
    MIGRATETYPE_NAMES,
    NR_PAGE_ORDERS,
    WMARK_LOW,
    WMARK_MIN,
    Zone,
    high_wmark_pages,
    low_wmark_pages,
    min_wmark_pages,
    pageblock_nr_pages,
    promo_wmark_pages,
    wmark_pages,
)
from mmcore.mm.page_flags import PG_lru
from mmcore.mm.vmstat import NR_FREE_PAGES
from mmcore.trace import Event
from mmcore.viz import svg
from mmcore.viz.explorable import Actions, Bool, Choice, Frame, Int, ParamError, Seed, explorable

__all__ = ["buddy", "fragmentation"]

#: The hue of each migratetype, in the order of ``enum migratetype``.
HUE = ("unmovable", "movable", "reclaimable", "highatomic", "isolate")


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def _boxes(rects: list[tuple[float, float, float, float]]) -> str:
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


ROW, TREE_TOP = 17, 22


def _tree(state: _BuddyState, focus: tuple[int, int] | None) -> tuple[list[str], float]:
    """Draw the zone as rows of halves; a block is as wide as its order plus two, not as its size."""
    leaves = [leaf for pfn, order in state.roots() for leaf in state.leaves(pfn, order)]
    top_order = max(order for _, order in state.roots())
    lowest = min(order for _, order, _ in leaves)
    unit = svg.WIDTH / sum(order + 2 for _, order, _ in leaves)
    spans: dict[tuple[int, int], tuple[float, float]] = {}
    x = 0.0
    for pfn, order, _ in leaves:
        w = (order + 2) * unit
        for up in range(order, top_order + 1):
            node = (pfn >> up << up, up)
            left, right = spans.get(node, (x, x))
            spans[node] = (left, x + w)
        x += w
    whole = {(pfn, order) for pfn, order in state.roots()}
    leaf_kind = {(pfn, order): kind for pfn, order, kind in leaves}
    boxes: dict[str, list[tuple[float, float, float, float]]] = {
        "split": [],
        "free": [],
        "used": [],
        "lit": [],
    }
    labels = []
    for (pfn, order), (left, right) in sorted(spans.items()):
        if not any(pfn >= p and pfn + (1 << order) <= p + (1 << o) for p, o in whole):
            continue
        y = TREE_TOP + (top_order - order) * ROW
        kind = leaf_kind.get((pfn, order))
        boxes[{None: "split", "hand": "lit"}.get(kind, kind or "split")].append(
            (left, y, right - left, ROW)
        )
        name = f"{pfn}" if kind else ""
        if name and svg.text_width(name, svg.SMALL) + 3 <= right - left:
            on = {"hand": "lit"}.get(kind or "", kind)
            labels.append(
                svg.text((left + right) / 2, y + 13, name, size=svg.SMALL, anchor="middle", on=on)
            )
    items = [svg.path(_boxes(boxes["split"]), stroke="faint")]
    for name, hue in (("free", "free"), ("used", "used"), ("lit", "lit")):
        if boxes[name]:
            items.append(svg.path(_boxes(boxes[name]), hue, stroke="muted"))
    items += labels
    if focus in spans:
        left, right = spans[focus]
        y = TREE_TOP + (top_order - focus[1]) * ROW
        items.append(svg.rect(left, y, right - left, ROW, stroke="ink", width=2))
    return items, TREE_TOP + (top_order - lowest + 1) * ROW


LIST_ROW, SHOWN = 19, 8


def _ladder(state: _BuddyState, y: float, focus: tuple[int, int] | None) -> list[str]:
    """Draw the free lists, order 10 at the top, heads on the left."""
    items = [
        svg.text(0, y + 12, "order", size=svg.SMALL, ink="muted"),
        svg.text(
            62,
            y + 12,
            "free lists (movable): head, the next block to be given, is on the left",
            size=svg.SMALL,
            ink="muted",
        ),
    ]
    boxes, labels = [], []
    for order in reversed(range(NR_PAGE_ORDERS)):
        top = y + 20 + (MAX_PAGE_ORDER - order) * LIST_ROW
        items.append(svg.text(14, top + 13, order, size=svg.SMALL, ink="muted"))
        pfns = state.lists[order]
        for i, pfn in enumerate(pfns[:SHOWN]):
            left = 62 + i * 50
            boxes.append((left, top, 46, LIST_ROW - 3))
            labels.append(
                svg.text(left + 23, top + 12.5, pfn, size=svg.SMALL, anchor="middle", on="free")
            )
            if focus == (pfn, order):
                labels.append(svg.rect(left, top, 46, LIST_ROW - 3, stroke="ink", width=2))
        if not pfns:
            items.append(svg.text(62, top + 13, "–", size=svg.SMALL, ink="muted"))
        if len(pfns) > SHOWN:
            labels.append(
                svg.text(62 + SHOWN * 50, top + 13, f"and {len(pfns) - SHOWN} more", size=svg.SMALL)
            )
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
    tree, _ = _tree(state, focus)
    top_order = max(order for _, order in state.roots())
    lists_top = TREE_TOP + (top_order + 1) * ROW + 12
    d.add(*tree)
    d.add(*_ladder(state, lists_top, focus))
    d.height = lists_top + 20 + NR_PAGE_ORDERS * LIST_ROW
    held = ", ".join(f"{p} (order {o})" for p, o in sorted(state.used.items())) or "none"
    lists = "; ".join(
        f"order {o}: {', '.join(map(str, p[:SHOWN]))}" for o, p in state.lists.items() if p
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
            yield _buddy_frame(
                state,
                _placed(f["pfn"], f["order"], f["to_tail"]),
                "place",
                (f["pfn"], f["order"]),
                event,
                action,
            )


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
    key=("split", "place", "merge"),
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


def _take_page(zone: Zone, mt: int, flags: int, policy: str) -> Any:
    """Take one page from the free lists of @zone under a policy of falling back."""
    wanted = MIGRATE_UNMOVABLE if policy == "ungrouped" else mt
    if policy != "steal":
        return page_alloc.__rmqueue(zone, 0, wanted, flags, [page_alloc.RMQUEUE_NORMAL])
    page = page_alloc.__rmqueue_smallest(zone, 0, wanted)
    if page is None and not flags & ALLOC_NOFRAGMENT:
        page = page_alloc.__rmqueue_steal(zone, 0, wanted)
    return page


def _give_page(page: Any) -> None:
    """Give one page back to the free lists, under its pageblock's present type."""
    page.flags = 0
    block = page_alloc.get_pageblock_migratetype(page)
    page_alloc.__free_one_page(page, page.pfn, page.zone, 0, block, page_alloc.FPI_NONE)


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
        for zone in self.zones:
            zone.machine.trace.attach(self._count, "kmem:mm_page_alloc_extfrag")

    def _count(self, event: Event) -> None:
        self.mixed_by_steal += 1 - event.fields["change_ownership"]

    def alloc(self, mt: int) -> bool:
        """Take one page of the kind @mt, walking the zones as the kernel would."""
        first = ALLOC_NOFRAGMENT if self.nofragment else 0
        for flags in dict.fromkeys((first, 0)):
            for zone in self.zones:
                page = _take_page(zone, mt, flags, self.policy)
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
            h = max(2.0, (TILE_H - 16) * pages / pageblock_nr_pages) if pages else 0.0
            h = min(h, bottom - top - 14)
            if hue == "free":
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
            24,
            8,
            48,
            unit="pageblocks",
            help="size of zone Normal; DMA32 gets a quarter of it more",
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
            True, help="look at DMA32 before mixing types in Normal (ALLOC_NOFRAGMENT)"
        ),
        fill=Int(100, 20, 100, step=5, unit="%", help="how full zone Normal gets in each round"),
        rounds=Int(10, 1, 20, help="how many rounds of allocating and freeing"),
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
        yield _fragmentation_frame(load, f"Round {i}, full", mark)
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
        svg.rect(0, GAUGE_TOP, 60, GAUGE_H, stroke="muted"),
        svg.rect(0, y_of(free), 60, GAUGE_TOP + GAUGE_H - y_of(free), "free", stroke="muted"),
    ]
    spots = _spread([y_of(value) for _, value in marks], 16, GAUGE_TOP + GAUGE_H)
    for (name, value), spot in zip(marks, spots, strict=True):
        y = y_of(value)
        items.append(svg.polyline([(0, y), (64, y), (80, spot), (88, spot)], "ink", width=1))
        items.append(svg.text(92, spot + 4, f"{name} {value:,}", size=svg.SMALL))
    items.append(svg.text(0, GAUGE_TOP - 8, f"free: {free:,} pages", bold=True))
    return items


def _watermark_frame(zone: Zone, free: int, top_value: int, where: str, mark: str) -> Frame:
    """Return the gauge at one level, with everybody's answer."""
    d = svg.Drawing()
    d.add(*_gauge(zone, free, top_value))
    x, y = 268, GAUGE_TOP + 4
    d.add(svg.text(x, y + 8, "asks for one page", size=svg.SMALL, ink="muted"))
    d.add(svg.text(svg.WIDTH, y + 8, "answer", size=svg.SMALL, ink="muted", anchor="end"))
    answers = {}
    for i, (who, flags, wmark) in enumerate(CALLERS):
        top = y + 18 + i * 38
        served = _allowed(zone, free, flags, wmark)
        answers[who] = served
        d.add(svg.rect(x, top, svg.WIDTH - x, 34, "panel", stroke="faint"))
        d.add(svg.text(x + 8, top + 15, who, size=svg.SMALL, bold=True))
        needs = (
            "no mark is checked"
            if flags & ALLOC_NO_WATERMARKS
            else f"needs {_floor(zone, flags, wmark):,} free"
        )
        d.add(svg.text(x + 8, top + 29, needs, size=svg.SMALL, ink="muted"))
        word, ink = ("page", "ink") if served else ("refused", "wrong")
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
    key=("low", "min", "half", "atomic"),
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
