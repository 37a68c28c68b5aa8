"""A small state of all applications of the env `tools`."""

from __future__ import annotations

from agentrl.envs.tools.apps import empty
from agentrl.envs.tools.toolbox import World


def world() -> World:
    return empty() | {
        "files": {"a.txt": {"text": "milk"}, "b.txt": {"text": "bread"}},
        "events": {"e31": {"title": "yoga", "day": "mon", "hour": 9}},
        "people": {"ann": {}, "bob": {}},
        "inbox": {"m12": {"sender": "bob", "subject": "rent", "text": "soon"}},
        "goods": {"pen": {"price": 3, "stock": 4}, "cup": {"price": 7, "stock": 2}},
        "orders": {"o77": {"item": "cup", "count": 1, "paid": 7}},
        "purse": {"purse": {"money": 20}},
    }
