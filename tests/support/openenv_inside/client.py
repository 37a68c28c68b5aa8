"""OpenEnv's own client, for the interpreter of `.venv-openenv`:

    python client.py URL < EPISODES

Episodes are JSON, `{"reset": {...}, "actions": [{...}, ...]}`, and are played all at once, each in
a session of its own. Printed is what the client was shown, or the error that it raised.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openenv.core import GenericEnvClient


async def play(url: str, episode: dict[str, Any], ready: asyncio.Barrier) -> list[Any]:
    """The results of an episode in order, and the state at its end."""
    seen: list[Any] = []
    async with GenericEnvClient(base_url=url, message_timeout_s=20) as env:
        try:
            shown = await env.reset(**episode["reset"])
            await asyncio.wait_for(ready.wait(), 20)
            seen.append([shown.observation, shown.reward, shown.done])
            for action in episode["actions"]:
                shown = await env.step(action)
                seen.append([shown.observation, shown.reward, shown.done])
            seen.append(await env.state())
        except RuntimeError as error:
            seen.append(str(error))
    return seen


async def main(url: str, episodes: list[dict[str, Any]]) -> list[list[Any]]:
    """All of them at once: none goes on before each has begun."""
    ready = asyncio.Barrier(len(episodes))
    return await asyncio.gather(*(play(url, one, ready) for one in episodes))


if __name__ == "__main__":
    found = asyncio.run(main(sys.argv[1], json.load(sys.stdin)))
    sys.stdout.write(json.dumps(found))
