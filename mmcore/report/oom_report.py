"""Explain the reports of the OOM killer: who asked, why memory was not to be had, who died and why.

The answer comes first. `examine()` reads a log and returns an `Analysis` of each report; `lines()` writes
it out, `to_dict()` gives the same as data, `to_html()` as a page::

    print("\\n".join(lines(examine(open("dmesg.txt").read()))))

What ``python -m mmcore oom-report --json`` prints under ``rows`` is a list of objects, one a report. Their
keys (all sizes in kB but where a name says pages; null where the report does not say):

- ``line``, ``when``, ``seconds``, ``kernel``, ``hardware``, ``complete``, ``missing``, ``problems``,
  ``summary``
- ``request``: ``comm``, ``pid``, ``order``, ``bytes``, ``sysrq``, ``gfp_mask``, ``gfp_names``, ``gfp_numbering``,
  ``gfp_sure``, ``gfp_meaning``, ``oom_score_adj``, ``oom_adj``, ``nodemask``, ``cpuset``, ``mems_allowed``
- ``constraint``: ``none``, ``cpuset``, ``memory_policy``, ``memcg``, or null
- ``cause``: ``shortage``, ``fragmentation``, ``passes`` (the zones would serve it by now), ``cgroup``, ``sysrq``,
  ``unknown``; ``diagnosis``: list of ``code`` and ``text``
- ``page_kb``; ``zones``: ``node``, ``zone``, ``allowed``, ``ok``, ``why``, and in pages ``free``, ``unusable``,
  ``mark``, ``reserve``, ``min``, ``low``, ``high``, ``managed``; ``block`` (a block of the order is free),
  ``largest_order``, ``blocks`` (free blocks by order), ``types`` (their migratetypes' letters by order)
- ``swap``: ``free_kb``, ``total_kb``
- ``memcg``: ``oom_memcg``, ``task_memcg``, ``hit`` (counters at their limit), ``limits`` by counter: ``usage_kb``,
  ``limit_kb``, ``failcnt``; ``stats_kb``
- ``accounting``: ``of``, ``total_kb``, ``reserved_kb``, ``parts`` and ``inside`` (``name``, ``kb``, ``words``),
  ``unaccounted_kb``; ``task_sums_kb``
- ``ranking``: ``rule``, ``formula``, ``verified``, ``sources``, ``total_pages``, ``total_from``, ``adj_unit``,
  ``verdict`` (``agrees``, ``possible``, ``differs``, ``unknown``), ``why``, ``notes``, ``place``,
  ``score_printed``, ``score_computed``, ``tasks``: all of them, the likeliest victim first, with ``points`` (low
  and high bound) and ``eligible``
- ``selected``, ``victim``: ``pid``, ``comm``, ``uid``, ``oom_score_adj``, ``score``, ``values_kb``, ``line``;
  ``kills``: all who died, with ``how``; ``group``, ``reaped``, ``unable_to_reap``, ``panic``, ``nobody``
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmcore.errors import ParseError
from mmcore.report import alloc_failure as af
from mmcore.report import gfp
from mmcore.report import oom_account as acc
from mmcore.report.oom_parse import Kill, OomReport, parse_all
from mmcore.report.oom_rank import Ranking, Score, rank

__all__ = ["MAX_SHOWN", "Analysis", "analyse", "examine", "kib", "lines", "to_dict"]

#: At most this many reports of a log are written out in full.
MAX_SHOWN = 24
#: Rows of the ranking that are shown.
TOP = 8
CONSTRAINTS = {
    "CONSTRAINT_NONE": "none",
    "CONSTRAINT_CPUSET": "cpuset",
    "CONSTRAINT_MEMORY_POLICY": "memory_policy",
    "CONSTRAINT_MEMCG": "memcg",
}
#: A cgroup counter's limit that stands for none: within a page of the largest.
NO_LIMIT_KB = (1 << 63) // 4096 * 4 - 64


def kib(kb: int) -> str:
    """Return a size as people say it, in binary units."""
    sign, kb = ("-" if kb < 0 else ""), abs(kb)
    for unit, factor in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if kb >= 10 * factor:
            return f"{sign}{(kb + factor // 2) // factor} {unit}"
        if kb >= factor:
            tenths = (kb * 10 + factor // 2) // factor
            return f"{sign}{tenths // 10}.{tenths % 10} {unit}"
    return f"{sign}{kb} kB"


def _percent(part: int, whole: int) -> str:
    if whole <= 0:
        return ""
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 9.5 or share == 0 else f"{share:.1f} %"


@dataclass(slots=True)
class Analysis:
    """A report with what follows from it.

    :ivar zones: the allocator's test, zone by zone; [] without a request or a state of memory
    :ivar cause: see the module's text
    :ivar diagnosis: (code, sentence), what explains the shortage best first
    """

    report: OomReport
    ranking: Ranking
    account: acc.Account | None
    zones: list[af.ZoneVerdict] = field(default_factory=list)
    zone_notes: list[str] = field(default_factory=list)
    cause: str = "unknown"
    meaning: str = ""
    diagnosis: list[tuple[str, str]] = field(default_factory=list)
    summary: str = ""


# ---- why it could not be had ---------------------------------------------------------------------


def _zones(a: Analysis) -> None:
    """Put the allocator's own test to the zones of a report."""
    r = a.report
    if r.order < 0:
        a.cause = "sysrq"
    elif r.is_memcg:
        a.cause = "cgroup"
    if not r.mem.zones:
        return
    r.mem.memcg = None
    explanation = af.explain(r.mem)
    a.zones = explanation.zones
    if not r.has_head:
        for zone in a.zones:
            zone.allowed = True
        a.zone_notes.append(
            "The request is not in the report; the zones are tested for one page without restrictions."
        )
    a.zone_notes += [n for n in explanation.notes if "An older kernel" not in n]
    if a.cause == "unknown" and r.has_head:
        a.cause = explanation.cause


def _gfp_meaning(r: OomReport) -> str:
    """Say in a sentence what the mask asks for."""
    if not r.has_head or not r.mem.gfp_mask:
        return ""
    said = gfp.GfpMask(r.mem.gfp_mask, r.mem.numbering, "", True).lines()
    return said[1] if len(said) > 1 else ""


def _hit(r: OomReport) -> list[str]:
    """Return the cgroup counters that are at their limit."""
    if r.memcg is None:
        return []
    out = []
    for name, counter in r.memcg.limits.items():
        if counter.limit < NO_LIMIT_KB and counter.usage + 4 * r.mem.page_kb >= counter.limit:
            out.append(name)
    if out == ["swap"] or not out:
        near = [
            name
            for name, c in r.memcg.limits.items()
            if name != "swap" and c.limit < NO_LIMIT_KB and c.usage >= c.limit - 4096
        ]
        out = near + out
    return out


def _diagnose_cgroup(a: Analysis) -> None:
    r = a.report
    memcg = r.memcg
    if memcg is None:
        return
    hit = _hit(r)
    where = memcg.oom or "the cgroup"
    for name in hit:
        c = memcg.limits[name]
        if name == "swap":
            text = (
                f"its swap is full too: {kib(c.usage)} of {kib(c.limit)}"
                if c.limit
                else ("it may not use swap (limit 0)")
            )
            a.diagnosis.append(("swap-limit", f"{where}: {text}."))
            continue
        code = {"memory": "memory-limit", "memory+swap": "memsw-limit"}.get(name, "kmem-limit")
        a.diagnosis.append(
            (
                code,
                f"{where}: counter {name} is at its limit, {kib(c.usage)} of {kib(c.limit)}; charging "
                f"met the limit {c.failcnt} times.",
            )
        )
    if not hit and "memory" in memcg.limits:
        c = memcg.limits["memory"]
        a.diagnosis.append(
            (
                "below-limit",
                f"{where} uses {kib(c.usage)} of {kib(c.limit)} by now: memory came back before it was "
                "printed, or the request was for more than one page.",
            )
        )
    if memcg.task and memcg.oom and memcg.task != memcg.oom:
        depth = memcg.task.count("/") - (memcg.oom.count("/") if memcg.oom != "/" else 0)
        if memcg.task.startswith(memcg.oom.rstrip("/") + "/"):
            a.diagnosis.append(
                (
                    "ancestor",
                    f"The limit belongs to {memcg.oom}, {depth} level{'s' if depth > 1 else ''} above the "
                    f"victim's {memcg.task}: all cgroups below it share it.",
                )
            )
    if "swap" in memcg.limits and memcg.limits["swap"].limit == 0 and "swap" not in hit:
        a.diagnosis.append(("no-swap", "The cgroup may not use swap (limit 0)."))


#: Parts that are worth a sentence above a share of the total, in thousandths.
NOTABLE: dict[str, tuple[int, str, str]] = {
    "slab_unreclaimable": (100, "slab", "Kernel objects that cannot be reclaimed"),
    "slab": (150, "slab", "Kernel objects (slab)"),
    "pagetables": (50, "pagetables", "Page tables"),
    "hugetlb": (
        100,
        "hugetlb",
        "Huge pages set aside (vm.nr_hugepages), which nothing else may use,",
    ),
    "kernel_stack": (50, "kernel-stack", "Kernel stacks: there are very many threads. They"),
    "unevictable": (100, "unevictable", "Memory that is locked"),
    "sec_pagetables": (50, "sec-pagetables", "Page tables of virtual machines or IOMMUs"),
    "balloon": (50, "balloon", "Memory that the hypervisor took back"),
    "kernel": (200, "kernel", "Kernel memory on behalf of the cgroup"),
    "kmem": (200, "kernel", "Kernel memory on behalf of the cgroup"),
    "sock": (100, "sock", "Buffers of sockets"),
    "percpu": (100, "percpu", "Per-CPU memory"),
}


def _part(a: Analysis, *names: str) -> int:
    parts = a.account.parts + a.account.inside if a.account else []
    return sum(part.kb for part in parts if part.name in names)


def _diagnose_parts(a: Analysis) -> None:
    """Say which parts of memory stand out."""
    account = a.account
    if account is None or not account.known:
        return
    total = account.total_kb
    anon = _part(a, "active_anon", "inactive_anon", "isolated_anon", "anon", "rss")
    files = _part(a, "active_file", "inactive_file")
    shmem = _part(a, "shmem")
    if anon * 2 > total:
        own = anon - shmem if account.of == "RAM" else anon
        (
            a.diagnosis.append(
                (
                    "anon",
                    f"Anonymous memory of processes is {kib(own)}, {_percent(own, total)} of {account.of}.",
                )
            )
            if own * 2 > total
            else None
        )
    for part in account.parts:
        share, code, words = NOTABLE.get(part.name, (1001, "", ""))
        if part.kb * 1000 >= share * total:
            a.diagnosis.append((code, f"{words} take {kib(part.kb)}, {_percent(part.kb, total)}."))
    if shmem * 10 >= total:
        a.diagnosis.append(
            (
                "shmem",
                f"Shared memory and tmpfs hold {kib(shmem)}, {_percent(shmem, total)}: killing a process "
                "does not free what still has a name.",
            )
        )
    if account.of == "RAM" and files * 8 >= total:
        a.diagnosis.append(
            (
                "files",
                f"File pages still hold {kib(files)}, {_percent(files, total)}: reclaim could not get at "
                "them in time, or they are not where the request may allocate.",
            )
        )
    if account.unaccounted_kb * 10 >= total:
        a.diagnosis.append(
            (
                "unaccounted",
                f"{kib(account.unaccounted_kb)}, {_percent(account.unaccounted_kb, total)}, are in no "
                "counter: drivers, vmalloc, per-CPU areas, zram, a balloon. No process holds them, "
                "so that killing one does not bring them back.",
            )
        )


def _diagnose_swap(a: Analysis) -> None:
    swap = a.report.mem.swap
    if a.report.is_memcg or "total" not in swap:
        return
    total, free = swap["total"], swap.get("free", 0)
    if free < 0:
        text = f"Swap was being switched off: {kib(-free)} more are in use than there is left."
        a.diagnosis.append(("swapoff", text))
    elif not total:
        a.diagnosis.append(("no-swap", "There is no swap: anonymous memory has nowhere to go."))
    elif free * 50 < total:
        a.diagnosis.append(("swap-full", f"Swap is full: {kib(free)} of {kib(total)} free."))
    elif free * 4 > total:
        a.diagnosis.append(
            (
                "swap-left",
                f"Swap is not what ran out: {kib(free)} of {kib(total)} are free. Memory filled faster "
                "than it was swapped out, or what fills it cannot be swapped.",
            )
        )


def _diagnose_zones(a: Analysis) -> None:
    """Say what keeps the request from memory that is free."""
    r = a.report
    kb = r.mem.page_kb
    mine = [z for z in a.zones if z.allowed]
    others = [z for z in a.zones if not z.allowed]
    if a.cause == "fragmentation":
        free = sum(z.free for z in mine) * kb
        a.diagnosis.append(
            (
                "fragmentation",
                f"{kib(free)} are free, but not in one piece: the request needs {kb << max(r.order, 0)} kB "
                "in a row, of a type that it may use.",
            )
        )
    high = [z for z in others if z.zone in ("HighMem", "Movable", "Normal", "DMA32")]
    high = [z for z in high if z.free > z.mark + z.reserve]
    spare = sum(z.free for z in high)
    if spare * kb > 16384 and r.has_head:
        names = ", ".join(sorted({z.zone for z in high}))
        code = "lowmem" if any(z.zone == "HighMem" for z in high) else "zone"
        short = "is in pieces" if a.cause == "fragmentation" else "ran out"
        why = (
            f"the kernel's own memory must lie in low memory, which {short}"
            if code == "lowmem"
            else "the request may not use it"
        )
        a.diagnosis.append((code, f"{kib(spare * kb)} are free in {names}, but {why}."))
    if any(part.name == "HighMem" for part in r.mem.zones) and not r.is_memcg:
        parts = [part for part in r.mem.zones if part.name not in ("HighMem", "Movable")]
        low = sum(part.pages("managed") or part.pages("present") for part in parts) * kb
        slab = _part(a, "slab", "slab_reclaimable", "slab_unreclaimable")
        if low and slab * 2 > low:
            text = f"Kernel objects (slab) fill low memory: {kib(slab)} of {kib(low)}."
            a.diagnosis.append(("lowmem-slab", text))
    cma = sum(part.pages("free_cma") for part in r.mem.zones)
    free = sum(part.pages("free") for part in r.mem.zones)
    if cma * 2 > free and cma * kb > 4096 and any(z.unusable * 2 > z.free for z in mine):
        a.diagnosis.append(
            ("cma", f"{kib(cma * kb)} of the free memory are CMA pages, for movable pages only.")
        )
    if a.cause == "passes":
        names = ", ".join(sorted({z.zone for z in mine if z.ok}))
        a.diagnosis.append(
            (
                "passes",
                f"With the numbers printed, {names} would serve the request: memory came back between "
                "the last try and the report, or the request came with a limit that is not printed.",
            )
        )
    if r.constraint == "CONSTRAINT_CPUSET":
        a.diagnosis.append(
            ("cpuset", f"The cpuset {r.mem.cpuset or ''} allows only nodes {r.mem.mems_allowed}.")
        )
    if r.constraint == "CONSTRAINT_MEMORY_POLICY":
        a.diagnosis.append(("mempolicy", f"A memory policy binds it to nodes {r.mem.nodemask}."))


def _diagnose_victim(a: Analysis) -> None:
    """Say whether the victim's death could help."""
    r = a.report
    kill = r.victim
    account = a.account
    if kill is None or account is None or not account.known:
        return
    freed = kill.values.get("anon-rss", 0) + kill.values.get("shmem-rss", 0)
    if "anon-rss" in kill.values and freed * 50 < account.total_kb:
        a.diagnosis.append(
            (
                "small-victim",
                f"The victim held {kib(freed)} that can be freed, {_percent(freed, account.total_kb)} of "
                f"{account.of}: the processes are not where the memory is"
                + (", or the large ones are immune." if _immune(a) else "."),
            )
        )


def _immune(a: Analysis) -> bool:
    scores = a.ranking.scores
    best = max((s.task.get("rss") for s in scores if s.eligible), default=0)
    return any(s.task.get("rss") > best for s in scores if not s.eligible)


# ---- putting it together -------------------------------------------------------------------------


def _who(kill: Kill | None) -> str:
    return f"{kill.comm or '?'} (pid {kill.pid})" if kill is not None else "nobody"


def _asker(r: OomReport) -> str:
    pid = f" (pid {r.pid})" if r.pid is not None else ""
    return f"{r.comm or 'somebody'}{pid}"


def _request_words(r: OomReport) -> str:
    if not r.has_head:
        return "an unknown request"
    if r.order < 0:
        return "SysRq-f"
    kb = r.mem.page_kb << max(r.order, 0)
    names = r.gfp_names or r.mem.numbering.names(r.mem.gfp_mask)
    return f"order {r.order} ({kb} kB), {names}"


def _end_words(r: OomReport) -> str:
    """Say how it ended."""
    dead = [k for k in r.kills if k.how == "killed"]
    if r.panic:
        return f"the kernel panicked: {r.panic}"
    if r.nobody:
        return "nobody could be killed"
    if r.victim is None:
        return "who was killed is not in the report"
    pids = list(dict.fromkeys(k.pid for k in dead))
    more = f", and {len(pids) - 1} more" if len(pids) > 1 else ""
    return f"{_who(r.victim)} was killed{more}" if dead else f"{_who(r.victim)} was chosen"


def _summarise(a: Analysis) -> str:
    r = a.report
    end = _end_words(r)
    if r.order < 0 and r.has_head:
        return f"SysRq-f was pressed: {end}."
    if r.is_memcg:
        limit = r.memcg.limits.get("memory") if r.memcg else None
        where = (r.memcg.oom if r.memcg else None) or ""
        where = f"Cgroup {where}" if where else "A cgroup"
        names = [n for n in _hit(r) if n != "swap"]
        if limit is not None and names and names != ["memory"]:
            limit = r.memcg.limits[names[0]] if r.memcg else limit
        size = f" of {kib(limit.limit)}" if limit is not None and limit.limit < NO_LIMIT_KB else ""
        what = f" ({names[0]})" if names and names[0] != "memory" else ""
        asked = f" when {_asker(r)} asked for {_request_words(r)}" if r.has_head else ""
        return f"{where} was at its limit{size}{what}{asked}; {end}."
    why = {
        "shortage": "no zone that it may use had enough free memory",
        "fragmentation": "free memory was in too small pieces",
        "passes": "by the printed numbers it could be served",
    }.get(a.cause, "why is not in the report")
    if not r.has_head:
        return f"Out of memory, the report's beginning is lost; {end}."
    return f"{_asker(r)} asked for {_request_words(r)}; {why}; {end}."


def analyse(report: OomReport, killed_before: set[int] | None = None) -> Analysis:
    """Work out what follows from a report.

    :param killed_before: pids that earlier reports of the same log killed
    """
    a = Analysis(report, rank(report, killed_before), acc.account(report))
    a.meaning = _gfp_meaning(report)
    _zones(a)
    if report.is_memcg:
        _diagnose_cgroup(a)
    else:
        _diagnose_zones(a)
    _diagnose_parts(a)
    _diagnose_swap(a)
    _diagnose_victim(a)
    a.summary = _summarise(a)
    return a


def examine(text: str) -> list[Analysis]:
    """Return the analysis of each OOM report in a log.

    :raises ParseError: if there is none
    """
    reports = parse_all(text)
    if not reports:
        raise ParseError(
            "kernel log",
            1,
            text.partition("\n")[0],
            'no OOM report in it: no line has "invoked oom-killer:" or "Killed process"',
        )
    out: list[Analysis] = []
    killed: set[int] = set()
    for report in reports:
        out.append(analyse(report, set(killed)))
        killed |= {kill.pid for kill in report.kills}
    return out


# ---- as text -------------------------------------------------------------------------------------


def _columns(rows: list[list[str]], left: int = 1) -> list[str]:
    """Line columns up, the first @left to the left, with three spaces between."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        out.append("    " + "   ".join(cells).rstrip())
    return out


def _request_lines(a: Analysis) -> list[str]:
    r = a.report
    out = []
    if r.kernel:
        out.append(f"  kernel: {r.kernel}" + (f", {r.hardware}" if r.hardware else ""))
    if r.has_head and r.order >= 0:
        table = r.mem.numbering.version
        how = "" if r.gfp_names else f", in the numbers of Linux {table}"
        if not r.mem.sure:
            how += " (the log does not say which kernel's they are)"
        if r.mem.gfp_mask != r.gfp_printed:
            how = ", a number that depends on the kernel's configuration; its names are read"
        out.append(f"  gfp_mask {r.gfp_printed:#x}{how}. {a.meaning}")
    return out


def _zone_lines(a: Analysis) -> list[str]:
    if not a.zones:
        return []
    shut = a.report.has_head and not any(z.ok for z in a.zones if z.allowed)
    out = ["Why no zone would do:" if shut else "The zones:"]
    if a.report.is_memcg:
        out = ["The zones, which is not what failed here; the cgroup's limit did:"]
    return out + [f"  {zone}" for zone in a.zones] + [f"  {note}" for note in a.zone_notes]


def _account_lines(a: Analysis) -> list[str]:
    account = a.account
    if account is None:
        return []
    total = account.total_kb
    of = "RAM the allocator has" if account.of == "RAM" else account.of
    head = f"Where memory was, of {kib(total)} {of}:" if account.known else "Where memory was:"
    if account.reserved_kb:
        head = head[:-1] + f" ({kib(account.reserved_kb)} more are reserved since boot):"
    shown = [p for p in account.parts if p.kb * 400 >= total or p.kb >= 1 << 20 or not total]
    shown = shown or account.parts[:1]
    small = [p for p in account.parts if p not in shown and p.kb]
    rows = [[p.name, kib(p.kb), _percent(p.kb, total)] for p in shown if p.kb]
    if small:
        n = sum(p.kb for p in small)
        rows.append([f"{len(small)} small ones", kib(n), _percent(n, total)])
    if account.known:
        n = account.unaccounted_kb
        rows.append(["in no counter", kib(n), _percent(n, total) if n >= 0 else ""])
    out = [head, *(_columns(rows) if rows else [])]
    inside = [f"{p.name} {kib(p.kb)}" for p in account.inside if p.kb * 100 >= max(total, 1)]
    if inside:
        out.append(f"  within these: {', '.join(inside[:8])}")
    sums = acc.task_sums(a.report)
    if sums.get("rss"):
        text = ", ".join(f"{name} {kib(n)}" for name, n in sums.items() if n)
        out.append(
            f"  the table's tasks, {len(a.report.tasks)}: {text} (shared pages count each time)"
        )
    swap = a.report.mem.swap
    if swap.get("total") or swap.get("free"):
        out.append(f"  swap: {kib(swap.get('free', 0))} free of {kib(swap.get('total', 0))}")
    if a.report.slabs:
        top = sorted(a.report.slabs, key=lambda s: -s[1])[:5]
        out.append("  slabs: " + ", ".join(f"{name} {kib(n)}" for name, n in top))
    return out


def _points_text(score: Score) -> str:
    if not score.eligible:
        return "immune"
    return f"{score.low}" if score.low == score.high else f"{score.low} to {score.high}"


def _task_row(a: Analysis, score: Score) -> list[str]:
    t, kb = score.task, a.report.mem.page_kb
    tables = t.get("pgtables_bytes") >> 10
    tables = tables or (t.get("nr_ptes") + t.get("nr_pmds") + t.get("nr_puds")) * kb
    adj = t.values.get("oom_score_adj", t.values.get("oom_adj", 0))
    dead = {k.pid for k in a.report.kills if k.how == "killed"}
    chosen = a.ranking.selected
    mark = " <- killed" if t.pid in dead else ""
    if not mark and chosen is not None and chosen.pid == t.pid:
        mark = " <- chosen"
    return [
        t.name + mark,
        str(t.pid),
        _points_text(score),
        kib(t.get("rss") * kb),
        kib(t.get("swapents") * kb),
        kib(tables),
        str(adj),
    ]


VERDICTS = {
    "agrees": "the kernel's choice is the one that the points ask for",
    "possible": "the kernel's choice fits the points, within what the report leaves open",
    "differs": "by the points of the table, another task would have been chosen",
    "unknown": "whether the choice fits cannot be told",
}


def _ranking_lines(a: Analysis) -> list[str]:
    ranking, r = a.ranking, a.report
    kill = r.victim
    if kill is None and not r.tasks:
        return []
    where = "sysctl vm.oom_kill_allocating_task" in " ".join(ranking.why)
    out = [f"Who was killed, and why: {_who(kill)}" if kill else "Who would have been killed:"]
    if r.tasks and (kill is not None or not where):
        verdict = VERDICTS[ranking.verdict]
        out.append(f"  {verdict[:1].upper()}{verdict[1:]}.")
    for why in ranking.why:
        out.append(f"  {why}.")
    if not r.tasks:
        return out
    rows = [["task", "pid", "points", "rss", "swap", "tables", "adj"]]
    shown = ranking.scores[:TOP]
    chosen = ranking.selected
    rows += [_task_row(a, s) for s in shown]
    for score in ranking.scores[TOP:]:
        dead = {k.pid for k in r.kills} | ({chosen.pid} if chosen else set())
        if score.task.pid in dead and len(rows) < TOP + 12:
            rows.append(_task_row(a, score))
    out += _columns(rows)
    if len(ranking.scores) > len(rows) - 1:
        out.append(f"    and {len(ranking.scores) - len(rows) + 1} more tasks")
    out.append(f"  points: {ranking.rule.formula}")
    if ranking.total:
        unit = ranking.adj_unit
        worth = f"one unit of oom_score_adj is {unit} point{'s' if unit != 1 else ''}"
        out.append(f"  total: {ranking.total} pages ({ranking.total_from}); {worth}")
    return out + [f"  {note}" for note in ranking.notes]


def _kill_lines(a: Analysis) -> list[str]:
    r = a.report
    out = []
    if r.group is not None:
        pids = list(dict.fromkeys(k.pid for k in r.kills if k.how == "killed"))
        spared = [t for t in r.tasks if t.immune]
        text = f"memory.oom.group is set on {r.group}: {len(pids)} processes died together"
        if spared:
            text += f"; {spared[0].name} (pid {spared[0].pid}) was spared (oom_score_adj -1000)"
        twice = [k for k in r.kills if k.how == "killed"]
        if len(twice) > len(pids):
            text += ". A pid that appears twice was met again while its memory was still there"
        out.append(f"  {text}.")
    for kill in [k for k in r.kills if k.how == "sharing"][:4]:
        out.append(f"  {_who(kill)} shares its memory and was killed with it.")
    for pid, comm, anon, file, shmem in r.reaped[:4]:
        out.append(
            f"  The reaper took {comm}'s (pid {pid}) memory; left: {kib(anon)} anonymous, {kib(file)} "
            f"of files, {kib(shmem)} shared."
        )
    for pid, comm in r.unable[:4]:
        out.append(f"  The reaper could not get at {comm} (pid {pid}): its mmap_lock was held.")
    suspicious = [
        k for k in r.kills if k.values.get("pgtables", 0) > 4 * max(k.values.get("total-vm", 1), 1)
    ]
    if suspicious:
        out.append(
            "  pgtables in the line about the kill is larger than the address space: early 5.4 kernels "
            "print bytes there and call them kB."
        )
    return out


def report_lines(a: Analysis) -> list[str]:
    """Return an analysis as text, the answer first."""
    r = a.report
    out = [a.summary]
    out += [f"  {text}" for _, text in a.diagnosis]
    out += _request_lines(a)
    for part in (_zone_lines(a), _account_lines(a), _ranking_lines(a), _kill_lines(a)):
        out += part
    if r.missing:
        out.append(f"Missing from the report: {'; '.join(r.missing)}.")
    return out + [f"  {problem}" for problem in r.problems[:12]]


def _title(a: Analysis) -> str:
    r = a.report
    when = r.when or (f"{r.seconds:.3f} s after boot" if r.seconds is not None else "")
    return f"line {r.line}" + (f", {when}" if when else "")


def lines(analyses: list[Analysis]) -> list[str]:
    """Return all analyses as text."""
    if len(analyses) == 1:
        return report_lines(analyses[0])
    kinds: dict[str, int] = {}
    for a in analyses:
        kinds[a.cause] = kinds.get(a.cause, 0) + 1
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    out = [f"{len(analyses)} OOM reports: {counts}."]
    out += [f"  {_title(a)}: {a.summary}" for a in analyses[:200]]
    for i, a in enumerate(analyses[:MAX_SHOWN], 1):
        part = report_lines(a)
        out += ["", f"Report {i}, {_title(a)}: {part[0]}", *part[1:]]
    if len(analyses) > MAX_SHOWN:
        out += ["", f"The first {MAX_SHOWN} of {len(analyses)} reports are explained in full."]
    return out


# ---- as data -------------------------------------------------------------------------------------


def _kill_dict(kill: Kill | None) -> dict[str, Any] | None:
    if kill is None:
        return None
    return {
        "pid": kill.pid,
        "comm": kill.comm,
        "how": kill.how,
        "uid": kill.uid,
        "oom_score_adj": kill.oom_score_adj,
        "score": kill.score,
        "message": kill.message,
        "values_kb": dict(kill.values),
        "line": kill.line,
    }


def _zone_dict(a: Analysis, z: af.ZoneVerdict) -> dict[str, Any]:
    part = a.report.mem.zone(z.node, z.zone)
    blocks = part.free_list
    return {
        "node": z.node,
        "zone": z.zone,
        "allowed": z.allowed,
        "ok": z.ok,
        "why": z.why,
        "free": z.free,
        "unusable": z.unusable,
        "mark": z.mark,
        "reserve": z.reserve,
        "min": part.pages("min"),
        "low": part.pages("low"),
        "high": part.pages("high"),
        "managed": part.pages("managed") or part.pages("present"),
        "block": z.block,
        "largest_order": z.largest_order,
        "blocks": list(blocks.nr) if blocks else None,
        "types": list(blocks.types) if blocks and blocks.typed else None,
    }


def _request_dict(a: Analysis) -> dict[str, Any] | None:
    r = a.report
    if not r.has_head:
        return None
    return {
        "comm": r.comm,
        "pid": r.pid,
        "order": r.order,
        "bytes": r.mem.page_kb << 10 << max(r.order, 0),
        "sysrq": r.order < 0,
        "gfp_mask": r.gfp_printed,
        "gfp_names": r.gfp_names or r.mem.numbering.names(r.mem.gfp_mask),
        "gfp_numbering": r.mem.numbering.version,
        "gfp_sure": r.mem.sure,
        "gfp_meaning": a.meaning,
        "oom_score_adj": r.oom_score_adj,
        "oom_adj": r.oom_adj,
        "nodemask": r.mem.nodemask,
        "cpuset": r.mem.cpuset,
        "mems_allowed": r.mem.mems_allowed,
    }


def _memcg_dict(r: OomReport) -> dict[str, Any] | None:
    memcg = r.memcg
    if memcg is None:
        return None
    return {
        "oom_memcg": memcg.oom,
        "task_memcg": memcg.task,
        "hit": _hit(r),
        "limits": {
            name: {
                "usage_kb": c.usage,
                "limit_kb": c.limit if c.limit < NO_LIMIT_KB else None,
                "failcnt": c.failcnt,
            }
            for name, c in memcg.limits.items()
        },
        "stats_kb": dict(memcg.stats),
    }


def _account_dict(account: acc.Account | None) -> dict[str, Any] | None:
    if account is None:
        return None

    def parts(some: list[acc.Part]) -> list[dict[str, Any]]:
        return [{"name": p.name, "kb": p.kb, "words": p.words} for p in some]

    return {
        "of": account.of,
        "total_kb": account.total_kb,
        "reserved_kb": account.reserved_kb,
        "parts": parts(account.parts),
        "inside": parts(account.inside),
        "unaccounted_kb": account.unaccounted_kb if account.known else None,
    }


def _ranking_dict(a: Analysis) -> dict[str, Any]:
    k = a.ranking
    printed = k.selected.score if k.selected is not None else None
    return {
        "rule": k.rule.name,
        "formula": k.rule.formula,
        "verified": k.verified,
        "sources": k.rule.read,
        "total_pages": k.total or None,
        "total_from": k.total_from,
        "adj_unit": k.adj_unit,
        "verdict": k.verdict,
        "why": list(k.why),
        "notes": list(k.notes),
        "place": k.place,
        "score_printed": printed,
        "score_computed": list(k.score_computed) if k.score_computed else None,
        "tasks": [
            {
                "pid": s.task.pid,
                "name": s.task.name,
                "points": [s.low, s.high] if s.eligible else None,
                "eligible": s.eligible,
                "why_not": s.why_not or None,
                **s.task.values,
            }
            for s in k.scores
        ],
    }


def to_dict(a: Analysis) -> dict[str, Any]:
    """Return an analysis as data; the keys are in the module's text."""
    r = a.report
    return {
        "line": r.line,
        "when": r.when or None,
        "seconds": r.seconds,
        "kernel": r.kernel or None,
        "hardware": r.hardware or None,
        "complete": not r.missing,
        "missing": list(r.missing),
        "problems": list(r.problems),
        "summary": a.summary,
        "request": _request_dict(a),
        "constraint": CONSTRAINTS.get(r.constraint),
        "cause": a.cause,
        "diagnosis": [{"code": code, "text": text} for code, text in a.diagnosis],
        "page_kb": r.mem.page_kb,
        "zones": [_zone_dict(a, z) for z in a.zones],
        "zone_notes": list(a.zone_notes),
        "swap": {"free_kb": r.mem.swap.get("free"), "total_kb": r.mem.swap.get("total")},
        "counters_pages": dict(r.mem.counts),
        "hugepages": [dict(h) for h in r.hugepages],
        "slabs_kb": dict(r.slabs),
        "memcg": _memcg_dict(r),
        "accounting": _account_dict(a.account),
        "task_sums_kb": acc.task_sums(r),
        "ranking": _ranking_dict(a),
        "selected": _kill_dict(a.ranking.selected),
        "victim": _kill_dict(r.victim),
        "kills": [_kill_dict(kill) for kill in r.kills],
        "group": r.group,
        "reaped": [
            {"pid": pid, "comm": comm, "anon_kb": anon, "file_kb": file, "shmem_kb": shmem}
            for pid, comm, anon, file, shmem in r.reaped
        ],
        "unable_to_reap": [{"pid": pid, "comm": comm} for pid, comm in r.unable],
        "panic": r.panic or None,
        "nobody": r.nobody,
    }
