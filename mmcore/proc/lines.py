"""What the parsers share: a cursor over lines that knows where it is."""

from __future__ import annotations

import re

from mmcore.errors import ParseError

__all__ = ["Lines"]


class Lines:
    """The lines of a text, read one after the other.

    :param what: what is being read, for error messages
    :ivar number: number of the next line, counted from 0
    """

    __slots__ = ("lines", "number", "what")

    def __init__(self, text: str, what: str) -> None:
        self.what = what
        self.lines = text.split("\n")
        if self.lines and self.lines[-1] == "":
            self.lines.pop()
        self.number = 0

    def __bool__(self) -> bool:
        """There is another line."""
        return self.number < len(self.lines)

    def error(self, why: str, back: int = 0) -> ParseError:
        """Return an error about the next line, or one @back lines before it."""
        i = self.number - back
        text = self.lines[i] if 0 <= i < len(self.lines) else ""
        return ParseError(self.what, i + 1, text, why)

    def peek(self) -> str:
        """Return the next line without reading it; an empty text at the end."""
        return self.lines[self.number] if self else ""

    def next(self) -> str:
        """Read a line.

        :raises ParseError: at the end of the text
        """
        if not self:
            raise self.error("the text ends too early", back=1 if self.number else 0)
        line = self.lines[self.number]
        self.number += 1
        return line

    def match(self, pattern: str, expected: str) -> re.Match[str]:
        """Read a line that must match.

        :param expected: what the line should be, for the message
        :raises ParseError: if it does not match
        """
        line = self.next()
        found = re.fullmatch(pattern, line, re.ASCII)
        if found is None:
            raise self.error(f"expected {expected}", back=1)
        return found

    def try_match(self, pattern: str) -> re.Match[str] | None:
        """Read a line if it matches, else return None and stay."""
        found = re.fullmatch(pattern, self.peek(), re.ASCII) if self else None
        if found is not None:
            self.number += 1
        return found
