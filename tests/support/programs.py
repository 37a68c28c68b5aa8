"""Agent programs that know OpenAI's API and nothing of us, each round an env of ours."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from agentrl.core.types import Step, Task
from agentrl.envs.program.example import ask
from support.chatter import ChatterEnv
from support.tools import Box


def chatter(base_url: str, task: Mapping[str, Any]) -> tuple[float, bool]:
    """Plays a ChatterEnv as a chat."""
    env, earned = ChatterEnv(), 0.0
    messages = [{"role": "user", "content": str(env.reset(Task(**task)))}]
    while True:
        reply = ask(base_url, messages)
        step = env.step(reply)
        earned += step.reward
        if step.terminated:
            return earned, bool(step.info["success"])
        messages += [
            {"role": "assistant", "content": reply},
            {"role": "user", "content": str(step.observation)},
        ]


def forgetful(base_url: str, task: Mapping[str, Any]) -> tuple[float, bool]:
    """Shows the model the latest observation only."""
    env = ChatterEnv()
    shown = str(env.reset(Task(**task)))
    step = Step(observation=shown)
    while not step.terminated:
        step = env.step(ask(base_url, [{"role": "user", "content": str(step.observation)}]))
    return step.reward, True


def tool_user(base_url: str, task: Mapping[str, Any]) -> float:
    """Opens a Box by tool calls, with the real client; streams what it is told."""
    from openai import OpenAI

    box, number = Box(), Task(**task)
    client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
    tools: Any = [{"type": "function", "function": tool} for tool in box.tools(number)]
    messages: list[Any] = [{"role": "user", "content": str(box.reset(number))}]
    for _ in range(4):
        answer = client.chat.completions.create(model="policy", messages=messages, tools=tools)
        message: Any = answer.choices[0].message
        if not message.tool_calls:
            return 0.0
        messages.append(message.model_dump(exclude_none=True))
        for one in message.tool_calls:
            said = {"name": one.function.name, "arguments": json.loads(one.function.arguments)}
            step = box.step(json.dumps(said))
            if step.terminated:
                return step.reward
            content = str(step.observation)
            messages.append({"role": "tool", "tool_call_id": one.id, "content": content})
    return 0.0


def streaming(base_url: str, task: Mapping[str, Any]) -> float:
    """Two calls at once, one of them streamed, then one that looks at both answers."""
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["policy"]
    found: dict[str, str] = {}

    def plain() -> None:
        said: Any = [{"role": "user", "content": "say one"}]
        answer = client.chat.completions.create(model="policy", messages=said)
        found["plain"] = answer.choices[0].message.content or ""

    def stream() -> None:
        said: Any = [{"role": "user", "content": "say two"}]
        parts = client.chat.completions.create(model="policy", messages=said, stream=True)
        found["stream"] = "".join(part.choices[0].delta.content or "" for part in parts)

    threads = [threading.Thread(target=work) for work in (plain, stream)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last: Any = [
        {"role": "user", "content": "say one"},
        {"role": "assistant", "content": found["plain"]},
        {"role": "user", "content": f"and they said {found['stream']}"},
    ]
    client.chat.completions.create(model="policy", messages=last)
    return float(len(found))


def breaking(base_url: str, task: Mapping[str, Any]) -> float:
    """Fails as its task says."""
    kind = task["kind"]
    if kind != "silent":
        ask(base_url, [{"role": "user", "content": "hello"}])
    if kind == "raises":
        raise RuntimeError("the program has a bug")
    if kind == "text":
        return "much"  # type: ignore[return-value]
    if kind == "hangs":
        threading.Event().wait(60)
    return 1.0


def main() -> None:
    """As a command: plays a ChatterEnv and prints its score."""
    reward, success = chatter(os.environ["OPENAI_BASE_URL"], json.loads(os.environ["AGENTRL_TASK"]))
    sys.stdout.write(f"playing\n{json.dumps({'reward': reward, 'success': success})}\n")


if __name__ == "__main__":
    main()
