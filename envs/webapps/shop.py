"""Errands of the application `shop`."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import cast

from agentrl.envs.webapps.errands import Change, Data, Errand, Layout, Way

GOODS = (
    *("green tea", "coffee", "honey", "oats", "soap", "candle", "notebook", "umbrella", "lamp"),
    *("socks", "basket", "mirror", "rice", "paprika", "yarn", "kettle"),
)
SHOWN = 4
"""Goods on the shop's first page (as in `pages/shop.js`); the others must be searched for."""
SHIPPING = ("express", "pickup")
HOME = {"app": "home"}
ANY_LIST = {"app": "shop", "screen": "list"}
LIST = ANY_LIST | {"query": ""}
CART = {"app": "shop", "screen": "cart"}
LAST = {"app": "shop", "screen": "checkout"}
TO_CART = (Way(HOME, "click", "Shop"), Way(ANY_LIST, "click", "Cart"))


def furnish(data: Data, rng: Random, count: int) -> None:
    """Goods with prices; in half of the worlds a cart with some of them."""
    names = rng.sample(GOODS, min(len(GOODS), count + SHOWN))
    data["goods"] = {
        f"g{n}": {"name": name, "price": rng.randrange(4, 60) / 4} for n, name in enumerate(names)
    }
    chosen = rng.sample(list(data["goods"]), 2) if rng.random() < 0.5 else []
    data["cart"] = {key: rng.randint(1, 3) for key in chosen}
    data["orders"] = {}


def draw(data: Data, rng: Random, layout: Layout) -> Errand:
    """Put something into the cart or take it out, or order it."""
    if data["cart"] and rng.random() < 0.5:
        key = rng.choice(list(data["cart"]))
        name = _name(data, key)
        last = Way(CART, "click", f"Remove {name}", does=(Change("cart", key, None),))
        return Errand(f"Take {name} out of the cart.", frozenset({"cart"}), (*TO_CART, last))
    key = rng.choice([key for key in data["goods"] if key not in data["cart"]])
    name, count = _name(data, key), rng.randint(1, 5)
    put = _put(key, name, count, is_shown=key in list(data["goods"])[:SHOWN])
    if data["cart"] or rng.random() < 0.5:
        return Errand(f"Put {count} {name} into the cart.", frozenset({"cart"}), put)
    shipping = rng.choice(SHIPPING)
    order = Change("orders", None, {"items": f"{count} {name}", "shipping": shipping})
    placed = (order, Change("cart", key, None))
    ways = (
        *put,
        Way(ANY_LIST, "click", "Cart"),
        Way(CART, "click", "Checkout"),
        Way(LAST, "select", "Shipping", {"shipping": shipping}),
        Way(LAST, "click", "Place order", does=placed),
    )
    text = f"Order {count} {name} by {shipping}."
    return Errand(text, frozenset({"cart"}), ways)


def _name(data: Data, key: str) -> str:
    return str(cast("Mapping[str, str]", data["goods"][key])["name"])


def _put(key: str, name: str, count: int, *, is_shown: bool) -> tuple[Way, ...]:
    """Find something, and put so many of it into the cart."""
    page = {"app": "shop", "screen": "good", "id": key}
    ways = list(way_to(name, is_shown=is_shown))
    if count > 1:
        ways.append(Way(page, "select", "Count", {"count": str(count)}))
    return (*ways, Way(page, "click", "Add to cart", does=(Change("cart", key, count),)))


def way_to(name: str, *, is_shown: bool) -> tuple[Way, ...]:
    """The way to what is sold, and a click on it; what the first page does not show is searched
    for."""
    home = Way(HOME, "click", "Shop")
    if is_shown:
        return home, Way(LIST, "click", name)
    typed = Way(LIST, "type", "Search goods", {"query": name})
    return home, typed, Way(LIST, "click", "Search"), Way(LIST | {"query": name}, "click", name)
