"""What is within the agent's reach.

The simulator lists actions on what lies in shut cupboards as valid, and then does not know them:
its parser looks among what is open to the agent in the room and in the inventory. That is asked
here, of the parser itself.
"""

from __future__ import annotations

import json

from agentrl.envs.scienceworld.jvm import Jvm, Reference, Value

NAMES = "getAllUniqueReferentsWithTypeLUTJSON"
"""Class -> the numbers and names of the objects that the parser finds from one of them on."""
HIDDEN, WITHIN = True, False
"""With what is seen only when one looks for it (drains); not with what is shut away."""


def within_reach(jvm: Jvm, world: str, limit: float) -> frozenset[int]:
    """Numbers of the objects that actions may name now. Raises as `Jvm.call`."""
    held: list[Reference] = []

    def part(of: str, method: str, *arguments: Value) -> Reference:
        held.append(Reference(jvm.call(of, method, limit, *arguments)))
        return held[-1]

    try:
        interface = part(part(world, "agentInterface"), "get")
        parser = part(interface, "inputParser")
        places = (
            part(part(interface, "getAgentVisibleObjects", False), "_2"),
            part(interface, "agent"),
        )
        found = [jvm.call(parser, NAMES, limit, place, HIDDEN, WITHIN) for place in places]
    finally:
        for reference in held:
            if jvm.is_alive:
                jvm.let_go(reference, limit)
    kinds = [kind for text in found for kind in json.loads(str(text)).values()]
    return frozenset(int(number) for kind in kinds for number in kind if number.isdigit())
