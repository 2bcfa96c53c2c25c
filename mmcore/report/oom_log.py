"""Kernel messages out of whatever kept them: JSON records, journal fields, container and device logs.

`plain()` returns the messages one a line, as ``dmesg`` would show them, and says which line of the
original each came from. It knows

- JSON: an object a line (Docker, Kubernetes, ``journalctl -o json``, cloud agents), a document with an
  array of records (CloudWatch, Loki), pretty-printed or cut off anywhere; bytes as a list of numbers;
- ``journalctl -o verbose`` and ``-o export``: the ``MESSAGE=`` fields;
- container runtime lines, syslog in the forms of RFC 3164 and RFC 5424, virtual machines' logs, serial
  consoles, logcat: what stands before the kernel's own time stamp is dropped;
- colours of ``dmesg --color``, HTML entities, line ends written as ``\\n`` or, by rsyslog, as ``#012``;
- mail that is quoted-printable, and lines that end with ``\\`` because they go on in the next.

Lines that need none of this stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["MAX_PLAIN", "Plain", "plain"]

#: No more characters than this come out.
MAX_PLAIN = 32 << 20
#: Keys under which log collectors keep a message, the likeliest first.
KEYS = (
    "MESSAGE",
    "message",
    "Message",
    "log",
    "msg",
    "textPayload",
    "@message",
    "line",
    "body",
    "text",
    "event",
    "jsonPayload",
    "_raw",
    "data",
)
#: Keys that hold a list of records.
LISTS = ("events", "logEvents", "entries", "records", "values", "result", "streams", "hits", "logs")

_ANSI = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
_ENTITY = re.compile(r"&(lt|gt|amp|quot|#39|#x27);")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "#39": "'", "#x27": "'"}
#: A message in a JSON text that cannot be read as a whole.
_FIELD = re.compile(
    r'"(?:MESSAGE|message|Message|log|msg|textPayload|@message|line|body|_raw)"\s{0,8}:\s{0,8}'
    r'"((?:[^"\\\n]|\\.){0,65536})'
)
_BYTES = re.compile(r'"MESSAGE"\s{0,8}:\s{0,8}\[((?:\s{0,40}\d{1,3},?){1,65536})')
_MESSAGE = re.compile(r"[ \t]{0,40}MESSAGE=")
_ESCAPED = re.compile(r"\\[nrt]")
#: What says that a text is encoded as mail is (quoted-printable): the "=" of these words.
_QUOTED = re.compile(
    r"(?:gfp_mask|order|oom_score_adj|oom_adj|constraint|Free swap {1,2}|usage)=3D"
)
_OCTET = re.compile(r"=([0-9A-F]{2})")
#: The kernel's own time stamp, with the level before it; it must not be a task's row of a table.
_KERNEL_STAMP = re.compile(
    r"(?:<\d{1,3}>)?\[(?: {0,12}\d{1,12}\.\d{3,9}| {0,8}\+\d{1,8}\.\d{3,9}"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [\d: ]{12,20})\]"
)
#: The stamp of ``dmesg -T`` in other languages: names of days and months differ, the clock does not.
_LOCAL_STAMP = re.compile(r"\[[^\[\]\n]{4,32} (\d\d:\d\d:\d\d) (\d{4})\]")
#: What stands before a message without such a stamp.
_BEFORE = re.compile(
    r"^.{0,200}?(?:"
    r"\bkernel(?:\[\d{1,10}\])?: (?::? ?)"
    r"|\bkernel(?:\[\d{1,10}\])? - \S{1,40} (?:-|\[[^\]\n]{0,200}\]) (?:\ufeff|BOM)?"
    r"|\b(?:stdout|stderr) [FP] "
    r"|\bGuest: "
    r"|\bklogd: "
    r"|\b[VDIWEF]/(?:KERNEL|kernel)[^:\n]{0,24}: "
    r"|\b[VDIWEF] (?:KERNEL|kernel) {0,8}: "
    r"|^\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} {1,8}\w{0,8} {0,8}\d{1,8} {1,8}\d{1,8} [VDIWEF] [^:\n]{0,24}: "
    r"|^(?:<\d{1,3}>)?\d{1,3},\d{1,20},\d{1,20},[^;\s]{1,40};"
    r")"
)
#: What stands between the stamp and the message on some devices: CPU, process.
_AFTER = re.compile(
    r" {0,4}(?:<\d>[.\-]{0,2})? {0,2}(?:\(\d{1,2}\)\[\d{1,8}:[^\]\n]{1,24}\]"
    r"|\[ {0,4}\d{1,2}: {0,16}[^\]\n:]{1,24}: {0,8}\d{1,8}\]|c\d{1,2} {1,4}\d{1,8}(?= )"
    r"|\[ {0,8}[TC]\d{1,10}\]|:(?= )) {0,4}"
)
#: Words of the messages we are after, which no prefix holds.
_OURS = re.compile(
    r"oom-kill|oom_reaper|Mem-[Ii]nfo|_anon:\d|[Kk]illed process|[Kk]ill process|\bfree:\d|lowmem_reserve"
    r"|\*\d+kB|Out of [Mm]emory|\[ *pid *\]| swap {0,2}[=:]|hugepages_|memory: usage"
)
_NEEDED = re.compile(
    r'^[ \t]{0,80}[\[{"]|MESSAGE=|\x1b\[|&(?:lt|gt|amp|quot);|\\n|\\t|std(?:out|err) [FP] |Guest: '
    r"|kernel|KERNEL|klogd: |<\d{1,3}>\d|\d,\d+,\d+,|: \[|\w \[ {0,12}\d{1,12}\.\d{3,9}\]"
    r"|\[ {0,8}\+\d|\]\s{1,4}\(\d{1,2}\)\[|\] \[ ?\d: |\] {1,2}c\d{1,2} "
    r"|^[ \t]{0,8}\d{1,6}[.:][ \t]|#012|[=\\]\r?$",
    re.MULTILINE,
)


class Plain:
    """A text of messages, and where each line came from.

    :ivar text: the messages, one a line
    :ivar numbers: by line, its line in the original, counted from 1; None if they are the same
    """

    __slots__ = ("numbers", "text")

    def __init__(self, text: str, numbers: list[int] | None) -> None:
        self.text = text
        self.numbers = numbers

    def line(self, number: int) -> int:
        """Return the original's line for a line of the text, both counted from 1."""
        if self.numbers is None:
            return number
        return self.numbers[number - 1] if 0 < number <= len(self.numbers) else number


def _messages(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the messages in a piece of JSON."""
    if depth > 12:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        if value and all(isinstance(n, int) and not isinstance(n, bool) for n in value[:65536]):
            yield bytes(n & 255 for n in value[:65536]).decode("utf-8", "replace")
            return
        if len(value) == 2 and all(isinstance(v, str) for v in value) and value[0].isdigit():
            yield value[1]  # Loki: [time, line]
            return
        for part in value:
            if isinstance(part, (dict, list)):
                yield from _messages(part, depth + 1)
            elif isinstance(part, str):
                yield part
    elif isinstance(value, dict):
        for key in KEYS:
            if key in value and value[key] not in (None, ""):
                yield from _messages(value[key], depth + 1)
                return
        for key in LISTS:
            if isinstance(value.get(key), (list, dict)):
                yield from _messages(value[key], depth + 1)
        nested = [v for k, v in value.items() if isinstance(v, dict) and k not in LISTS]
        for part in nested[:8]:
            yield from _messages(part, depth + 1)


def _load(text: str) -> Any:
    """Return what a JSON text holds, None if it is none."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _unescape(text: str) -> str:
    """Read the inside of a JSON string that may have been cut off."""
    try:
        value = json.loads(f'"{text}"', strict=False)
        return value if isinstance(value, str) else text
    except (ValueError, RecursionError):
        return _ESCAPED.sub(lambda m: "\n" if m[0] == "\\n" else " ", text).replace('\\"', '"')


def _of_json(line: str) -> list[str] | None:
    """Return the messages of one line of JSON, None if it is none."""
    body = line.strip().rstrip(",")
    start = body.find("{")
    if start < 0 and not body.startswith(('"', "[")):
        return None
    if start > 0 and not body.startswith(('"', "[")) and not body.endswith("}"):
        return None
    if body.endswith("}") and start >= 0:
        value = _load(body[start:])
        if isinstance(value, dict):
            return list(_messages(value))
    if body.startswith("[") and body.endswith("]") and '"' in body:
        value = _load(body)
        if isinstance(value, list):
            return list(_messages(value))
    if found := _BYTES.search(body):
        return [bytes(int(n) & 255 for n in re.findall(r"\d+", found[1])).decode(errors="replace")]
    fields = _FIELD.findall(body)
    return [_unescape(text) for text in fields] if fields else None


def _entity(match: re.Match[str]) -> str:
    return _ENTITIES[match[1]]


def _strip(line: str) -> str:
    """Take off what stands before a kernel message and is no part of it."""
    stamp = _KERNEL_STAMP.search(line, 0, 400)
    if stamp is None and (local := _LOCAL_STAMP.search(line, 0, 400)) is not None:
        # any date will do here: reports take theirs from the text as it was
        line = f"{line[: local.start()]}[Thu Jan  1 {local[1]} {local[2]}]{line[local.end() :]}"
        stamp = _KERNEL_STAMP.search(line, 0, 400)
    if stamp is not None and not _OURS.search(line, 0, stamp.start()):
        before, rest = line[: stamp.start()], line[stamp.end() :]
        if before.rstrip().endswith('"') and rest.endswith('"'):  # a field of a CSV file
            rest = rest[:-1].replace('""', '"')
        after = _AFTER.match(rest)
        rest = " " + rest[after.end() :] if after is not None else rest
        return rest[1:] if "+" in stamp[0] else stamp[0] + rest
    found = _BEFORE.match(line)
    if found is not None and not _OURS.search(line, 0, found.end()):
        return line[found.end() :]
    return line


def _lines_of(raw: str) -> list[str]:
    """Return the messages in one line of a log."""
    texts = [raw]
    if '"' in raw and ("{" in raw or raw.lstrip().startswith(('"', "["))):
        texts = _of_json(raw) or texts
    out: list[str] = []
    for text in texts:
        if found := _MESSAGE.match(text):
            text = text[found.end() :]
        if text.count("\\n") > 2:
            text = text.replace("\\n", "\n").replace("\\t", " ")
        if "#012" in text:  # rsyslog writes line ends so
            text = text.replace("#012", "\n")
        if "\x1b" in text:
            text = _ANSI.sub("", text)
        if "&" in text:
            text = _ENTITY.sub(_entity, text)
        text = text.rstrip("\n")
        out += [_strip(line) for line in text.split("\n")] if text else [""]
    return out


def _document(text: str) -> Plain | None:
    """Read a text that is one JSON document, None if it is none."""
    body = text.strip()
    if body[:1] not in ("{", "[") or body[-1:] not in ("}", "]"):
        return None
    if "\n" in body and isinstance(_load(body.partition("\n")[0].rstrip(",")), dict):
        return None  # an object a line: those have line numbers
    value = _load(body)
    if value is None:
        return None
    lines: list[str] = []
    for message in _messages(value):
        lines += _lines_of(message.rstrip("\n"))
    return Plain("\n".join(lines), [1] * len(lines)) if lines else None


def _joined(text: str, quoted: bool) -> Iterator[tuple[int, str]]:
    """Yield (number, line), with the lines joined that were broken with ``\\`` or ``=`` at their end.

    :param quoted: the text is quoted-printable, as mail is
    """
    number = start = first = 0
    held = ""
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].rstrip("\r")
        number, start = number + 1, end + 1
        first = first if held else number
        if len(held) < 4096 and line[-1:] and (line[-1] == "\\" or (quoted and line[-1] == "=")):
            held += line[:-1]
            continue
        line, held = held + line, ""
        if quoted and "=" in line:
            line = _OCTET.sub(lambda m: chr(int(m[1], 16)), line).rstrip()
        yield first, line
    if held:
        yield first, held


def plain(text: str) -> Plain:
    """Return the kernel messages of a log one a line; at most `MAX_PLAIN` characters of them."""
    if _NEEDED.search(text) is None:
        return Plain(text, None)
    if (document := _document(text)) is not None:
        return document
    lines: list[str] = []
    numbers: list[int] = []
    size = 0
    for number, raw in _joined(text, _QUOTED.search(text) is not None):
        for line in _lines_of(raw):
            lines.append(line)
            numbers.append(number)
            size += len(line) + 1
        if size >= MAX_PLAIN:
            break
    return Plain("\n".join(lines), numbers)
