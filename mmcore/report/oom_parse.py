"""Read the reports of the OOM killer in a kernel log: Linux 2.6 to 6.x, with any prefix.

`parse_all()` finds the reports. What the kernel prints there changed often, and distributions move
changes to older kernels; so the form of each line decides, not the version. The state of memory has the
same form as in an allocation failure and is read by `mmcore.report.alloc_failure`. What is missing or
cannot be read is named in `OomReport.missing` and `problems`; the rest is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmcore.errors import ParseError
from mmcore.report import alloc_failure as af
from mmcore.report import gfp
from mmcore.report.kernlog import LogLine, logical_lines
from mmcore.report.oom_log import Plain, plain

__all__ = [
    "MAX_LINES",
    "MAX_REPORTS",
    "Kill",
    "Limit",
    "Memcg",
    "OomReport",
    "Task",
    "parse_all",
    "version_of",
]

#: At most this many reports of one log are read, and this many lines around them.
MAX_REPORTS, MAX_LINES = 512, 600_000
#: Lines that are looked at behind the last that was understood.
IDLE = 400

MARK = re.compile(
    r"oom-killer:|Mem-[Ii]nfo:|oom-kill:constraint|[Kk]illed process|[Kk]ill process \d|oom_reaper: "
    r"|\[ {0,6}pid {0,6}\] |[Oo]ut [Oo]f [Mm]emory|killed as a result of limit"
)
HEAD = re.compile(
    r"(?:(?P<comm>.{0,200}?) invoked )?\boom-killer: {0,4}gfp_mask=(?P<mask>0x[0-9a-fA-F]{1,8})"
    r"(?: ?\((?P<names>[^)]{0,600})\)?)?(?P<rest>.{0,400})"
)
ORDER = re.compile(r"\border=(-?\d{1,4})")
ADJ = re.compile(r"\b(oom_score_adj|oom_adj|oomkilladj)=(-?\d{1,5})")
NODEMASK = re.compile(r"\bnodemask=(\(null\)|[\d,-]{1,80}?)(?=,|\s|$)")
CPUSET = re.compile(
    r"(?:^|(?P<comm>.{1,100}?) )cpuset=(?P<set>\S{1,256}?),? ?mems_allowed=(?P<mems>[\d,-]{1,80})"
)
TASK_LINE = re.compile(
    r"\b(?:CPU: ?(?P<cpu>\d{1,5}),? )?(?:UID: ?\d{1,10} )?(?:PID|Pid): ?(?P<pid>\d{1,10}),? "
    r"(?:Comm|comm): ?(?P<comm>.{1,32}?) (?:Kdump: \w+ )?(?P<taint>Not tainted|Tainted:.{0,60}?)"
    r"(?P<rest>(?: |\d).{0,120})?$"
)
VERSION = re.compile(r"\(?(\d{1,2}\.\d{1,3}(?:\.\d{1,5})?[\w.+~-]{0,80})(?: |\)|$)")
HARDWARE = re.compile(r"Hardware name: (.{1,200})")
TABLE_HEAD = re.compile(
    r"\[ {0,6}pid {0,6}\] {1,6}uid {1,6}tgid {1,6}total_vm {1,12}rss\b(.{0,200})"
)
ROW = re.compile(r"\[ {0,8}(\d{1,10})\]((?: {1,24}-?\d{1,20}){1,16})(?: {1,24}(\S.{0,200}))?$")
ROW_SEARCH = re.compile(r"\[ {0,8}\d{1,10}\] {1,8}\d{1,10} {1,8}\d{1,10} {1,12}\d{1,20} ")
KILL = re.compile(
    r"(?:(?P<message>[A-Z][\w ()]{0,80}): )?[Kk]ill process (?P<pid>\d{1,10}),? {0,2}\((?P<comm>.{0,64}?)\) "
    r"(?:with )?score (?P<score>-?\d{1,20}) (?P<how>or sacrifice child|or a child|and children)"
)
KILL_VX = re.compile(
    r"(?:(?P<message>[A-Z][\w ()]{0,80}): )?[Kk]ill process (?P<comm>.{0,64}?)\((?P<pid>\d{1,10})[:#\d]{0,14}\) "
    r"score (?P<score>-?\d{1,20}) (?P<how>or sacrifice child)"
)
KILLED = re.compile(
    r"(?:(?P<message>[A-Z][\w ()]{0,80}): )?(?:OOM k|K)illed process (?P<pid>\d{1,10})(?::#\d{1,10})?"
    r"(?P<rest>.{0,400})"
)
KILLED_COMM = re.compile(r"\((.{0,64}?)\)(?=,? ?(?:total-vm|vsz|UID|score \d|vm:)|\.?\s*$|[.,] ?$)")
KILLED_VALUE = re.compile(
    r"\b(total-vm|vsz|vm|anon-rss|file-rss|shmem-rss|rss|swap|pgtables):(\d{1,20}) ?kB"
)
UID = re.compile(r"\bUID[: ]{1,2}(\d{1,10})")
SHARING = re.compile(r"Kill process (\d{1,10}) \((.{0,64}?)\) sharing same memory")
PINNED = re.compile(r"oom killer \d+ \(.{0,64}?\) has mm pinned by (\d{1,10}) \((.{0,64}?)\)")
EXITING = re.compile(r"OOM victim (\d{1,10}) \((.{0,64}?)\) is already exiting")
REAPED = re.compile(
    r"oom_reaper: reaped process (\d{1,10}) \((.{0,64}?)\),? ?(?:now )?anon-rss: ?(\d{1,20})kB,? "
    r"file-rss: ?(\d{1,20})kB(?:,? shmem-rss: ?(\d{1,20})kB)?"
)
UNABLE = re.compile(r"oom_reaper: unable to reap pid:(\d{1,10}) \((.{0,64}?)\)")
GROUP = re.compile(r"Tasks in (.{1,1000}?) are going to be killed due to memory\.oom\.group set")
SUMMARY = re.compile(r"oom-kill:constraint=(CONSTRAINT_\w{1,20})(?P<rest>.{0,2500})")
#: Spaces that people put into that line, or that are left where it was wrapped.
SPACED = re.compile(r",\s{1,80}(?=[a-z_]{3,12}[=,])")
SUMMARY_END = re.compile(r",task=(?P<task>.{0,64}?),pid=(?P<pid>\d{1,10}),uid=(?P<uid>\d{1,10})")
TASK_IN = re.compile(
    r"Task in (?P<task>.{1,1000}?) killed as a result of limit of (?P<limit>\S.{0,1000}?)\s*$"
)
LIMIT = re.compile(
    r"\b(memory|memory\+swap|swap|kmem|kmem_tcp): ?usage (\d{1,20})kB, limit (\d{1,20})kB, "
    r"failcnt (\d{1,20})"
)
STATS = re.compile(r"Memory cgroup stats(?: for (?P<path>.{1,1000}?))?:(?P<rest>(?: |anon|$).*|$)")
OLD_STAT = re.compile(r"\b([a-z_]{2,30}):(\d{1,20})KB")
STAT = re.compile(r"\s{0,80}([a-z][a-z0-9_]{1,40}) (\d{1,20})\s*")
HUGE = re.compile(
    r"(?:Node (?P<node>\d{1,6}) )?hugepages_total=(?P<total>\d{1,20}) hugepages_free=(?P<free>\d{1,20}) "
    r"hugepages_surp=(?P<surp>\d{1,20}) hugepages_size=(?P<size>\d{1,20})kB"
)
NODE = re.compile(r"Node (\d{1,6}) ((?:active_anon|hugepages_):\d{1,20}.{0,1500})")
ZONE = re.compile(
    r"(?:Node (\d{1,6}) )?(DMA32|DMA|Normal|HighMem|Movable|Device) (free:\d{1,20}kB.*)"
)
RESERVE = re.compile(r"(?:lowmem_reserve|protections)\[\]:((?: -?\d{1,20}){1,16})")
OLD_COUNTS = re.compile(
    r"\s{0,40}(?:[A-Za-z_-]{2,40}:\d{1,20} {1,4}){0,12}[A-Za-z_-]{2,40}:\d{1,20}\s*"
)
COUNT = re.compile(r"([A-Za-z_-]{2,40}):(\d{1,20})")
#: The counters of the paragraph behind "Mem-Info:", of all versions.
COUNTERS = frozenset(
    "active_anon inactive_anon isolated_anon active_file inactive_file isolated_file unevictable dirty "
    "writeback unstable slab_reclaimable slab_unreclaimable slab mapped shmem pagetables "
    "sec_pagetables bounce kernel_misc_reclaimable free free_pcp free_cma active inactive".split()
)
PAGES = re.compile(
    r"(\d{1,20}) (total pagecache pages|pages in swap cache|pages swap cached|pages of RAM|pages RAM"
    r"|reserved pages|pages reserved|pages of HIGHMEM|pages HighMem(?:/MovableOnly)?"
    r"|pages cma reserved|pages hwpoisoned|pages shared|pages non-shared|free pages|slab pages"
    r"|pages in pagetable cache)\s*$"
)
PAGES_NAMES = {
    "pages of RAM": "pages RAM",
    "reserved pages": "pages reserved",
    "pages of HIGHMEM": "pages HighMem",
    "pages HighMem/MovableOnly": "pages HighMem",
    "pages swap cached": "pages in swap cache",
}
FREE_PAGES = re.compile(r"Free pages: {1,12}(\d{1,20})kB \((\d{1,20})kB HighMem\)")
SWAP = re.compile(r"\b(Free|Total) swap {0,2}[=:] {1,12}(-?\d{1,20})kB")
PANIC = re.compile(r"Kernel panic - not syncing: (.{0,200})")
NOBODY = re.compile(r"[Oo]ut of [Mm]emory and no killable processes")
SUPPRESSED = re.compile(r"\b(?:oom_kill_process: )?(\d{1,10}) callbacks suppressed")
SLAB_HEAD = re.compile(r"Unreclaimable slab info:")
SLAB = re.compile(r"(\S{1,64}) {1,40}(\d{1,12})KB {1,20}(\d{1,12})KB\s*$")
ALLOC_INFO = re.compile(r"Memory allocations:")
OTHER_REPORT = re.compile(
    r"page allocation (?:failure|stalls)|sysrq: Show Memory|SysRq : Show Memory"
)
FREE_LIST = re.compile(r"(?:Node \d{1,6} )?\w{1,16}: (?:\d{1,20}\*\d{1,12}kB .*)")
#: Lines that a terminal may have cut where they still make sense.
OPEN = re.compile(r"Killed process \d|PID: ?\d{1,10},? Comm: |Pid: \d{1,10}, comm: ")
STAMP = re.compile(r"\[ {0,12}(\d{1,12}\.\d{3,9})\]")
WHEN = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
    r"|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d(?: \d{4})?"
)


@dataclass(slots=True)
class Task:
    """A row of the task table: values by the names of the table's head, in pages or as named."""

    pid: int
    name: str
    values: dict[str, int]
    line: int = 0

    def get(self, name: str) -> int:
        """Return a value, 0 if the table does not have it."""
        return self.values.get(name, 0)

    @property
    def immune(self) -> bool:
        """Its adjustment forbids killing it: oom_score_adj -1000, or oom_adj -17 before 2.6.36."""
        if "oom_score_adj" in self.values:
            return self.values["oom_score_adj"] == -1000
        return self.values.get("oom_adj") == -17


@dataclass(slots=True)
class Kill:
    """A process that was killed, or chosen.

    :ivar how: ``killed``; ``chosen``, a line with a score; ``sharing``, it shares the victim's memory;
        ``exiting``, it was gone already
    :ivar values: kB, by the line's names
    :ivar score: as printed; None if the kernel prints none
    """

    pid: int
    comm: str
    how: str
    line: int
    message: str = ""
    uid: int | None = None
    oom_score_adj: int | None = None
    score: int | None = None
    values: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Limit:
    """A cgroup's counter, in kB."""

    usage: int
    limit: int
    failcnt: int


@dataclass(slots=True)
class Memcg:
    """What a report says of memory cgroups.

    :ivar oom: the cgroup at its limit
    :ivar task: the cgroup of the process that was chosen
    :ivar limits: by counter: memory, swap, memory+swap, kmem
    :ivar stats: kB, by the names of memory.stat (v2) or of the old one-line form, all cgroups summed
    :ivar old: the stats are of the old form
    """

    oom: str | None = None
    task: str | None = None
    limits: dict[str, Limit] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    old: bool = False


@dataclass(slots=True)
class OomReport:
    """A report of the OOM killer, as far as it is there.

    :ivar mem: the request and the state of memory, None without a line of them
    :ivar order: as printed: -1 is SysRq-f
    :ivar columns: the task table's head
    :ivar gfp_printed: the mask's number as printed; ``mem.gfp_mask`` is what its names make
    :ivar names_whole: the names' list is not cut
    :ivar selected: the line with the score, of kernels that print one
    :ivar kills: every process that died of it
    :ivar missing: parts that a whole report has and this one has not
    """

    line: int
    comm: str = ""
    pid: int | None = None
    cpu: int | None = None
    kernel: str = ""
    hardware: str = ""
    when: str = ""
    seconds: float | None = None
    has_head: bool = False
    order: int = 0
    gfp_names: str = ""
    gfp_printed: int = 0
    names_whole: bool = False
    oom_score_adj: int | None = None
    oom_adj: int | None = None
    old_head: bool = False
    mem: af.AllocFailure = field(default_factory=lambda: _memory("", 0, 0))
    constraint: str = ""
    memcg: Memcg | None = None
    hugepages: list[dict[str, int]] = field(default_factory=list)
    slabs: list[tuple[str, int]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    guessed_columns: bool = False
    tasks: list[Task] = field(default_factory=list)
    selected: Kill | None = None
    kills: list[Kill] = field(default_factory=list)
    group: str | None = None
    reaped: list[tuple[int, str, int, int, int]] = field(default_factory=list)
    unable: list[tuple[int, str]] = field(default_factory=list)
    nobody: bool = False
    panic: str = ""
    summary_task: tuple[str, int, int] | None = None
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    last: int = 0
    has_memory: bool = False

    @property
    def is_memcg(self) -> bool:
        """A cgroup was at its limit."""
        return self.constraint == "CONSTRAINT_MEMCG"

    @property
    def victim(self) -> Kill | None:
        """The first process that died of it, or was chosen to."""
        for kill in self.kills:
            if kill.how == "killed":
                return kill
        return self.selected


def _memory(comm: str, order: int, mask: int) -> af.AllocFailure:
    return af.AllocFailure(comm, order, mask, "", "(null)", kind="oom")


def version_of(kernel: str) -> tuple[int, int, int] | None:
    """Return the numbers of a release such as ``5.4.17-2136.el8uek.x86_64``, None if there are none."""
    found = re.match(r"(\d{1,2})\.(\d{1,3})(?:\.(\d{1,5}))?", kernel)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


# ---- the parts of a report -----------------------------------------------------------------------


def _numbering(report: OomReport) -> None:
    """Choose the gfp numbering: by the names beside the number, else by the kernel's version."""
    mem = report.mem
    names, mask = report.gfp_names, mem.gfp_mask
    if names:
        fitting = gfp.fits(mask, names)
        if fitting:
            mem.numbering, mem.sure = fitting[0], True
            return
        known = gfp.by_names(names) if report.names_whole else None
        if known is not None:  # bits move with the version and the configuration; names do not lie
            mem.numbering, mem.gfp_mask = known
            mem.sure = True
            return
    version = version_of(report.kernel)
    table = _table_for(version, mask, report) if version or not names else gfp.NUMBERINGS[0]
    if not names and gfp.GfpMask(mask, table, "").unknown:
        # a kernel between two releases, or with changes of a later one
        better = [t for t in reversed(gfp.NUMBERINGS) if not gfp.GfpMask(mask, t, "").unknown]
        later = [t for t in better if gfp.NUMBERINGS.index(t) < gfp.NUMBERINGS.index(table)]
        if better:
            mem.numbering, mem.sure = (later or better)[0], False
            return
    mem.numbering, mem.sure = table, bool(version) and not names


#: Numberings by the first release that has them. What lies between was not read: 3.13's holds from
#: 2.6.31 on, when __GFP_MOVABLE moved, as far as both have a flag.
_TABLES: tuple[tuple[tuple[int, int, int], str], ...] = (
    ((6, 9, 0), "6.12"),
    ((6, 3, 0), "6.6"),
    ((5, 14, 0), "5.15"),
    ((5, 0, 0), "5.10"),
    ((4, 15, 0), "4.19"),
    ((4, 4, 0), "4.9"),
    ((2, 6, 31), "3.13"),
    ((2, 6, 23), "2.6.24"),
    ((0, 0, 0), "2.6.18"),
)


def _table_for(version: tuple[int, int, int] | None, mask: int, report: OomReport) -> gfp.Numbering:
    """Return the table for a kernel's version; without one, guess."""
    if version is None:
        if report.old_head:
            return gfp.numbering("2.6.24" if mask >> 18 else "2.6.18")
        return gfp.nameless(mask).table
    return gfp.numbering(next(name for first, name in _TABLES if version >= first))


def _comm_of(text: str) -> str:
    """Return the name in what stands before "invoked oom-killer", which may have a prefix left."""
    text = text.strip()
    if len(text) <= 16 and not re.search(r"\d\d:\d\d:\d\d", text):
        return text.removeprefix(": ")
    tail = re.split(r"(?:: |\] |> |\t)", text)[-1].strip()
    return tail[-64:] if len(tail) <= 16 else tail.split(" ")[-1][-64:]


def _take_head(text: str, line: int) -> OomReport | None:
    """Start a report with its first line, None if it is none."""
    match = HEAD.search(text)
    if match is None:
        return None
    report = OomReport(line, _comm_of(match["comm"] or ""), has_head=True, last=line)
    mask = report.gfp_printed = int(match["mask"], 16)
    report.names_whole = match["names"] is not None and text[match.end("names") :][:1] == ")"
    report.gfp_names = re.sub(r"\s+", "", match["names"] or "")
    report.mem = _memory(report.comm, 0, mask)
    report.mem.gfp_names, report.mem.line = report.gfp_names, line
    _take_rest(report, match["rest"])
    return report


def _take_rest(report: OomReport, rest: str) -> None:
    """Read order, adjustment and node masks of a first line, or of the line that goes on with it."""
    if order := ORDER.search(rest):
        report.order = int(order[1])
        if report.order > 31:
            report.problems.append(f"order {report.order}, which no kernel has, is read as 0")
            report.order = 0
        report.mem.order = max(report.order, 0)
    for name, value in ADJ.findall(rest):
        if name == "oom_score_adj":
            report.oom_score_adj = int(value)
        else:
            report.oom_adj = int(value)
            report.old_head = report.old_head or name == "oomkilladj"
    if nodes := NODEMASK.search(rest):
        report.mem.nodemask = nodes[1]
    if cpuset := CPUSET.search(rest):
        report.mem.cpuset, report.mem.mems_allowed = cpuset["set"], cpuset["mems"]


def _memcg(report: OomReport) -> Memcg:
    if report.memcg is None:
        report.memcg = Memcg()
    return report.memcg


def _take_summary(report: OomReport, match: re.Match[str], line: int) -> None:
    """Read the line "oom-kill:constraint=..."."""
    report.constraint = match[1]
    rest = match["rest"]
    if nodes := NODEMASK.search(rest):
        report.mem.nodemask = nodes[1]
    if cpuset := re.search(r",cpuset=(.{1,256}?),mems_allowed=([\d,-]{1,80})", rest):
        report.mem.cpuset, report.mem.mems_allowed = cpuset[1], cpuset[2]
    if oom := re.search(r",oom_memcg=(.{1,1000}?),(?:task_memcg|task)=", rest):
        _memcg(report).oom = oom[1]
    if task := re.search(r",task_memcg=(.{1,1000}?),task=", rest):
        _memcg(report).task = task[1]
    if end := SUMMARY_END.search(rest):
        report.summary_task = (end["task"], int(end["pid"]), int(end["uid"]))
    else:
        report.problems.append(f"line {line}: the summary line is cut short")


def _killed(text: str, line: int) -> Kill:
    """Read a line "Killed process"."""
    match = KILLED.search(text)
    if match is None:
        return Kill(0, "", "killed", line)
    rest = match["rest"]
    comm = KILLED_COMM.search(rest) or re.search(r"\((.{0,64}?)\)", rest)
    kill = Kill(int(match["pid"]), comm[1] if comm else "", "killed", line, match["message"] or "")
    kill.values = {
        {"vsz": "total-vm", "vm": "total-vm"}.get(name, name): int(kb)
        for name, kb in KILLED_VALUE.findall(rest)
    }
    if uid := UID.search(rest):
        kill.uid = int(uid[1])
    if adj := re.search(r"oom_score_adj:(-?\d{1,5})", rest):
        kill.oom_score_adj = int(adj[1])
    return kill


def _told(kill: Kill) -> int:
    """Return how many things a line about a kill says."""
    return len(kill.values) + (kill.uid is not None) + (kill.oom_score_adj is not None)


def _constraint_of(report: OomReport, message: str) -> None:
    """Take the constraint from the words before "Kill process", if no line names it."""
    lower = message.lower()
    if report.constraint:
        return
    if "cgroup" in lower:
        report.constraint = "CONSTRAINT_MEMCG"
    elif found := re.search(r"in UB (\w{1,40})", message):
        report.constraint = "CONSTRAINT_MEMCG"
        _memcg(report).oom = f"UB {found[1]} (a container of OpenVZ)"
    elif "mpol_bind" in lower:
        report.constraint = "CONSTRAINT_MEMORY_POLICY"
    elif "cpuset" in lower:
        report.constraint = "CONSTRAINT_CPUSET"


def _take_kill_line(report: OomReport, text: str, line: int) -> bool:
    """Read a line about killing; tell whether it was one."""
    if match := GROUP.search(text):
        report.group = match[1]
    elif match := SHARING.search(text):
        report.kills.append(Kill(int(match[1]), match[2], "sharing", line))
    elif match := PINNED.search(text):
        report.problems.append(f"init shares the victim's memory (pid {match[1]}): no reaping")
    elif match := EXITING.search(text):
        report.kills.append(Kill(int(match[1]), match[2], "exiting", line))
    elif match := KILL.search(text) or KILL_VX.search(text):
        message = match["message"] or ""
        report.selected = Kill(int(match["pid"]), match["comm"], "chosen", line, message)
        report.selected.score = int(match["score"])
        _constraint_of(report, message)
    elif KILLED.search(text):
        report.kills.append(_killed(text, line))
        _constraint_of(report, report.kills[-1].message)
    else:
        return False
    return True


def _take_stats(report: OomReport, match: re.Match[str]) -> None:
    """Read "Memory cgroup stats for PATH:" with what stands behind it."""
    memcg = _memcg(report)
    rest = match["rest"]
    found = OLD_STAT.findall(rest)
    memcg.old = memcg.old or bool(found)
    for name, kb in found:
        memcg.stats[name] = memcg.stats.get(name, 0) + int(kb)
    if memcg.oom is None and match["path"]:
        memcg.oom = match["path"]
    if stat := STAT.fullmatch(rest):
        memcg.stats[stat[1]] = int(stat[2])


#: Of memory.stat, what counts bytes; the rest counts events.
BYTES = frozenset(
    "anon file kernel kernel_stack pagetables sec_pagetables percpu sock vmalloc shmem zswap zswapped "
    "file_mapped file_dirty file_writeback swapcached anon_thp file_thp shmem_thp inactive_anon "
    "active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable slab "
    "hugetlb".split()
)


def _take_memcg_line(report: OomReport, text: str) -> bool:
    """Read a line about cgroups; tell whether it was one."""
    if match := TASK_IN.search(text):
        memcg = _memcg(report)
        memcg.task, memcg.oom = match["task"], match["limit"]
        report.constraint = report.constraint or "CONSTRAINT_MEMCG"
    elif match := LIMIT.search(text):
        _memcg(report).limits[match[1]] = Limit(int(match[2]), int(match[3]), int(match[4]))
        report.constraint = report.constraint or "CONSTRAINT_MEMCG"
    elif match := STATS.search(text):
        _take_stats(report, match)
    elif report.memcg is not None and report.memcg.limits and not report.columns:
        stat = STAT.fullmatch(text)
        if stat is None:
            return False
        if stat[1] in BYTES:
            report.memcg.stats[stat[1]] = int(stat[2])
    else:
        return False
    return True


def _take_memory_line(report: OomReport, text: str, line: int) -> bool:
    """Read a line of the state of memory; tell whether it was one."""
    mem = report.mem
    if "free:" in text and (match := ZONE.search(text)):
        zone = mem.zone(None if match[1] is None else int(match[1]), match[2])
        zone.values = af._values(match[3])
        return True
    if match := RESERVE.search(text):
        if mem.zones and mem.zones[-1].values:
            mem.zones[-1].lowmem_reserve = [int(word) for word in match[1].split()]
        return True
    if match := HUGE.search(text):
        report.hugepages.append({k: int(v or 0) for k, v in match.groupdict().items()})
        return True
    if match := NODE.search(text):
        mem.nodes[int(match[1])] = af._values(re.sub(r": (?=\d)", ":", match[2]))
        return True
    if "*" in text and (match := FREE_LIST.search(text)):
        blocks = re.sub(r" {2,}", " ", match[0].rstrip())
        if af.FREE_LIST_RE.fullmatch(blocks) is None:
            return False  # perhaps wrapped
        try:
            af.take_line(mem, blocks, line)
        except ParseError as err:
            report.problems.append(f"line {line}: {err.why}; it was left out")
        return True
    return _take_count_line(report, text)


def _take_count_line(report: OomReport, text: str) -> bool:
    mem = report.mem
    if match := SWAP.search(text):
        mem.swap[match[1].lower()] = int(match[2])
    elif match := PAGES.search(text):
        mem.counts[PAGES_NAMES.get(match[2], match[2])] = int(match[1])
    elif match := FREE_PAGES.search(text):
        mem.counts.setdefault("free", int(match[1]) // mem.page_kb)
        report.old_head = True  # 2.6.18 is the last that prints this line
    elif ":" in text and OLD_COUNTS.fullmatch(text):
        found = [(name.lower(), int(value)) for name, value in COUNT.findall(text)]
        if found[0][0] not in COUNTERS:
            return False
        mem.counts.update(found)
    else:
        return False
    return True


def _take_slab_line(report: OomReport, text: str) -> bool:
    """Read a line of "Unreclaimable slab info:": name, used and total kB."""
    match = SLAB.search(text)
    if match is None or report.columns or len(report.slabs) >= 512:
        return False
    report.slabs.append((match[1], int(match[3])))
    return True


def _take_about(report: OomReport, text: str) -> bool:
    """Read a line about the task that asked, or the end of it all."""
    if match := PANIC.search(text):
        report.panic = match[1].strip().rstrip(".")
    elif NOBODY.search(text):
        report.nobody = True
    elif "omm: " in text and (match := TASK_LINE.search(text)):
        if report.kernel or report.has_memory or report.columns:
            return False
        report.pid = int(match["pid"])
        report.cpu = int(match["cpu"]) if match["cpu"] else None
        version = VERSION.search(match["rest"] or "")
        report.kernel = version[1] if version else ""
        if report.comm != match["comm"] and report.comm.endswith(match["comm"]):
            report.comm = match["comm"]
    elif match := re.search(
        r"(?:Not tainted|Tainted: [A-Z ]{1,24}) {1,4}\((\d\.\d{1,3}\S{0,60})", text
    ):
        report.kernel = report.kernel or match[1]
    elif match := HARDWARE.search(text):
        report.hardware = report.hardware or match[1].strip()
    elif "mems_allowed=" in text and (match := CPUSET.search(text)):
        if report.mem.cpuset is None:
            report.mem.cpuset, report.mem.mems_allowed = match["set"], match["mems"]
        if match["comm"] and report.comm.endswith(match["comm"].split(": ")[-1].strip()):
            report.comm = match["comm"].split(": ")[-1].strip()
    else:
        return False
    return True


#: How many numbers follow the pid in a row, and what they are, where the table's head is lost.
_COLUMNS: dict[int, str] = {
    6: "uid tgid total_vm rss cpu oom_adj",
    7: "uid tgid total_vm rss nr_ptes swapents oom_score_adj",
    8: "uid tgid total_vm rss nr_ptes nr_pmds swapents oom_score_adj",
    9: "uid tgid total_vm rss nr_ptes nr_pmds nr_puds swapents oom_score_adj",
    10: "uid tgid total_vm rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj",
}


def _guess_columns(report: OomReport, numbers: int) -> None:
    """Choose a table's columns by their number; whether bytes or pages, the values tell later."""
    names = _COLUMNS.get(numbers)
    if names is None:
        return
    report.columns = ["pid", *names.split(), "name"]
    report.guessed_columns = True
    report.problems.append("the head of the task table is missing; its columns are guessed")


def _settle_columns(report: OomReport) -> None:
    """Tell page-table bytes from page-table pages in a table whose head is lost."""
    if not report.guessed_columns or len(report.columns) != 9:
        return
    values = [task.get("nr_ptes") for task in report.tasks]
    if values and all(v % 4096 == 0 for v in values) and max(values) >= 4096:
        report.columns[5] = "pgtables_bytes"
        for task in report.tasks:
            task.values["pgtables_bytes"] = task.values.pop("nr_ptes", 0)


class _Reader:
    """Deals the lines of a log to reports."""

    def __init__(self) -> None:
        self.reports: list[OomReport] = []
        self.current: OomReport | None = None
        self.foreign = False
        self.pending = ""
        self.open = ""
        self.nameless: Task | None = None
        self.idle = 0
        self.suppressed = 0

    def begin(self, report: OomReport) -> OomReport:
        """Make @report the current one."""
        self.current = report
        self.reports.append(report)
        self.foreign = False
        self.pending = ""
        return report

    def part(self, line: int, fresh: bool) -> OomReport:
        """Return the current report; a new one without a head if there is none, or it must be fresh."""
        if self.current is None or fresh:
            return self.begin(OomReport(line, last=line))
        return self.current

    def feed(self, line: LogLine, number: int) -> None:
        """Read a line."""
        text = line.text.rstrip()
        if self._take(text, number):
            self.pending = ""
            self.idle = 0
            self.open = text if len(text) <= 600 and OPEN.search(text) else ""
            if self.current is not None:
                self.current.last = number
            return
        self.idle += 1
        if self.idle > IDLE:
            self.current, self.pending = None, ""
            return
        if line.stamp.strip(" >|") or not text or len(text) > 400:
            self.open = ""
            self.pending, self.nameless = (text if len(text) <= 400 else ""), None
            return
        if self.nameless is not None and len(text.strip()) <= 16:
            self.nameless.name, self.nameless = text.strip(), None
            return
        if self.open and self._amend(text.strip()):
            return
        for between in (" ", ""):
            if self.pending and self._take(self.pending + between + text.strip(), number):
                self.pending = ""
                return
        self.pending = (self.pending + " " + text.strip() if self.pending else text)[-1200:]

    def _amend(self, text: str) -> bool:
        """Add the rest of a wrapped line to what was read of it; tell whether it was one."""
        report = self.current
        if report is None:
            return False
        wholes = [self.open + between + text for between in (" ", "")]
        if KILLED.search(self.open) and self.victims():
            kill = self.victims()[-1]
            found = [(_killed(whole, kill.line), whole) for whole in wholes]
            best, whole = max(found, key=lambda pair: _told(pair[0]))
            if _told(best) <= _told(kill) and best.values == kill.values:
                return False
            best.message = kill.message
            report.kills[report.kills.index(kill)] = best
            self.open = whole[:900]
            return True
        for whole in wholes:
            task = TASK_LINE.search(whole)
            version = VERSION.search(task["rest"] or "") if task else None
            if version and len(version[1]) > len(report.kernel):
                report.kernel, self.open = version[1], whole[:900]
                return True
        return False

    def _take(self, text: str, number: int) -> bool:
        """Read a text; tell whether it was understood."""
        if "oom-killer:" in text and (report := _take_head(text, number)) is not None:
            self.begin(report)
            return True
        if OTHER_REPORT.search(text):
            self.current, self.foreign = None, True
            return True
        if "Kill" in text or "kill" in text or "victim" in text or "oom_reaper" in text:
            if self._take_kill(text, number):
                return True
        if self._take_table(text, number):
            return True
        if self._take_memory(text, number):
            return True
        report = self.current
        if report is None:
            return self._start_cgroup(text, number)
        if _take_memcg_line(report, text) or _take_about(report, text):
            return True
        if SLAB_HEAD.search(text):
            return True
        return _take_slab_line(report, text)

    def _start_cgroup(self, text: str, number: int) -> bool:
        """Begin a report whose first lines are lost with a line about a cgroup."""
        if self.foreign or not (TASK_IN.search(text) or LIMIT.search(text)):
            return False
        return _take_memcg_line(self.part(number, True), text)

    def _take_kill(self, text: str, number: int) -> bool:
        if "oom-kill:constraint" in text:
            text = SPACED.sub(",", text)
        if match := SUMMARY.search(text):
            if not SUMMARY_END.search(text) and not self.pending and len(text) < 2000:
                return False  # perhaps wrapped: the next line may bring the rest
            done = self.current is None or self.current.summary_task is not None
            _take_summary(self.part(number, done or bool(self.victims())), match, number)
            return True
        if match := REAPED.search(text):
            report = self._of_victim(int(match[1]))
            anon, file, shmem = (int(kb or 0) for kb in match.groups()[2:])
            if report is not None:
                report.reaped.append((int(match[1]), match[2], anon, file, shmem))
            return True
        if match := UNABLE.search(text):
            report = self._of_victim(int(match[1]))
            if report is not None:
                report.unable.append((int(match[1]), match[2]))
            return True
        if SUPPRESSED.search(text) and "oom_kill_process" in text:
            return True
        if self.current is None and KILLED.search(text) and self.reports:
            before = self.reports[-1]
            if before.selected is not None and not before.kills:
                self.current, self.foreign = before, False  # a stall's report came between
        fresh = self._kill_is_fresh(text)
        if not fresh and self.current is not None:
            return _take_kill_line(self.current, text, number)
        report = OomReport(number, last=number)
        if not _take_kill_line(report, text, number):
            return False
        if not (report.kills or report.selected):
            return False
        self.begin(report)
        return True

    def victims(self) -> list[Kill]:
        """Return who died of the current report so far."""
        kills = self.current.kills if self.current is not None else []
        return [kill for kill in kills if kill.how == "killed"]

    def _kill_is_fresh(self, text: str) -> bool:
        """Tell whether a line about a kill belongs to no report before it."""
        report = self.current
        if report is None:
            return True
        if GROUP.search(text) or SHARING.search(text) or PINNED.search(text):
            return False
        if KILL.search(text) or KILL_VX.search(text):
            return report.selected is not None or bool(self.victims())
        match = KILLED.search(text)
        if match is None or not self.victims() or report.group is not None:
            return False
        comm = KILLED_COMM.search(match["rest"])
        before = self.victims()[-1]
        same = comm is not None and comm[1] == before.comm and not KILLED_VALUE.search(text)
        return int(match["pid"]) != before.pid and not same

    def _of_victim(self, pid: int) -> OomReport | None:
        for report in reversed(self.reports[-64:]):
            if any(kill.pid == pid for kill in report.kills):
                return report
        return None

    def _take_table(self, text: str, number: int) -> bool:
        if "pid" in text and (match := TABLE_HEAD.search(text)):
            columns = ["pid", "uid", "tgid", "total_vm", "rss", *match[1].split()]
            if columns[-1] != "name":
                if not self.pending:
                    return False  # perhaps wrapped
                columns.append("name")
            done = self.current is None or bool(self.current.columns)
            report = self.part(number, done or bool(self.victims()))
            report.columns = columns[:24]
            return True
        if "]" not in text or (match := ROW_SEARCH.search(text)) is None:
            return text.startswith("Tasks state (memory values in pages)")
        return self._take_row(text[match.start() :], number)

    def _take_row(self, text: str, number: int) -> bool:
        """Read a row of the task table."""
        pid, _, rest = text.partition("]")
        report = self.current
        if report is None or not report.columns or self.victims():
            if (row := ROW.match(text)) is None or self.foreign:
                return False
            report = self.part(number, report is None or bool(self.victims()))
            numbers = len(row[2].split())
            _guess_columns(report, numbers)
            if not report.columns:
                return False
        count = len(report.columns) - 2
        words = rest.split(None, count)
        if len(words) < count:
            return False  # perhaps wrapped
        try:
            numbers_ = [int(word) for word in words[:count]]
        except ValueError:
            report.problems.append(f"line {number}: a row of the task table is damaged")
            return True
        name = words[count].rstrip() if len(words) > count else ""
        values = dict(zip(report.columns[1:-1], numbers_))
        task = Task(int(pid[1:]), name[:64], values, number)
        if len(report.tasks) < 100_000:
            report.tasks.append(task)
        self.nameless = None if name else task
        return True

    def _take_memory(self, text: str, number: int) -> bool:
        if text.startswith("Mem-") or "Mem-Info:" in text or "Mem-info:" in text:
            if re.search(r"\bMem-[Ii]nfo:", text) is None:
                return False
            if self.foreign:
                return True
            report = self.current
            used = report is None or report.has_memory or bool(report.columns or self.victims())
            self.part(number, used).has_memory = True
            return True
        if self.foreign:
            return False
        report = self.current if self.current is not None else OomReport(number, last=number)
        if self.victims() and not report.nobody:
            report = OomReport(number, last=number)
        if not _take_memory_line(report, text, number):
            return False
        if report is not self.current:
            self.begin(report)
        report.has_memory = True
        return True


# ---- a whole log ---------------------------------------------------------------------------------


def _windows(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, first line's number) of the parts of a log that may hold reports."""
    start = end = -1
    parts: list[tuple[int, int]] = []
    for match in MARK.finditer(text):
        begin = text.rfind("\n", 0, match.start()) + 1 if match.start() > end else start
        if match.start() > end:
            if end >= 0:
                parts.append((start, end))
            start = max(text.rfind("\n", 0, max(begin - 20_000, 0)) + 1, end if end > 0 else 0)
        end = min(match.end() + 60_000, len(text))
        if end < len(text):
            newline = text.find("\n", end)
            end = len(text) if newline < 0 else newline + 1
    if end >= 0:
        parts.append((start, end))
    number = at = 0
    for begin, finish in parts:
        number += text.count("\n", at, begin)
        at = begin
        yield begin, finish, number


def _finish(report: OomReport) -> None:
    """Settle what needs the whole report."""
    mem = report.mem
    _numbering(report)
    _settle_columns(report)
    for zone in mem.zones:
        zone.page_kb = mem.page_kb
    if report.memcg is not None and report.memcg.limits and not mem.zones:
        limit = report.memcg.limits.get("memory")
        if limit is not None:
            mem.memcg = (limit.usage, limit.limit)
    if not report.memcg or report.memcg.old or not report.memcg.stats:
        pass
    else:
        report.memcg.stats = {name: n >> 10 for name, n in report.memcg.stats.items()}
    victim = report.victim
    if report.summary_task is not None and victim is None:
        name, pid, uid = report.summary_task
        report.selected = Kill(pid, name, "chosen", report.last, uid=uid)
    mem.killed = f"{victim.comm} (pid {victim.pid})" if victim else ""
    if not report.constraint and (report.victim or report.has_memory):
        whole = report.has_memory and bool(mem.zones)
        report.constraint = "CONSTRAINT_NONE" if whole or (victim and victim.message) else ""
    _missing(report)


def _missing(report: OomReport) -> None:
    if not report.has_head:
        report.missing.append("the first line (who asked, for what)")
    if not report.is_memcg and not report.mem.zones:
        report.missing.append("the state of memory (Mem-Info)")
    if report.is_memcg and not (report.memcg and report.memcg.limits):
        report.missing.append("the cgroup's usage and limit")
    if not report.tasks:
        report.missing.append("the task table (vm.oom_dump_tasks)")
    if report.victim is None and not report.nobody and not report.panic:
        report.missing.append("the line that says who was killed")


def _whens(text: str, reports: list[OomReport]) -> None:
    """Take date and seconds from what stood before the first lines of reports."""
    at, number = 0, 1
    for report in sorted(reports, key=lambda r: r.line):
        while number < report.line and at >= 0:
            at = text.find("\n", at) + 1
            if at == 0:
                return
            number += 1
        end = text.find("\n", at)
        head = text[at : min(end if end >= 0 else len(text), at + 300)]
        if match := STAMP.search(head):
            report.seconds = float(match[1])
        if match := WHEN.search(head):
            report.when = match[0]


def parse_all(text: str, limit: int = MAX_REPORTS) -> list[OomReport]:
    """Return the OOM reports of a log, in its order, at most @limit."""
    source: Plain = plain(text)
    reader = _Reader()
    lines = 0
    for start, end, before in _windows(source.text):
        reader.current, reader.foreign, reader.idle = None, False, 0
        for line in logical_lines(source.text[start:end]):
            lines += 1
            if lines > MAX_LINES or len(reader.reports) > limit:
                break
            reader.feed(line, source.line(line.number + before))
    found = [
        report
        for report in reader.reports
        if report.has_head or report.kills or report.selected or report.columns or report.nobody
        if report.has_head or report.tasks or report.victim or report.nobody
    ][:limit]
    for report in found:
        _finish(report)
    _whens(text, found)
    return found
