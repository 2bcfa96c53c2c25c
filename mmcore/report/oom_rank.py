"""Recompute whom the OOM killer should have chosen, with the arithmetic of the report's kernel.

`RULES` holds the rules, each with the sources that were read for it. A kernel between two of them gets
the one that its report's form calls for, and `Ranking.verified` says whether its own source was among
those read. What a report does not show (capabilities, CPU time, children) is named in `Ranking.notes`,
and turned into bounds where it can be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mmcore.report.oom_parse import Kill, OomReport, Task, version_of

__all__ = ["RULES", "Ranking", "Rule", "Score", "rank", "rule_for"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kernel counts.

    :ivar first, last: releases it holds for, as far as known; last is exclusive
    :ivar formula: in words
    :ivar read: the sources that were read for it
    :ivar permille: points are thousandths of the total, not pages
    :ivar root: what a process with CAP_SYS_ADMIN is spared: "" nothing, "30" thousandths, "3%" of its
        points, "?" one of the three
    :ivar floor: the least points of a process that may be killed; None: may be negative
    :ivar later: of equals, the one later in the list is chosen
    """

    name: str
    first: tuple[int, int, int]
    last: tuple[int, int, int]
    formula: str
    read: str
    permille: bool = False
    root: str = ""
    floor: int | None = 1
    later: bool = False
    old: bool = False


RULES: tuple[Rule, ...] = (
    Rule(
        "badness",
        (2, 6, 0),
        (2, 6, 36),
        "total_vm + half the children's, / sqrt(CPU time) / fourth root of run time, doubled if niced, "
        "quartered for root and for raw I/O, shifted by oom_adj",
        "2.6.18 (RHEL 5), 2.6.19, 2.6.24, 2.6.32",
        old=True,
    ),
    Rule(
        "permille",
        (2, 6, 36),
        (3, 6, 0),
        "(rss + page tables + swap) * 1000 / total, less for root, + oom_score_adj, from 1 to 1000",
        "2.6.32-642.el6 (root: 30 points), 3.4 (root: 3 % of its points)",
        permille=True,
        root="?",
    ),
    Rule(
        "pages, less for root",
        (3, 6, 0),
        (4, 17, 0),
        "rss + swap + page tables, less for root, + oom_score_adj * (total / 1000), at least 1",
        "3.10 (root: 30 thousandths of the total), 4.11 (root: 3 % of its points)",
        root="?",
    ),
    Rule(
        "pages",
        (4, 17, 0),
        (5, 9, 0),
        "rss + swap + page tables + oom_score_adj * (total / 1000), at least 1",
        "4.19",
    ),
    Rule(
        "pages, may be negative",
        (5, 9, 0),
        (99, 0, 0),
        "rss + swap + page tables + oom_score_adj * (total / 1000)",
        "5.4 and 5.10 (Android's, which have it too), 6.12",
        floor=None,
        later=True,
    ),
)
#: Series whose own source was read: major, minor.
READ: tuple[tuple[int, int], ...] = ((3, 4), (3, 10), (4, 11), (4, 19), (5, 10), (6, 12))


@dataclass(slots=True)
class Score:
    """A task's points: bounds, equal if nothing is unknown.

    :ivar eligible: it may be killed
    :ivar why_not: why it may not
    """

    task: Task
    low: int
    high: int
    eligible: bool = True
    why_not: str = ""


@dataclass(slots=True)
class Ranking:
    """The tasks by points, the likeliest victim first.

    :ivar total: pages that points are shares of; 0 if the report does not say
    :ivar total_max: what it may be at most: a cgroup's swap is part of it, and the machine's is not shown
    :ivar total_from: how the total was found
    :ivar adj_unit: what one unit of oom_score_adj is worth, in points
    :ivar selected: who was chosen: the line with the score, else the first that was killed
    :ivar place: the chosen one's place, from 1; None if it is not in the table
    :ivar verdict: ``agrees``, ``possible``, ``differs``, or ``unknown``
    :ivar partial: the table has neither page tables nor swap, so that points are lower bounds
    :ivar why: reasons for the choice, or for a difference
    :ivar score_computed: bounds of the score as the kernel prints it
    """

    rule: Rule
    verified: bool
    total: int = 0
    total_max: int = 0
    total_from: str = ""
    adj_unit: int = 0
    scores: list[Score] = field(default_factory=list)
    selected: Kill | None = None
    place: int | None = None
    verdict: str = "unknown"
    partial: bool = False
    why: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score_computed: tuple[int, int] | None = None


def rule_for(report: OomReport) -> tuple[Rule, bool]:
    """Return the rule of a report's kernel, and whether that kernel's own source was read."""
    version = version_of(report.kernel)
    columns = report.columns
    by_name = {rule.name: rule for rule in RULES}
    if "el6" in report.kernel or ("oom_score_adj" in columns and "oom_adj" in columns):
        verified = "el6" in report.kernel or bool(version and version[:2] == (3, 4))
        return by_name["permille"], verified
    if version is not None and version[0] >= 2:
        for rule in RULES:
            if rule.first <= version < rule.last:
                return rule, _verified(rule, version)
    if report.old_head or ("oom_adj" in columns and "oom_score_adj" not in columns):
        return by_name["badness"], False
    if report.oom_adj is not None and report.oom_score_adj is None:
        return by_name["badness"], False
    scored = report.selected is not None and report.selected.score is not None
    if "pgtables_bytes" in columns or not columns:
        return (by_name["pages"] if scored else by_name["pages, may be negative"]), False
    return by_name["pages, less for root"], False


def _verified(rule: Rule, version: tuple[int, int, int]) -> bool:
    if rule.old:
        return version in ((2, 6, 18), (2, 6, 19), (2, 6, 24), (2, 6, 32))
    return version[:2] in READ


# ---- the total -----------------------------------------------------------------------------------


def _nodes(text: str | None) -> set[int]:
    out: set[int] = set()
    for part in (text or "").split(",")[:64]:
        if found := re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part):
            out |= set(range(int(found[1]), min(int(found[2] or found[1]), 4096) + 1))
    return out


def _total(report: OomReport) -> tuple[int, int, str]:
    """Return the least and most pages that points are shares of, and where they come from."""
    if not report.is_memcg:
        total, words = _machine_total(report)
        return total, total, words
    limit = report.memcg.limits.get("memory") if report.memcg else None
    if limit is None or report.memcg is None:
        return 0, 0, ""
    mem = report.mem
    pages = min(limit.limit // mem.page_kb, 1 << 51)
    both, own = report.memcg.limits.get("memory+swap"), report.memcg.limits.get("swap")
    room = own.limit if own else max(both.limit - limit.limit, 0) if both else 0
    room = min(room // mem.page_kb, 1 << 51)
    if "total" in mem.swap:
        room = min(room, mem.swap["total"] // mem.page_kb)
        total = max(pages + room, 1)
        return total, total, "the cgroup's limit, and its share of swap"
    if not room:
        return max(pages, 1), max(pages, 1), "the cgroup's limit"
    words = "the cgroup's limit; the machine's swap, which adds to it, is not shown"
    return max(pages, 1), pages + room, words


def _machine_total(report: OomReport) -> tuple[int, str]:
    """Return the same where no cgroup is at its limit."""
    mem = report.mem
    swap = mem.swap.get("total", 0) // mem.page_kb
    ram = mem.counts.get("pages RAM", 0)
    if report.constraint in ("CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY"):
        text = mem.nodemask if report.constraint.endswith("POLICY") else mem.mems_allowed
        nodes = _nodes(text)
        present = sum(z.pages("present") for z in mem.zones if (z.node or 0) in nodes)
        if present:
            return present + swap, "pages present on the allowed nodes, and swap"
        return 0, ""
    if not ram:
        present = sum(z.pages("managed") or z.pages("present") for z in mem.zones)
        return (present + swap, "the zones' pages, and swap") if present else (0, "")
    return ram - min(mem.counts.get("pages reserved", 0), ram) + swap, "RAM - reserved, and swap"


# ---- the points ----------------------------------------------------------------------------------


def _tables(task: Task, page: int) -> int:
    """Return a task's page tables in pages."""
    if "pgtables_bytes" in task.values:
        return task.get("pgtables_bytes") // page
    return task.get("nr_ptes") + task.get("nr_pmds") + task.get("nr_puds")


def _old_points(task: Task) -> tuple[int, int]:
    """Return bounds of the old points: what total_vm and oom_adj alone give is no bound at all."""
    points = task.get("total_vm")
    adj = max(-16, min(task.get("oom_adj"), 15))
    points = max(points, 1) << adj if adj > 0 else points >> -adj
    return points, points


def _spared(rule: Rule, points: int, total: int) -> list[int]:
    """Return what a process with CAP_SYS_ADMIN may be spared, by the rules that it may be under."""
    out = [0]
    if rule.root in ("?", "30"):
        out.append(30 if rule.permille else 30 * (total // 1000))
    if rule.root in ("?", "3%"):
        out.append(points * 3 // 100)
    return out if rule.root else [0]


def _points(rule: Rule, task: Task, total: int, page: int) -> tuple[int, int]:
    """Return bounds of a task's points."""
    if rule.old:
        return _old_points(task)
    points = task.get("rss") + task.get("swapents") + _tables(task, page)
    adj = task.get("oom_score_adj")
    if rule.permille:
        if not total:
            return points, points
        points = points * 1000 // total
        values = [points - less + adj for less in _spared(rule, points, total)]
        values = [min(max(v, 1), 1000) for v in values]
    else:
        values = [points - less + adj * (total // 1000) for less in _spared(rule, points, total)]
    if rule.floor is not None:
        values = [max(v, rule.floor) for v in values]
    if task.values.get("uid") != 0:
        return values[0], values[0]
    return min(values), max(values)


#: A limit on swap above this says nothing of how much there is: 16 TiB.
_NO_BOUND = 1 << 32


def _score(ranking: Ranking, task: Task, page: int) -> Score:
    rule = ranking.rule
    if task.immune:
        what = "oom_adj -17" if rule.old else "oom_score_adj -1000"
        return Score(task, 0, 0, False, what)
    low, high = _points(rule, task, ranking.total, page)
    if ranking.total < ranking.total_max < _NO_BOUND:
        other = _points(rule, task, ranking.total_max, page)
        low, high = min(low, other[0]), max(high, other[1])
    return Score(task, low, high)


def _printed(ranking: Ranking, score: Score) -> tuple[int, int] | None:
    """Return bounds of the score that the kernel prints for points."""
    rule = ranking.rule
    if rule.old:
        return score.low, score.high
    if rule.permille:
        return score.low, 1000 if ranking.partial else score.high
    if not ranking.total:
        return None
    most = max(ranking.total_max, ranking.total)
    return score.low * 1000 // most, score.high * 1000 // ranking.total


# ---- the verdict ---------------------------------------------------------------------------------


def _chosen(report: OomReport) -> Kill | None:
    return report.selected or report.victim


def _find(scores: list[Score], kill: Kill) -> int | None:
    for i, score in enumerate(scores):
        if score.task.pid == kill.pid or score.task.values.get("tgid") == kill.pid:
            return i
    return None


def _judge(report: OomReport, ranking: Ranking, killed_before: set[int]) -> None:
    """Say whether the choice is the one that the points ask for."""
    scores, kill = ranking.scores, ranking.selected
    may = [s for s in scores if s.eligible]
    if kill is None or not (may or "allocating_task" in kill.message):
        return
    at = _find(scores, kill)
    if "allocating_task" in kill.message:
        ranking.verdict = "agrees"
        ranking.why.append(
            "Because vm.oom_kill_allocating_task is set, whoever asks for memory is killed, whatever its "
            "points"
        )
        return
    if "MPOL_BIND" in kill.message or "memory in cpuset" in kill.message:
        ranking.verdict = "agrees"
        ranking.why.append("This kernel kills whoever asks when a policy or a cpuset binds it")
        return
    if at is None:
        _absent(report, ranking, kill)
        return
    mine = scores[at]
    ranking.place = 1 + sum(1 for s in may if s.low > mine.high)
    if not mine.eligible:
        ranking.verdict = "differs"
        ranking.why.append(f"The table has it at {mine.why_not}, which forbids choosing it")
        return
    ranking.score_computed = _printed(ranking, mine)
    better = [s for s in may if s is not mine and s.low > mine.high]
    waiting = [s for s in better if s.task.pid in killed_before]
    better = [s for s in better if s not in waiting]
    if waiting:
        names = ", ".join(f"{s.task.name} (pid {s.task.pid})" for s in waiting[:3])
        ranking.why.append(
            f"{names} has more points, but was killed by a report before this one: with MMF_OOM_SKIP "
            "set it counts no longer"
        )
    rivals = [s for s in may if s is not mine and s.high >= mine.low and s not in better]
    if ranking.rule.old:
        ranking.verdict = "possible" if better else "agrees"
        return
    if better:
        _outranked(report, ranking, mine, better)
    elif any(s.high > mine.low for s in rivals):
        ranking.verdict = "possible"
        ranking.why.append(
            "Its lead depends on what the report does not show: who has CAP_SYS_ADMIN, or how much swap "
            "there is"
        )
    else:
        ranking.verdict = "agrees"
        ties = [s for s in rivals if s.low == s.high == mine.low == mine.high]
        if ties:
            order = "the later" if ranking.rule.later else "the earlier"
            ranking.why.append(
                f"There are {len(ties) + 1} tasks with equal points; of equals this kernel keeps {order}"
            )


def _outranked(report: OomReport, ranking: Ranking, mine: Score, better: list[Score]) -> None:
    """Explain why somebody with fewer points was chosen."""
    top = max(better, key=lambda s: s.low)
    gap = top.low - mine.high
    version = version_of(report.kernel) or (0, 0, 0)
    ranking.verdict = "differs"
    if ranking.partial:
        ranking.verdict = "possible"
        ranking.why.append(
            f"By rss alone {top.task.name} (pid {top.task.pid}) is ahead, but swap and page tables, which "
            "count as much, are not in this kernel's table"
        )
        return
    if ranking.total_max >= _NO_BOUND and _adj(mine) > max(_adj(s) for s in better):
        ranking.verdict = "possible"
        ranking.why.append(
            f"It is ahead of {top.task.name} (pid {top.task.pid}) if the machine has swap, which makes "
            "oom_score_adj weigh more"
        )
        return
    if not ranking.rule.permille and gap <= 64 * 4:
        ranking.verdict = "possible"
        ranking.why.append(
            f"{top.task.name} (pid {top.task.pid}) is ahead by {gap} pages only: the table is printed "
            "after the choice, and counters that tasks on other CPUs keep to themselves move meanwhile"
            + (" (batches of 32 pages or more)" if version >= (6, 2, 0) else " (up to 64 pages)")
        )
        return
    names = f"{top.task.name} (pid {top.task.pid}), {top.low} points"
    ranking.why.append(
        f"{names}, is ahead of it ({mine.high}) by the table. The kernel passes over tasks that share a "
        "vfork parent's memory, were reaped before (MMF_OOM_SKIP), are bound to other nodes, or have "
        "no memory of their own; the table shows none of these"
    )
    if not ranking.total and top.task.get("oom_score_adj"):
        ranking.verdict = "unknown"
        ranking.why = ["The total is not in the report, so that oom_score_adj cannot be weighed"]


def _adj(score: Score) -> int:
    return score.task.get("oom_score_adj")


def _absent(report: OomReport, ranking: Ranking, kill: Kill) -> None:
    """Explain a victim that is not in the table."""
    by_name = [s for s in ranking.scores if s.task.name == kill.comm[:15] and s.eligible]
    after = report.kills[0] if report.kills and report.selected is not None else None
    if after is not None and _find(ranking.scores, after) is not None and after.comm == kill.comm:
        ranking.why.append(
            f"The pid of the choice, {kill.pid}, is not in the table: most likely it is a thread's of the "
            f"process that was killed, pid {after.pid}"
        )
        ranking.selected = after
        _judge(report, ranking, set())
        ranking.selected = kill
        return
    if by_name:
        ranking.why.append("It may be a thread of the process of the same name in the table")
    ranking.why.append(f"There is no pid {kill.pid} in the task table, which may be cut short")


def rank(report: OomReport, killed_before: set[int] | None = None) -> Ranking:
    """Rank the tasks of a report, and judge the kernel's choice by it.

    :param killed_before: pids that earlier reports of the same log killed
    """
    rule, verified = rule_for(report)
    ranking = Ranking(rule, verified)
    ranking.total, ranking.total_max, ranking.total_from = _total(report)
    ranking.adj_unit = 1 if rule.permille else ranking.total // 1000
    ranking.partial = "swapents" not in report.columns and not rule.old
    page = report.mem.page_kb << 10
    ranking.scores = [_score(ranking, task, page) for task in report.tasks]
    place = {id(s): i for i, s in enumerate(ranking.scores)}
    sign = -1 if rule.later else 1
    ranking.scores.sort(key=lambda s: (not s.eligible, -s.high, sign * place[id(s)]))
    ranking.selected = _chosen(report)
    _judge(report, ranking, killed_before or set())
    _explain_victim(report, ranking)
    _notes(report, ranking)
    return ranking


def _explain_victim(report: OomReport, ranking: Ranking) -> None:
    """Add what else the lines about the kill say."""
    selected, kills = report.selected, [k for k in report.kills if k.how == "killed"]
    if selected is not None and kills and kills[0].pid != selected.pid:
        if selected.comm != kills[0].comm or _find(ranking.scores, selected) is not None:
            ranking.why.append(
                f"The choice was {selected.comm} (pid {selected.pid}); its child {kills[0].comm} "
                f"(pid {kills[0].pid}) was sacrificed for it, as kernels before 5.2 do"
            )
    if selected is None or selected.score is None or ranking.score_computed is None:
        return
    low, high = ranking.score_computed
    if ranking.rule.old:
        return
    score = selected.score
    span = f"{low}" if low == high else f"{low} to {high}"
    if ranking.partial and score >= low:
        if score > low and ranking.total:
            pages = (score - low) * ranking.total // 1000
            ranking.why.append(
                f"The printed score is {score}, rss alone gives {low}: swap and page tables make up the "
                f"rest, about {pages} pages"
            )
        else:
            ranking.why.append(f"The printed score {score} is what the points give")
    elif low <= score <= high:
        ranking.why.append(f"The printed score {score} is what the points give")
    elif min(abs(score - low), abs(score - high)) <= 1:
        ranking.why.append(f"The printed score {score} is within 1 of what the points give, {span}")
    else:
        ranking.why.append(f"The printed score is {score}; the points give {span}")


def _notes(report: OomReport, ranking: Ranking) -> None:
    """Say what the arithmetic could not know."""
    rule = ranking.rule
    if not report.tasks:
        return
    if rule.old:
        ranking.notes.append(
            "Points of this kernel cannot be recomputed: CPU time, run time, children, niceness and "
            "capabilities are not in the report. The order is by total_vm and oom_adj alone."
        )
    if ranking.partial:
        ranking.notes.append("This table has neither page tables nor swap: the points lack both.")
    if rule.root:
        ranking.notes.append(
            "A process with CAP_SYS_ADMIN is spared something; the report shows no capabilities, so "
            "that processes of uid 0 have bounds."
        )
    if not ranking.total:
        ranking.notes.append(
            "The total is not in the report: oom_score_adj counts for nothing here."
        )
    if not ranking.verified:
        kernel = f"kernel {report.kernel}" if report.kernel else "its kernel (no version is shown)"
        ranking.notes.append(
            f"The source of {kernel} was not read for this; the rule is that of: {rule.read}."
        )
