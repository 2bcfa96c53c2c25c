"""Explorables: interactive figures that are declared once and used everywhere.

An explorable is a generator from control values to frames. It is declared with typed parameters and
registered under a name, in ``mmcore/viz/figures/chNN.py``::

    @explorable(
        "ch02.buddy",
        title="Buddy split and merge",
        key=("split", "merge"),
        params=dict(
            pages=Int(1024, 64, 4096, help="pages in the zone"),
            script=Actions("alloc 0; free 3", verbs={"alloc": Int(0, 0, 10), "free": Int(0, 0, 1023)}),
        ),
    )
    def buddy(p):
        for verb, *args in p.script:
            ...
            yield Frame(svg, caption, alt, mark="split", event=event, data=rows)

`render()` is the one entry that every surface uses: the static page, the live page, JupyterLab and the
PDF. A value that a parameter cannot take is a `ParamError`, which says what was given and what is allowed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mmcore.errors import MMError, UsageError

__all__ = [
    "MAX_ACTIONS",
    "MAX_FRAMES",
    "Actions",
    "Bool",
    "Choice",
    "Explorable",
    "Float",
    "Frame",
    "Hex",
    "Int",
    "Param",
    "ParamError",
    "Rendering",
    "Seed",
    "Text",
    "explorable",
    "find",
    "names",
    "render",
]

#: A stepper never has more frames than this; a longer run is sampled, and says so.
MAX_FRAMES = 120
#: A script of actions is at most this long.
MAX_ACTIONS = 400
#: A generator that yields more frames than this is taken for one that never ends.
MAX_STEPS = 200_000

#: Distinguishes a parameter without a value of its own from one whose value is None.
_SPACE = re.compile(r"\s+")


class ParamError(UsageError):
    """A value that a parameter of an explorable cannot take: the only error a reader can cause.

    :param param: the parameter's name, or ``""`` where no single one is to blame
    :param text: what is wrong and what would be right, in words, without the parameter's name
    """

    def __init__(self, param: str, text: str) -> None:
        super().__init__(f"{param}: {text}" if param else text)
        self.param = param
        self.text = text

    def __reduce__(self) -> tuple[type[ParamError], tuple[str, str]]:
        return (ParamError, (self.param, self.text))


def _shown(value: object) -> str:
    """Return @value as it is quoted in an error: short, on one line."""
    text = value if isinstance(value, str) else repr(value)
    text = _SPACE.sub(" ", text)
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True)
class Param:
    """A typed parameter: its default, what it may be, and how it is shown."""

    default: Any
    kind = "param"

    def parse(self, name: str, value: Any) -> Any:
        """Return @value, which may be text, as what the figure works with.

        :raises ParamError: if the parameter cannot take it
        """
        raise NotImplementedError

    def format(self, value: Any) -> Any:
        """Return a parsed @value in the form in which it is stored, sent and put into a URL."""
        return value

    def schema(self) -> dict[str, Any]:
        """Return a JSON-able description from which a control can be built."""
        raise NotImplementedError

    def boundaries(self) -> list[Any]:
        """Return values at the edges of what is allowed, for tests."""
        return [self.default]


def _whole(name: str, value: Any) -> int:
    """Return @value, a number or text such as ``12``, ``0x1f`` or ``1_000``, as an int."""
    if isinstance(value, bool):
        raise ParamError(name, f"needs a whole number, not {value}")
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        text = value.strip().replace(",", "_")
        try:
            return int(text, 0) if len(text) <= 40 else int("x")
        except ValueError:
            if text.isascii() and text.isdigit() and len(text) <= 40:
                return int(text)
    raise ParamError(name, f"needs a whole number, not '{_shown(value)}'")


def _in_range(name: str, value: float, lo: float, hi: float, show: Callable[[Any], str]) -> None:
    if value < lo:
        raise ParamError(name, f"{show(value)} is too small; it may be {show(lo)} to {show(hi)}")
    if value > hi:
        raise ParamError(name, f"{show(value)} is too large; it may be {show(lo)} to {show(hi)}")


@dataclass(frozen=True)
class Int(Param):
    """A whole number from @lo to @hi; a multiple of @step counted from @lo."""

    default: int
    lo: int = 0
    hi: int = 1 << 20
    step: int = 1
    help: str = ""
    label: str = ""
    unit: str = ""
    kind = "int"

    def parse(self, name: str, value: Any) -> int:
        number = _whole(name, value)
        _in_range(name, number, self.lo, self.hi, str)
        if (number - self.lo) % self.step:
            below = number - (number - self.lo) % self.step
            raise ParamError(
                name,
                f"{number} is not a step of {self.step} from {self.lo}; the nearest below is {below}",
            )
        return number

    def schema(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "default": self.default,
            "min": self.lo,
            "max": self.hi,
            "step": self.step,
            "help": self.help,
            "label": self.label,
            "unit": self.unit,
        }

    def boundaries(self) -> list[Any]:
        top = self.hi - (self.hi - self.lo) % self.step
        return [self.lo, top]


@dataclass(frozen=True)
class Float(Param):
    """A number from @lo to @hi."""

    default: float
    lo: float = 0.0
    hi: float = 1.0
    step: float = 0.0
    help: str = ""
    label: str = ""
    unit: str = ""
    kind = "float"

    def parse(self, name: str, value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value.strip() if isinstance(value, str) else value)
        except (TypeError, ValueError, OverflowError):
            raise ParamError(name, f"needs a number, not '{_shown(value)}'") from None
        if number != number:
            raise ParamError(name, "needs a number, not 'nan'")
        _in_range(name, number, self.lo, self.hi, lambda v: f"{v:g}")
        return number

    def schema(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "default": self.default,
            "min": self.lo,
            "max": self.hi,
            "step": self.step or (self.hi - self.lo) / 100,
            "help": self.help,
            "label": self.label,
            "unit": self.unit,
        }

    def boundaries(self) -> list[Any]:
        return [self.lo, self.hi]


@dataclass(frozen=True)
class Bool(Param):
    """A switch."""

    default: bool
    help: str = ""
    label: str = ""
    kind = "bool"

    def parse(self, name: str, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        if isinstance(value, str):
            word = value.strip().lower()
            if word in ("1", "true", "yes", "on"):
                return True
            if word in ("0", "false", "no", "off"):
                return False
        raise ParamError(name, f"needs yes or no, not '{_shown(value)}'")

    def schema(self) -> dict[str, Any]:
        return {"kind": self.kind, "default": self.default, "help": self.help, "label": self.label}

    def boundaries(self) -> list[Any]:
        return [False, True]


@dataclass(frozen=True)
class Choice(Param):
    """One of a few words. @options is a sequence of words, or a mapping from word to what is shown."""

    default: str
    options: Sequence[str] | Mapping[str, str] = ()
    help: str = ""
    label: str = ""
    kind = "choice"

    def parse(self, name: str, value: Any) -> str:
        word = value.strip() if isinstance(value, str) else value
        if isinstance(word, str) and word in self.options:
            return word
        allowed = ", ".join(self.options)
        raise ParamError(name, f"'{_shown(value)}' is not one of {allowed}")

    def schema(self) -> dict[str, Any]:
        shown = self.options if isinstance(self.options, Mapping) else {o: o for o in self.options}
        return {
            "kind": self.kind,
            "default": self.default,
            "options": [[word, text] for word, text in shown.items()],
            "help": self.help,
            "label": self.label,
        }

    def boundaries(self) -> list[Any]:
        return list(self.options)


@dataclass(frozen=True)
class Hex(Param):
    """An unsigned number of @bits bits that is written in base 16, such as an address or a gfp mask."""

    default: int
    lo: int = 0
    hi: int = (1 << 64) - 1
    help: str = ""
    label: str = ""
    kind = "hex"

    def parse(self, name: str, value: Any) -> int:
        if isinstance(value, str):
            text = value.strip().lower().replace("_", "").replace("`", "")
            digits = text.removeprefix("0x")
            if not digits or len(digits) > 32 or any(c not in "0123456789abcdef" for c in digits):
                raise ParamError(
                    name, f"needs a number in base 16 such as 0xcc0, not '{_shown(value)}'"
                )
            number = int(digits, 16)
        else:
            number = _whole(name, value)
        _in_range(name, number, self.lo, self.hi, hex)
        return number

    def format(self, value: int) -> str:
        return hex(value)

    def schema(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "default": hex(self.default),
            "min": hex(self.lo),
            "max": hex(self.hi),
            "help": self.help,
            "label": self.label,
        }

    def boundaries(self) -> list[Any]:
        return [self.lo, self.hi]


@dataclass(frozen=True)
class Text(Param):
    """Free text of at most @limit characters. It is data: nothing interprets it but the figure."""

    default: str
    limit: int = 2000
    lines: int = 1
    help: str = ""
    label: str = ""
    kind = "text"

    def parse(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise ParamError(name, f"needs text, not {_shown(value)}")
        if len(value) > self.limit:
            raise ParamError(name, f"has {len(value)} characters; {self.limit} are allowed")
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "default": self.default,
            "limit": self.limit,
            "lines": self.lines,
            "help": self.help,
            "label": self.label,
        }

    def boundaries(self) -> list[Any]:
        return [self.default]


@dataclass(frozen=True)
class Seed(Param):
    """The seed of the figure's random streams: a new seed is a new case, the same seed the same one."""

    default: int = 1
    help: str = "another number gives another case; the same number gives the same case again"
    label: str = ""
    lo: int = 0
    hi: int = (1 << 32) - 1
    kind = "seed"

    def parse(self, name: str, value: Any) -> int:
        number = _whole(name, value)
        _in_range(name, number, self.lo, self.hi, str)
        return number

    def schema(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "default": self.default,
            "min": self.lo,
            "max": self.hi,
            "help": self.help,
            "label": self.label,
        }

    def boundaries(self) -> list[Any]:
        return [self.lo, self.hi]


Verb = Param | tuple[Param, ...] | None


def _verb_params(verb: Verb) -> tuple[Param, ...]:
    if verb is None:
        return ()
    return (verb,) if isinstance(verb, Param) else tuple(verb)


@dataclass(frozen=True)
class Actions(Param):
    """A script of actions, ``verb argument; verb argument``, which the figure carries out in order.

    :param verbs: the actions there are; each maps to None (takes no argument), a `Param` or a tuple of them
    :param limit: how many actions a script may have
    """

    default: str
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    limit: int = MAX_ACTIONS
    help: str = ""
    label: str = ""
    kind = "actions"

    def parse(self, name: str, value: Any) -> list[tuple[Any, ...]]:
        if isinstance(value, str):
            value = re.split(r"[;\n]", value)
        elif not isinstance(value, (list, tuple)):
            raise ParamError(name, f"needs actions such as '{self.default}', not '{_shown(value)}'")
        steps = [words for words in (self._words(name, step) for step in value) if words]
        if len(steps) > self.limit:
            raise ParamError(name, f"has {len(steps)} actions; {self.limit} are allowed")
        return [self._parse_step(name, i, words) for i, words in enumerate(steps, 1)]

    def _words(self, name: str, step: Any) -> list[Any]:
        """Return one action as its verb and its arguments, which are text or already values."""
        if isinstance(step, str):
            return [word for word in re.split(r"[\s,]+", step) if word]
        if isinstance(step, (list, tuple)):
            return list(step)
        raise ParamError(name, f"needs actions such as '{self.default}', not '{_shown(step)}'")

    def _parse_step(self, name: str, i: int, step: list[Any]) -> tuple[Any, ...]:
        verb, *words = step
        where = f"action {i}, '{_shown(' '.join(str(word) for word in step))}'"
        if not isinstance(verb, str) or verb not in self.verbs:
            raise ParamError(name, f"{where}: there is no '{_shown(verb)}'; use {self.usage()}")
        takes = _verb_params(self.verbs[verb])
        if len(words) != len(takes):
            needs = (
                ("no argument", "one argument")[len(takes)]
                if len(takes) < 2
                else f"{len(takes)} arguments"
            )
            raise ParamError(name, f"{where}: {verb} takes {needs}, not {len(words)}")
        args = []
        for param, word in zip(takes, words, strict=True):
            try:
                args.append(param.parse(name, word))
            except ParamError as err:
                raise ParamError(name, f"{where}: {err.text}") from None
        return (verb, *args)

    def usage(self) -> str:
        """Return the verbs that there are, as one would write them in a sentence."""
        words = list(self.verbs)
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

    def format(self, value: list[tuple[Any, ...]]) -> str:
        steps = []
        for verb, *args in value:
            takes = _verb_params(self.verbs[verb])
            shown = [str(p.format(a)) for p, a in zip(takes, args, strict=True)]
            steps.append(" ".join([verb, *shown]))
        return "; ".join(steps)

    def schema(self) -> dict[str, Any]:
        verbs = {
            verb: [p.schema() for p in _verb_params(takes)] for verb, takes in self.verbs.items()
        }
        return {
            "kind": self.kind,
            "default": self.default,
            "verbs": verbs,
            "limit": self.limit,
            "help": self.help,
            "label": self.label,
        }

    def boundaries(self) -> list[Any]:
        return ["", self.default]


@dataclass(frozen=True)
class Frame:
    """One state of a figure.

    :param svg: the drawing: a `mmcore.viz.svg.Drawing` or an ``<svg>`` text
    :param caption: what happened, in a sentence or two; `` `code` `` and ``**bold**`` are understood
    :param alt: what the drawing shows, for those who do not see it: its conclusion, not "image of"
    :param mark: a word by which the declaration can choose this frame as a key frame
    :param event: the event that led here, if any
    :param data: rows of the same state as plain data, if any
    """

    svg: Any
    caption: str
    alt: str
    mark: str = ""
    event: Any = None
    data: Any = None
    #: The number of this frame in the whole run, counted from 1; set by `render()`.
    step: int = 0


@dataclass(frozen=True)
class Explorable:
    """A declared figure: see `explorable()`."""

    name: str
    title: str
    function: Callable[[Any], Iterable[Frame]]
    params: Mapping[str, Param]
    key: tuple[str, ...] = ()
    help: str = ""

    def parse(self, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the value of every parameter: @values where given, else the defaults.

        :raises ParamError: for a value that its parameter cannot take, or a name that is not a parameter's
        """
        given = dict(values or {})
        for name in given:
            if name not in self.params:
                known = ", ".join(self.params) or "none"
                raise ParamError(str(name), f"is not a parameter of {self.name}; it has: {known}")
        return {
            name: param.parse(name, given.get(name, param.default))
            for name, param in self.params.items()
        }


@dataclass(frozen=True)
class Rendering:
    """What `render()` returns: all frames of an explorable for one set of values."""

    explorable: Explorable
    values: dict[str, Any]
    frames: list[Frame]
    #: How many frames the run had; more than ``len(frames)`` where it was sampled.
    total: int

    @property
    def name(self) -> str:
        """The explorable's registered name."""
        return self.explorable.name

    @property
    def title(self) -> str:
        """The explorable's title."""
        return self.explorable.title

    @property
    def sampled(self) -> bool:
        """Whether frames were left out."""
        return self.total > len(self.frames)

    @property
    def key_indices(self) -> list[int]:
        """The positions in `frames` of the frames that are printed: the first one with each key mark.

        Where the declaration names no mark, or none of its marks occurs, it is the last frame.
        """
        found = []
        for mark in self.explorable.key:
            for i, frame in enumerate(self.frames):
                if frame.mark == mark:
                    found.append(i)
                    break
        return sorted(set(found)) or [len(self.frames) - 1]

    @property
    def key_frames(self) -> list[Frame]:
        """The frames that are printed in the PDF and shown where no script runs."""
        return [self.frames[i] for i in self.key_indices]

    @property
    def changed(self) -> dict[str, Any]:
        """The values that are not their parameter's default, in the form in which they are stored."""
        params = self.explorable.params
        shown = {n: params[n].format(v) for n, v in self.values.items()}
        plain = {n: p.format(p.parse(n, p.default)) for n, p in params.items()}
        return {n: v for n, v in shown.items() if v != plain[n]}

    def to_dict(self) -> dict[str, Any]:
        """Return the whole rendering as what JSON can carry."""
        params = self.explorable.params
        return {
            "name": self.name,
            "title": self.title,
            "values": {n: params[n].format(v) for n, v in self.values.items()},
            "params": {n: p.schema() for n, p in params.items()},
            "total": self.total,
            "key": self.key_indices,
            "frames": [
                {
                    "step": f.step,
                    "svg": str(f.svg),
                    "caption": f.caption,
                    "alt": f.alt,
                    "mark": f.mark,
                    "event": None if f.event is None else str(f.event),
                    "data": plain(f.data),
                }
                for f in self.frames
            ],
        }


def plain(data: Any) -> Any:
    """Return @data made of dicts, lists, numbers, text and None only."""
    if data is None or isinstance(data, (bool, str, int)):
        return data
    if isinstance(data, float):
        return data if abs(data) < float("inf") else str(data)
    if isinstance(data, Mapping):
        return {str(k): plain(v) for k, v in data.items()}
    if hasattr(data, "_asdict"):
        return plain(data._asdict())
    if isinstance(data, (set, frozenset)):
        return sorted((plain(v) for v in data), key=repr)
    if isinstance(data, Iterable):
        return [plain(v) for v in data]
    return str(data)


_registry: dict[str, Explorable] = {}


def explorable(
    name: str,
    *,
    title: str,
    params: Mapping[str, Param] | None = None,
    key: Sequence[str] = (),
    help: str = "",
) -> Callable[[Callable[[Any], Iterable[Frame]]], Callable[[Any], Iterable[Frame]]]:
    """Register a generator of frames as an explorable.

    :param name: ``chNN.word``; the figure is found in ``mmcore/viz/figures/chNN.py``
    :param title: a few words, the name of the figure for a screen reader
    :param params: the parameters; the generator gets an object with one attribute for each
    :param key: marks of the frames to print; the first frame with each mark is one
    :param help: a sentence on what the reader can do with it
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+", name):
        raise UsageError(f"explorable name {name!r}: needs the form 'ch02.buddy'")
    declared = dict(params or {})
    for word, param in declared.items():
        if not word.isidentifier():
            raise UsageError(f"explorable {name}: {word!r} is not a usable parameter name")
        if not isinstance(param, Param):
            raise UsageError(f"explorable {name}: parameter {word} is {param!r}, not a Param")
        try:
            param.parse(word, param.default)
        except ParamError as err:
            raise UsageError(f"explorable {name}: its own default is refused: {err}") from None

    def register(function: Callable[[Any], Iterable[Frame]]) -> Callable[[Any], Iterable[Frame]]:
        known = _registry.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise UsageError(
                f"explorable {name} is declared twice, in {known.function.__module__} too"
            )
        _registry[name] = Explorable(name, title, function, declared, tuple(key), help)
        return function

    return register


def names() -> list[str]:
    """Return the names of the explorables declared so far, sorted."""
    return sorted(_registry)


def find(name: str) -> Explorable:
    """Return the explorable called @name, importing the module that declares it if need be.

    :raises ParamError: if there is none
    """
    if not isinstance(name, str):
        raise ParamError("name", f"needs the name of a figure, not {_shown(name)}")
    if name not in _registry:
        module = name.partition(".")[0]
        if re.fullmatch(r"[a-z][a-z0-9_]*", module):
            try:
                importlib.import_module(f"mmcore.viz.figures.{module}")
            except ModuleNotFoundError as err:
                if err.name != f"mmcore.viz.figures.{module}":
                    raise
    if name not in _registry:
        known = ", ".join(n for n in names() if n.partition(".")[0] == name.partition(".")[0])
        raise ParamError(
            "name",
            f"there is no figure '{_shown(name)}'" + (f"; there are: {known}" if known else ""),
        )
    return _registry[name]


def _sampled(
    frames: Iterator[Frame],
    key: tuple[str, ...],
    what: str,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Frame], int]:
    """Return at most `MAX_FRAMES` of @frames, evenly spaced, and how many there were.

    The first, the last and the first frame with each key mark are always among them.
    """
    kept: list[tuple[int, Frame]] = []
    first_marks: set[str] = set()
    stride, total = 1, 0
    last: Frame | None = None
    pinned: set[int] = set()
    for total, frame in enumerate(frames, 1):
        if not isinstance(frame, Frame):
            raise UsageError(f"{what} yielded {type(frame).__name__}, not a Frame")
        if total > MAX_STEPS:
            raise ParamError("", f"the run has more than {MAX_STEPS} steps; make it smaller")
        if progress is not None:
            progress(total)
        last = frame
        if frame.mark in key and frame.mark not in first_marks:
            first_marks.add(frame.mark)
            pinned.add(total)
        if total in pinned or (total - 1) % stride == 0:
            kept.append((total, frame))
        while len(kept) > MAX_FRAMES - 1:
            stride *= 2
            kept = [(n, f) for n, f in kept if n in pinned or (n - 1) % stride == 0]
    if last is not None and kept[-1][0] != total:
        kept.append((total, last))
    return [_numbered(f, n) for n, f in kept], total


def _numbered(frame: Frame, step: int) -> Frame:
    return Frame(
        str(frame.svg), frame.caption, frame.alt, frame.mark, frame.event, frame.data, step
    )


def render(
    name: str,
    values: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Rendering:
    """Run the explorable called @name with @values and return its frames.

    :param values: parameter values, as Python objects or as the text a control or a URL holds; what is
        left out has its default
    :param progress: called with the number of each frame as it comes
    :raises ParamError: if there is no such figure, a value cannot be taken, or the engine refuses what
        the values ask for
    """
    figure = find(name)
    parsed = figure.parse(values)
    try:
        run = iter(figure.function(SimpleNamespace(**parsed)))
        frames, total = _sampled(run, figure.key, name, progress)
    except ParamError:
        raise
    except MMError as err:
        scripts = [n for n, p in figure.params.items() if isinstance(p, Actions)]
        raise ParamError(scripts[0] if len(scripts) == 1 else "", str(err)) from err
    if not frames:
        raise ParamError("", "there is nothing to show for these values")
    return Rendering(figure, parsed, frames, total)
