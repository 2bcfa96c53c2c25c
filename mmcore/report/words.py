"""64-bit words out of a pasted text: the output of ``od``, of ``printf``, of an oops, or typed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmcore.errors import UsageError
from mmcore.report.kernlog import numbered_lines

__all__ = ["MAX_WORDS", "Word", "read_words"]

#: At most this many words of one text are read.
MAX_WORDS = 4096

_TOKEN = re.compile(r"[^\s,;|()\[\]{}<>\"']+")
_LABEL = re.compile(r"([A-Za-z]\w{0,15})[:=]?")
_LABELLED = re.compile(r"([A-Za-z]\w{0,15})[:=](.+)")
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,32}|[0-9a-fA-F]{1,32}")


@dataclass(slots=True, frozen=True)
class Word:
    """A number of the text.

    :ivar label: the word before it, such as ``PMD``; "" if there is none
    :ivar line: the line it stands in, counted from 1
    """

    value: int
    label: str
    line: int


def _value(token: str, what: str, decimal: bool) -> int:
    """Return a token's number, which is hexadecimal unless it cannot be.

    :raises UsageError: if it is none, or too large
    """
    token = token.replace("_", "").replace("`", "")
    long_decimal = decimal and len(token) > 16 and token.isascii() and token.isdigit()
    if not _HEX.fullmatch(token) and not long_decimal:
        raise UsageError(f"{token[:40]!r} is no hexadecimal number")
    value = int(token[:32], 10 if long_decimal else 16)
    if value >> 64:
        raise UsageError(f"{token[:40]}: {what} has 64 bits")
    return value


def _is_offset(tokens: list[str], i: int) -> bool:
    """Tell whether a token is the offset that ``od`` and ``hexdump`` print before the words."""
    rest = tokens[1:]
    return (
        i == 0
        and 4 <= len(tokens[0]) <= 12
        and not tokens[0].lower().startswith("0x")
        and bool(rest)
        and all(len(t) == 16 and _HEX.fullmatch(t) for t in rest)
    )


def _line_words(
    tokens: list[str], number: int, labels: set[str], what: str, dec: bool
) -> list[Word]:
    words: list[Word] = []
    label = ""
    for i, token in enumerate(tokens):
        if _is_offset(tokens, i):
            continue
        pair = _LABELLED.fullmatch(token)
        if pair and pair[1].lower() in labels:
            words.append(Word(_value(pair[2], what, dec), pair[1], number))
        elif (named := _LABEL.fullmatch(token)) and named[1].lower() in labels:
            label = named[1]
        else:
            words.append(Word(_value(token, what, dec), label, number))
            label = ""
    return words


def read_words(
    text: str, what: str, labels: set[str] | None = None, decimal: bool = False
) -> list[Word]:
    """Return the 64-bit numbers of a text, at most `MAX_WORDS`; hexadecimal, with or without 0x.

    A line of ``od`` may begin with its offset. In a log, only numbers with a label are read.

    :param what: what they are, for messages
    :param labels: words in lower case that may stand before a number
    :param decimal: take digits that are too many for hexadecimal as decimal
    :raises UsageError: if a word is no number of 64 bits, or there is none
    """
    labels = labels or set()
    words: list[Word] = []
    offset = 0  # how long the offsets of od are; its last line is one alone
    for number, line in numbered_lines(text):
        tokens = _TOKEN.findall(line)
        if offset and len(tokens) == 1 and len(tokens[0]) == offset:
            continue
        offset = len(tokens[0]) if tokens and _is_offset(tokens, 0) else offset
        try:
            words += _line_words(tokens, number, labels, what, decimal)
        except UsageError as err:
            found = _labelled(text, labels)
            if found:
                return found
            where = f"line {number}: " if number > 1 else ""
            raise UsageError(f"{where}{err}") from None
        if len(words) >= MAX_WORDS:
            break
    if not words:
        raise UsageError(
            f"nothing was given: {what} is a hexadecimal number such as 0x8000000012345867"
        )
    return words[:MAX_WORDS]


def _labelled(text: str, labels: set[str]) -> list[Word]:
    """Return only the labelled numbers of a text that has other words, too, such as an oops.

    Of several walks only the first is read: it ends where a level comes again.
    """
    if not labels:
        return []
    names = "|".join(sorted(labels, key=lambda name: (-len(name), name)))
    pattern = re.compile(rf"\b({names})[:= ]{{1,2}}([0-9a-fA-F]{{1,16}})\b", re.IGNORECASE)
    found: list[Word] = []
    for match in pattern.finditer(text):
        if any(word.label.lower() == match[1].lower() for word in found):
            break
        found.append(Word(int(match[2], 16), match[1], text.count("\n", 0, match.start()) + 1))
    return found
