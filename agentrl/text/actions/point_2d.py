"""Points as Qwen's models and InfiGUI say them: `[{"point_2d": [340, 120], "label": "search"}]`.

Each point is a click, several are several actions (a grounding task scores them in order). Labels
are not kept; a fence of backticks round the JSON is allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from annotated_types import Ge

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.core.types import Action, Json
from agentrl.text.actions.gui import GuiFormat
from agentrl.text.calls import read_json
from agentrl.text.frames import Pixels
from agentrl.text.gui import Click, GuiAction, MalformedError, Point, read

FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
MOST = 64
"""Points that a message may hold."""


@register("actions", "point_2d")
@dataclass(frozen=True, kw_only=True)
class PointList(GuiFormat):
    """A JSON list of points in pixels, best first."""

    width: Annotated[int, Ge(1)]
    """Width of the picture that the model sees, in pixels (1000 where it says thousandths)."""
    height: Annotated[int, Ge(1)]
    """Height of the picture that the model sees, in pixels (1000 where it says thousandths)."""
    system: str = ""
    """A system message that opens every episode; empty for none."""

    example = '[{"point_2d": [340, 120], "label": "search"}]'

    @property
    def frame(self) -> Pixels:
        """The picture."""
        return Pixels(width=self.width, height=self.height)

    def said(self, text: str) -> list[GuiAction]:
        """A click for each point, one at least."""
        fenced = FENCE.fullmatch(text)
        value = read_json(fenced[1] if fenced else text)
        if isinstance(value, Mapping):
            value = [value]
        if not isinstance(value, list) or not 1 <= len(value) <= MOST:
            raise MalformedError(f"expected JSON such as {self.example}, got {text[:60]!r}")
        return [Click(self._point(entry)) for entry in value]

    def spelt(self, action: GuiAction) -> str:
        """A list of one point."""
        return json.dumps([self._entry(action)])

    def write(self, action: Action) -> str:
        """One list for all points. Raises `DataError` for what is no click on a point."""
        texts = [action] if isinstance(action, str) else action
        return json.dumps([self._entry(read(text)) for text in texts])

    def _point(self, entry: Json) -> Point:
        point = cast("list[float]", entry.get("point_2d") if isinstance(entry, Mapping) else None)
        is_pair = isinstance(point, list) and len(point) == 2
        if not is_pair or not all(type(number) in (int, float) for number in point):
            raise MalformedError(f"expected {{'point_2d': [x, y]}}, got {entry!r:.60}")
        return self.frame.place(point[0], point[1])

    def _entry(self, action: GuiAction) -> Json:
        if not isinstance(action, Click) or not isinstance(action.target, Point):
            raise DataError(f"a list of points has no word for {action}")
        return {"point_2d": list(self.frame.say(action.target))}
