"""The controls of an explorable in JupyterLab: one native widget for each parameter, and a stepper.

Imported by `mmcore.viz.notebook` in a live kernel only. A value that cannot be taken leaves the figure as it is,
and the reason stands in words beside the control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as w

from mmcore.viz import player
from mmcore.viz import svg as shapes
from mmcore.viz.explorable import (
    Actions,
    Bool,
    Choice,
    Explorable,
    Float,
    Frame,
    Hex,
    Int,
    Param,
    ParamError,
    Rendering,
    Seed,
    Text,
    render,
)

__all__ = ["Control", "Panel", "build"]


def _label(name: str, param: Param) -> str:
    """Return the words in front of a control."""
    label = getattr(param, "label", "") or name.replace("_", " ")
    unit = getattr(param, "unit", "")
    return f"{label} ({unit})" if unit and unit != label else label


def _label_width(labels: Iterable[str]) -> float:
    """Return the width in em that no label is cut in."""
    return max([9.0, *(0.6 * len(label) + 1 for label in labels)])


def _layout(width: str = "26em") -> Any:
    return w.Layout(width=width, max_width="100%")


class Control:
    """One parameter: its widget, its help, and the place for what is wrong with its value.

    :param changed: called without arguments when the reader has changed the value
    :param label_width: room for the label, in em
    """

    def __init__(
        self,
        name: str,
        param: Param,
        value: Any,
        changed: Callable[[], None],
        label_width: float = 9.0,
    ) -> None:
        self.name = name
        self.label_width = label_width
        self.param = param
        self.error = w.HTML()
        self._changed = changed
        self._quiet = False
        self.input = self._input(param, value)
        self.input.observe(lambda _: None if self._quiet else changed(), "value")
        text = getattr(param, "help", "")
        note = [w.HTML(f'<span class="mm-help">{shapes.esc(text)}</span>')] if text else []
        self.box = w.VBox(
            [w.HBox([self.input, *note], layout=w.Layout(flex_flow="row wrap")), self.error]
        )

    def _input(self, param: Param, value: Any) -> Any:
        common: dict[str, Any] = {
            "description": _label(self.name, param),
            "style": {"description_width": f"{self.label_width:.1f}em"},
            "layout": _layout(f"{self.label_width + 17:.1f}em"),
        }
        if isinstance(param, Int):
            if (param.hi - param.lo) // param.step <= 10_000:
                return w.IntSlider(
                    value=value,
                    min=param.lo,
                    max=param.hi,
                    step=param.step,
                    continuous_update=False,
                    **common,
                )
            return w.IntText(value=value, step=param.step, continuous_update=False, **common)
        if isinstance(param, Float):
            step = param.step or (param.hi - param.lo) / 100
            return w.FloatSlider(
                value=value,
                min=param.lo,
                max=param.hi,
                step=step,
                continuous_update=False,
                **common,
            )
        if isinstance(param, Bool):
            return w.Checkbox(value=value, indent=True, **common)
        if isinstance(param, Choice):
            options = param.schema()["options"]
            return w.Dropdown(
                options=[(text, word) for word, text in options], value=value, **common
            )
        if isinstance(param, Seed):
            return w.IntText(value=value, continuous_update=False, **common)
        lines = param.lines if isinstance(param, Text) else 2 if isinstance(param, Actions) else 1
        kind = w.Textarea if lines > 1 else w.Text
        if lines > 1:
            common["layout"] = _layout("100%")
        return kind(value=str(param.format(value)), continuous_update=False, **common)

    def read(self) -> Any:
        """Return the parsed value.

        :raises ParamError: if the parameter cannot take what the control holds
        """
        return self.param.parse(self.name, self.input.value)

    def write(self, value: Any) -> None:
        """Put a parsed @value into the control without telling anybody."""
        self._quiet = True
        try:
            self.input.value = (
                self.param.format(value) if isinstance(self.param, (Hex, Actions)) else value
            )
        finally:
            self._quiet = False

    def say(self, text: str) -> None:
        """Show what is wrong beside the control, or nothing."""
        self.error.value = (
            f'<p class="mm-error" role="alert">{shapes.esc(text)}</p>' if text else ""
        )


class ScriptControl(Control):
    """An action script: the text itself, a button for each verb with fields for its arguments, and undo."""

    def __init__(
        self,
        name: str,
        param: Actions,
        value: Any,
        changed: Callable[[], None],
        label_width: float = 9.0,
    ) -> None:
        super().__init__(name, param, value, changed, label_width)
        self.past: list[str] = []
        self._last = str(self.input.value)
        self.input.observe(self._remember, "value")
        self.verbs: dict[str, tuple[Any, list[Any]]] = {}
        row: list[Any] = []
        for verb in param.verbs:
            takes = param.schema()["verbs"][verb]
            button = w.Button(
                description=verb,
                layout=w.Layout(width="auto"),
                tooltip=f"add '{verb}' to the script",
            )
            fields = [
                w.Text(
                    value=str(s["default"]),
                    layout=w.Layout(width="5.5em"),
                    tooltip=f"what {verb} takes",
                )
                for s in takes
            ]
            button.on_click(lambda _, verb=verb: self.add(verb))
            self.verbs[verb] = (button, fields)
            row.append(w.HBox([button, *fields], layout=w.Layout(margin="0 1em 0 0")))
        self.undo_button = w.Button(
            description="undo", icon="undo", layout=w.Layout(width="auto"), disabled=True
        )
        self.undo_button.on_click(lambda _: self.undo())
        row.append(self.undo_button)
        self.box.children = [
            self.box.children[0],
            w.HBox(row, layout=w.Layout(flex_flow="row wrap")),
            self.error,
        ]

    def _remember(self, change: Any) -> None:
        new = str(change["new"])
        if new != self._last:
            self.past.append(self._last)
            self._last = new
            self.undo_button.disabled = False

    def add(self, verb: str) -> None:
        """Add an action to the end of the script, with what its fields hold."""
        step = " ".join([verb, *(str(f.value).strip() for f in self.verbs[verb][1])])
        before = str(self.input.value).strip().rstrip(";")
        try:
            self.param.parse(self.name, step)
        except ParamError as err:
            self.say(err.text)
            return
        self.input.value = f"{before}; {step}" if before else step

    def undo(self) -> None:
        """Take back the last change of the script."""
        if self.past:
            self._last = self.past.pop()
            self.undo_button.disabled = not self.past
            self.input.value = self._last


class Panel:
    """The controls of one explorable, its frames, and the stepper between them."""

    def __init__(self, rendering: Rendering, prefix: str) -> None:
        self.figure: Explorable = rendering.explorable
        self.prefix = prefix
        self.rendering = rendering
        self.controls: dict[str, Control] = {}
        width = _label_width(_label(n, p) for n, p in self.figure.params.items())
        for name, param in self.figure.params.items():
            kind = ScriptControl if isinstance(param, Actions) else Control
            value = rendering.values[name]
            self.controls[name] = kind(name, param, value, self.recompute, width)  # type: ignore[arg-type]
        self.error = w.HTML()
        self.stage = w.HTML(layout=w.Layout(max_width="44rem"))
        self.caption = w.HTML(layout=w.Layout(max_width="44rem"))
        self.count = w.Label()
        self.slider = w.IntSlider(
            value=0, min=0, max=1, readout=False, description="step", layout=_layout("24em")
        )
        self.play = w.Play(value=0, min=0, max=1, interval=1200)
        w.jslink((self.play, "value"), (self.slider, "value"))
        self.slider.observe(lambda _: self.draw(), "value")
        self.reset = w.Button(
            description="reset",
            tooltip="all values back to where they were",
            layout=w.Layout(width="auto"),
        )
        self.reset.on_click(lambda _: self.restore())
        self._start = dict(rendering.values)
        self.stepper = w.HBox(
            [*self._buttons(), self.slider, self.count], layout=w.Layout(flex_flow="row wrap")
        )
        style = w.HTML(f"<style>{player.style()}</style>")
        boxes = [c.box for c in self.controls.values()]
        head = [w.VBox([*boxes, w.HBox([self.reset])])] if boxes else []
        self.box = w.VBox([style, *head, self.error, self.stage, self.stepper, self.caption])
        self._take(rendering)

    def _buttons(self) -> list[Any]:
        out: list[Any] = [self.play]
        moves = (("step-backward", "previous step", -1), ("step-forward", "next step", 1))
        for icon, tip, by in moves:
            button = w.Button(icon=icon, tooltip=tip, layout=w.Layout(width="3em"))
            button.on_click(lambda _, by=by: self.step(by))
            out.append(button)
        return out

    @property
    def frame(self) -> Frame:
        """The frame that is shown."""
        return self.rendering.frames[int(self.slider.value)]

    def step(self, by: int) -> None:
        """Go @by frames on."""
        self.slider.value = min(max(self.slider.value + by, 0), len(self.rendering.frames) - 1)

    def recompute(self) -> None:
        """Run the figure with the values that the controls hold; say what is wrong where something is."""
        values: dict[str, Any] = {}
        good = True
        for control in self.controls.values():
            control.say("")
            try:
                values[control.name] = control.read()
            except ParamError as err:
                control.say(err.text)
                good = False
        self.error.value = ""
        if not good:
            return
        # Who adds an action wants to see what it did.
        scripts = [n for n, p in self.figure.params.items() if isinstance(p, Actions)]
        to_end = any(values[n] != self.rendering.values[n] for n in scripts)
        try:
            self._take(render(self.figure.name, values), to_end)
        except ParamError as err:
            if err.param in self.controls:
                self.controls[err.param].say(err.text)
            else:
                self.error.value = f'<p class="mm-error" role="alert">{shapes.esc(err.text)}</p>'

    def restore(self) -> None:
        """Put back the values with which the figure was first shown."""
        for name, value in self._start.items():
            self.controls[name].write(value)
        self.recompute()

    def _take(self, rendering: Rendering, to_end: bool = False) -> None:
        self.rendering = rendering
        last = len(rendering.frames) - 1
        at = last if to_end else min(self.slider.value, last)
        self.slider.max = self.play.max = max(last, 1)
        self.slider.value = at
        self.stepper.layout.display = None if last else "none"
        self.draw()

    def draw(self) -> None:
        """Show the frame the slider points at."""
        last = len(self.rendering.frames) - 1
        if self.slider.value > last:
            self.slider.value = last
            return
        f = self.frame
        svg = shapes.finish(
            str(f.svg), f"{self.prefix}-live", self.rendering.title, player.plain_text(f.alt)
        )
        self.stage.value = f'<div class="mm-fig"><div class="mm-stage">{svg}</div></div>'
        note = f" ({last + 1} of them drawn)" if self.rendering.sampled else ""
        self.count.value = f"{f.step} of {self.rendering.total}{note}"
        self.caption.value = (
            f'<div class="mm-fig"><p class="mm-caption">{player.inline(f.caption)}</p></div>'
        )


def build(rendering: Rendering, prefix: str, start: int | str | None = None) -> Any:
    """Return the widget that shows @rendering with its controls.

    :param start: the step to open on: see `mmcore.viz.player.first_step()`
    """
    panel = Panel(rendering, prefix)
    if start is not None:
        panel.slider.value = player.first_step(rendering, start)
    panel.box.mm_panel = panel
    return panel.box
