"""A picture with controls: a live notebook redraws it, everything else shows how it begins."""

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any

import ipywidgets as widgets

from .rules import CONTROLS

Value = Real | str | tuple[int, ...]


class Play:
    """What `draw` makes of the values of some controls, and the controls.

    Both are one output, under two types: the controls, and as `image/png` the picture to begin
    with. A frontend shows the richest type that it can: JupyterLab with a kernel the controls;
    GitHub, HTML pages and copies that papermill made the picture. The runner drops the controls,
    which are of no use without their kernel.

    Args:
        draw: called with a value per control, by name; its picture has `_repr_png_`.
        start: values to begin with, by name; of the other controls it is the first one.
        controls: the values of each. A range becomes a slider over integers, other numbers a
            slider over just these, texts and tuples of numbers a list to choose from.

    Attributes:
        controls: the widgets by name.
        picture: the widget with the picture of their values.
        box: the widget that shows both.
    """

    def __init__(
        self,
        draw: Callable[..., Any],
        start: Mapping[str, Value] | None = None,
        /,
        **controls: Sequence[Value],
    ) -> None:
        first = {name: values[0] for name, values in controls.items()} | dict(start or {})
        self.controls = {
            name: _control(name, values, first[name]) for name, values in controls.items()
        }

        @lru_cache(256)  # a picture that was seen before comes at once
        def drawn(*values: Value) -> bytes:
            return draw(**dict(zip(controls, values, strict=True)))._repr_png_()

        self._drawn = drawn
        # Without a tooltip: the browser's part of an image fails on one, for lack of a description.
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self.box = widgets.VBox([*self.controls.values(), self.picture])
        self._redraw()
        for control in self.controls.values():
            control.observe(self._redraw, "value")

    def _redraw(self, _: object = None) -> None:
        self.picture.value = self._drawn(*(control.value for control in self.controls.values()))

    def __str__(self) -> str:
        return ", ".join(f"{name} {_text(one.value)}" for name, one in self.controls.items())

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """The output; see the class."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        png = base64.b64encode(self.picture.value).decode()
        return {CONTROLS: view, "image/png": png, "text/plain": f"<Play at {self}>"}


def _control(name: str, values: Sequence[Value], start: Value) -> widgets.Widget:
    """A labelled widget that begins with `start`."""
    named = {
        "description": name.replace("_", " "),
        "style": {"description_width": "6em"},
        "layout": {"width": "34em", "max_width": "100%"},
        "value": start,
    }
    if isinstance(values, range):
        return widgets.IntSlider(min=values[0], max=values[-1], step=values.step, **named)
    numbers = all(isinstance(value, Real) for value in values)
    kind = widgets.SelectionSlider if numbers else widgets.Dropdown
    return kind(options=[(_text(value), value) for value in values], **named)


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return value if isinstance(value, str) else f"{value:g}"
