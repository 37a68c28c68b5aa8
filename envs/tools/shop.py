"""The application `shop`: things at a price, a cart, and orders that can be returned."""

from __future__ import annotations

from random import Random
from typing import Annotated

from agentrl.envs.tools.toolbox import Record, RefusedError, Tool, World, found, new

GOODS = ("pen", "cup", "lamp", "chair", "mug", "desk", "bag", "clock", "rug", "vase", "book")
MOST = 3
"""Pieces that a task asks for at most."""

Thing = Annotated[str, "Something that shop_goods names."]


def goods(world: World) -> str:
    """List what the shop sells: price and stock of each thing, and your money."""
    there = sorted(world["goods"].items())
    sold = ", ".join(f"{name} {item['price']} ({item['stock']} left)" for name, item in there)
    return f"{sold or 'nothing'}; you have {_money(world)}"


def orders(world: World) -> str:
    """List what was bought: id, number of pieces and thing of each order."""
    there = sorted(world["orders"].items())
    return ", ".join(f"{key} {o['count']} {o['item']}" for key, o in there) or "no orders"


def put(world: World, item: Thing, count: Annotated[int, "How many pieces."]) -> str:
    """Put something into the cart."""
    held = int(world["cart"].get(item, {}).get("count", 0))
    left = int(found(world, "goods", item)["stock"]) - held
    if not 1 <= count <= left:
        raise RefusedError(f"expected 1 to {left} pieces of {item}, got {count}")
    world["cart"][item] = {"count": held + count}
    return "in the cart"


def clear(world: World) -> str:
    """Empty the cart."""
    world["cart"] = {}
    return "the cart is empty"


def buy(world: World) -> str:
    """Buy what is in the cart."""
    wanted = {item: int(held["count"]) for item, held in world["cart"].items()}
    costs = {item: int(world["goods"][item]["price"]) * n for item, n in wanted.items()}
    total = sum(costs.values())
    if not wanted or total > _money(world):
        raise RefusedError(
            f"expected a cart (shop_put) of 1 to {_money(world)}, got one of {total}"
        )
    for item, count in wanted.items():
        new(world, "orders", {"item": item, "count": count, "paid": costs[item]})
        world["goods"][item]["stock"] = int(world["goods"][item]["stock"]) - count
    world["cart"] = {}
    return f"bought for {_pay(world, total)}"


def send_back(
    world: World, order: Annotated[str, "The id of an order, as shop_orders gives it."]
) -> str:
    """Return an order; the money comes back."""
    paid = int(found(world, "orders", order)["paid"])
    del world["orders"][order]
    return f"returned for {-_pay(world, -paid)}"


TOOLS = tuple(Tool("shop", run) for run in (goods, orders, put, clear, buy, send_back))


def furnish(world: World, rng: Random, count: int) -> None:
    """Put goods, money and orders there, no two orders of the same thing."""
    count = max(2, min(count, len(GOODS) - 2))
    for name, price in zip(rng.sample(GOODS, count), rng.sample(range(2, 20), count), strict=True):
        world["goods"][name] = {"price": price, "stock": rng.randint(MOST, 9)}
    bought = rng.sample(sorted(world["goods"]), (count + 1) // 2)
    for number, item in zip(rng.sample(range(11, 100), len(bought)), bought, strict=True):
        pieces = rng.randint(1, MOST)
        paid = pieces * int(world["goods"][item]["price"])
        world["orders"][f"o{number}"] = {"item": item, "count": pieces, "paid": paid}
    world["purse"] = {"purse": {"money": rng.randint(20, 90)}}


def draw(world: World, rng: Random) -> Record:
    """Two things that are sold, one that is not, how many pieces, and an order."""
    item, other = rng.sample(sorted(world["goods"]), 2)
    cheaper = min(item, other, key=lambda name: world["goods"][name]["price"])
    drawn: Record = {"item": item, "other": other, "cheaper": cheaper, "cart": "cart"}
    drawn["unknown"] = rng.choice([name for name in GOODS if name not in world["goods"]])
    drawn |= {"count": rng.randint(1, MOST), "more": rng.randint(1, MOST)}
    drawn["too_many"] = int(world["goods"][item]["stock"]) + 1
    if world["orders"]:
        order = rng.choice(sorted(world["orders"]))
        drawn |= {"order": order, "ordered": world["orders"][order]["item"]}
    return drawn


def _money(world: World) -> int:
    return int(world["purse"]["purse"]["money"])


def _pay(world: World, cost: int) -> int:
    world["purse"]["purse"]["money"] = _money(world) - cost
    return cost
