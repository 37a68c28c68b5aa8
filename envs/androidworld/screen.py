"""AndroidWorld's elements and pixels as what agents see of a screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentrl.core.types import Image
from agentrl.envs.androidworld.device import UIElement
from agentrl.envs.browser.observe import Box, Element, Screen

if TYPE_CHECKING:
    import numpy as np

GENERIC = "generic"
"""The role of what is read rather than used."""


def elements_of(found: Sequence[UIElement], screen: Screen) -> tuple[Element, ...]:
    """Those that can be seen, each numbered by its place in AndroidWorld's list (from 0)."""
    every = (_element(str(at), one) for at, one in enumerate(found))
    return tuple(e for e in every if e is not None and screen.shows(e.box))


def _element(ref: str, one: UIElement) -> Element | None:
    at = one.bbox_pixels
    if at is None or one.is_visible is False or at.x_max <= at.x_min or at.y_max <= at.y_min:
        return None
    tag = (one.class_name or "View").rpartition(".")[2]
    text = one.text or ""
    name = one.content_description or one.hint_text or ""
    is_used = one.is_clickable or one.is_long_clickable or one.is_editable or one.is_scrollable
    return Element(
        ref=ref,
        tag=tag,
        role=tag if is_used else GENERIC,
        name=name,
        text=name if one.is_editable else text,
        value=text if one.is_editable else "",
        options=(),
        box=Box(at.x_min, at.y_min, at.x_max - at.x_min, at.y_max - at.y_min),
        states=_states(one),
        spot=((at.x_min + at.x_max) // 2, (at.y_min + at.y_max) // 2),
        depth=0,
        look=f"#{one.resource_name.rpartition('/')[2]}" if one.resource_name else "",
    )


def _states(one: UIElement) -> tuple[str, ...]:
    claims = {
        "checked": one.is_checkable and one.is_checked,
        "unchecked": one.is_checkable and not one.is_checked,
        "focused": one.is_focused,
        "selected": one.is_selected,
        "disabled": one.is_enabled is False,
        "scrollable": one.is_scrollable,
    }
    return tuple(name for name, is_so in claims.items() if is_so)


def picture_of(pixels: np.ndarray, orientation: int) -> Image:
    """The screen as a PNG, as it is held: AndroidWorld's `pixels[H, W, 3]` stand upright."""
    import numpy as np
    from PIL import Image as Picture

    held = np.rot90(pixels, k=orientation) if orientation else pixels
    return _png(Picture.fromarray(np.ascontiguousarray(held)))


def shrunk(image: Image, width: int) -> Image:
    """The picture made `width` pixels wide, if it is wider (0: as it is)."""
    from PIL import Image as Picture

    picture = Picture.open(io.BytesIO(image.png))
    if not width or picture.width <= width:
        return image
    return _png(picture.resize((width, round(picture.height * width / picture.width))))


def _png(picture: object) -> Image:
    out = io.BytesIO()
    picture.save(out, "PNG")  # type: ignore[attr-defined]
    return Image(out.getvalue())
