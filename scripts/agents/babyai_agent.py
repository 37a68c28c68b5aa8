"""An agent that plays BabyAI over OpenAI's API, as its author would have written it.

    OPENAI_BASE_URL=http://127.0.0.1:8001/s/one/v1 python scripts/agents/babyai_agent.py

It knows an address and a chat, and nothing of training: `env: {name: program, function: ...}`
trains it as it is (docs/agents.md). The game itself comes from agentrl, so that what the agent is
trained on can be compared with the native environment, token for token.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from openai import OpenAI

from agentrl.core.types import Task
from agentrl.envs.babyai import BabyAI

GAME = {"level": "GoToObj", "cap": 16, "train_tasks": 600}


def play(base_url: str, task: Mapping[str, Any]) -> tuple[float, bool]:
    """One game: the reward, and whether it was won."""
    client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
    game, earned = BabyAI(**GAME), 0.0  # type: ignore[arg-type]
    messages: list[Any] = [{"role": "user", "content": game.reset(Task(**task)).text}]
    for _ in range(int(GAME["cap"])):
        answer = client.chat.completions.create(model="policy", messages=messages)
        reply = answer.choices[0].message.content or ""
        step = game.step(reply)
        earned += step.reward
        if step.terminated or step.truncated:
            return earned, bool(step.info.get("success"))
        shown = step.observation if isinstance(step.observation, str) else step.observation.text
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": shown}]
    return earned, False


def main() -> None:
    """Play the task in AGENTRL_TASK, or the first one there is."""
    first = {"id": "first", "seed": 1}
    task = json.loads(os.environ.get("AGENTRL_TASK", json.dumps(first)))
    reward, success = play(os.environ["OPENAI_BASE_URL"], task)
    sys.stdout.write(json.dumps({"reward": reward, "success": success}) + "\n")


if __name__ == "__main__":
    main()
