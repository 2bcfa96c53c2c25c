"""Lines of a kernel log, whatever program wrote them down: prefixes taken off, wrapped lines joined.

A log reaches people raw (``[  12.345678] text``), with wall-clock times (``dmesg -T``), with levels
(``dmesg -x``, ``/dev/kmsg``), with the printing CPU or task, through syslog or journald (``Nov 25
09:39:56 host kernel: text``), quoted in mail (``> text``), and wrapped at 72 or 80 columns.
`split_prefix()` knows those forms; `logical_lines()` also joins what was wrapped, where the text
itself tells: a line that cannot be complete is followed by one that cannot be a beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAX_LINE", "LogLine", "logical_lines", "numbered_lines", "split_prefix"]

#: What is read of one line. The kernel's own lines are at most 1,024 bytes, most of them far less.
MAX_LINE = 4096
#: A prefix is looked for in this many characters.
MAX_PREFIX = 200
#: At most this many lines are joined into one.
MAX_JOINED = 64

_QUOTE = re.compile(r"(?:[>|] ?){1,24}")
_LEVEL = re.compile(r"<\d{1,3}>|\d{1,3},\d{1,20},\d{1,20},[^;\s]{1,40};|\w+ *:\w+ *: (?=\[)")
_CLOCK = re.compile(
    r"\[ {0,12}\d{1,12}\.\d{1,9}\] ?|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [\d: ]{12,20}\] ?"
)
_CALLER = re.compile(r"\[ {0,8}[TC]\d{1,10}\] ?")
_HOST = re.compile(
    r"(?:(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\[ {0,12}\d{1,12}\.\d{1,9}\]) )?[\w.:-]{1,64} kernel(?:\[\d{1,10}\])?: ?"
)
_KERNEL = re.compile(r"kernel: ?")


def split_prefix(line: str) -> tuple[str, str]:
    """Return what the log put before a kernel message, and the message.

    >>> split_prefix("Nov 25 09:39:56 host kernel: [   12.345678] Mem-Info:")
    ('Nov 25 09:39:56 host kernel: [   12.345678] ', 'Mem-Info:')
    """
    at = 0
    for pattern in (_QUOTE, _LEVEL, _HOST, _KERNEL, _LEVEL, _CLOCK, _CALLER):
        match = pattern.match(line, at, MAX_PREFIX)
        if match is not None:
            at = match.end()
    return line[:at], line[at:]


@dataclass(slots=True)
class LogLine:
    """A message, perhaps joined from several lines.

    :ivar number: the number of its first line, counted from 1
    :ivar stamp: the prefix of its first line
    :ivar raw: what stood there after that prefix, line ends included where lines were joined
    :ivar lines: how many lines it took
    """

    number: int
    stamp: str
    text: str
    raw: str
    lines: int = 1


_VALUE = r"[\w()]{1,40}:\d{1,20}(?:[kK]B)?"
_BLOCK = r"\d{1,20}\*\d{1,20}kB|\([A-Z]{0,8}\)|=|\d{1,20}kB"
#: How lines begin that go on for long.
_LONG = re.compile(
    r"(?:Node \d{1,6} )?\w{1,16} free:|Node \d{1,6} active_anon:|(?:Node \d{1,6} )?\w{1,16}: \d+\*\d"
    r"|.{0,80}page allocation failure[:.]|.{0,80}invoked oom-killer:"
)
#: How such lines end when they are whole.
_WHOLE = re.compile(r"= ?\d{1,20}kB *$|all_unreclaimable\? (?:yes|no) *$|mems_allowed=[\d,-]+ *$")
#: How the rest of such a line begins.
_REST = re.compile(
    rf"(?:{_VALUE}|{_BLOCK}|all_unreclaimable\?|yes|no|mode:|order:|gfp_mask=|nodemask="
    r"|cpuset=|mems_allowed=|order=|oom_score_adj=|oom_adj=|[|]?__GFP_\w+|[|]?GFP_\w+)(?=[\s,)|]|\S|$)"
)
#: The last word of a line that was cut in the middle of a word.
_CUT = re.compile(
    r"(?:^| )(?:[a-z_]{2,20}(?:\([a-z]{0,5}\)?)?|[\w()]{1,40}:\d{0,20}k?|\d{1,20}\*?\d{0,20}k?"
    r"|\([A-Z]{0,8})$"
)
_CUT_REST = re.compile(r"[a-z_()]{0,20}:?\d{0,20}[kK]?B?\)?(?= |$)")


#: Words of a report's first line, whole: one that was cut becomes such a word again.
_HEAD_WORD = re.compile(
    r"nodemask=(?:\(null\)|[\d,-]+)(?:,cpuset=[^\s,]+,mems_allowed=[\d,-]+|,)?"
    r"|mode:0x[0-9a-f]+(?:\([\w|]*\),?)?|gfp_mask=0x[0-9a-f]+(?:\([\w|]*\))?,"
    r"|cpuset=\S+|mems_allowed=[\d,-]+|order[:=]-?\d+,|oom_(?:score_)?adj=-?\d+"
)


def _joins(line: LogLine, stamp: str, text: str) -> str | None:
    """Return what to put between @line and @text if @text is the rest of it, else None."""
    if stamp.strip("> |") or line.lines >= MAX_JOINED or not text:
        return None
    head = line.text[-MAX_LINE:]
    if not _LONG.match(head) or _WHOLE.search(head):
        return None
    rest = text.lstrip()
    if head.count("(") > head.count(")") and re.match(r"[\w|]*\)", rest):
        return ""  # inside the names of a mask, which have no spaces
    last, first = head.rpartition(" ")[2], rest.partition(" ")[0]
    if last and _HEAD_WORD.fullmatch(last + first) and not _HEAD_WORD.fullmatch(last):
        return ""
    if _CUT.search(head) and not head.endswith(":") and _CUT_REST.match(rest):
        if re.fullmatch(rf"{_VALUE}|{_BLOCK}", last + first):
            return ""
    return " " if _REST.match(rest) else None


_NOT_EMPTY = re.compile(r"[^\n]+")


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, each as far as it is read, with their numbers from 1."""
    number, at = 1, 0
    for match in _NOT_EMPTY.finditer(text):
        begin = match.start()
        number += text.count("\n", at, begin)
        at = begin
        yield number, text[begin : min(match.end(), begin + MAX_LINE)]


def _raw_lines(text: str, start: int) -> Iterator[str]:
    """Yield the lines from a place on, each as far as it is read."""
    while True:
        end = text.find("\n", start)
        if end < 0:
            yield text[start : start + MAX_LINE]
            return
        yield text[start : min(end, start + MAX_LINE)]
        start = end + 1


def logical_lines(text: str, start: int = 0) -> Iterator[LogLine]:
    """Yield the messages of a log from a place on, wrapped ones joined; line numbers count from there.

    A line with a prefix of its own is never the rest of another. What is longer than `MAX_LINE`
    is cut.
    """
    current: LogLine | None = None
    for number, raw in enumerate(_raw_lines(text, start), 1):
        stamp, body = split_prefix(raw.rstrip("\r"))
        if current is not None:
            between = _joins(current, stamp, body)
            if between is not None:
                current.raw += "\n" + raw
                current.text += between + body.strip()
                current.lines += 1
                continue
            yield current
        current = LogLine(number, stamp, body.rstrip() if body.isspace() else body, body)
    if current is not None:
        yield current
