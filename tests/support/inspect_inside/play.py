"""Inspect's own evaluation of our task, with its model `mockllm`, for `.venv-inspect`:

    python play.py FOLDER < CASES

A case is `{"args": {...}, "says": "expert" or a text}`. Printed is what Inspect's log holds, read
back with Inspect's own API.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import inspect_ai
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessage, ModelOutput, ModelUsage, get_model

from agentrl.adapters.inspect_task import play
from agentrl.core.config import load_alone
from agentrl.core.registry import register
from agentrl.core.types import Action, Observation, Step, Task
from agentrl.rollout.answers import as_observation
from agentrl.text.calls import calls_of
from support.envs import EchoEnv


@register("env", "every_other")
@dataclass(kw_only=True)
class EveryOther(EchoEnv):
    """An env that fails in the second step of every other task."""

    def reset(self, task: Task) -> Observation | str:
        self._must_fail = task.seed // 4 % 2 == 1
        return super().reset(task)

    def step(self, action: Action) -> Step:
        if self._must_fail and self._said:
            raise ValueError("the world ended")
        return super().step(action)


def expert(args: dict[str, Any]) -> Callable[..., ModelOutput]:
    """A model that knows the env: it finds its task by what it is shown first, and plays it again
    up to where the conversation stands."""
    settings = {k: v for k, v in args.items() if k not in ("env", "split", "tasks", "native_calls")}
    env: Any = load_alone(args["env"], [f"{k}={json.dumps(v)}" for k, v in settings.items()]).env
    tasks = list(env.tasks(args["split"])[: args["tasks"]])
    starts: dict[str, Task] = {}
    for task in tasks:
        starts[as_observation(env.reset(task)).text] = task

    def answer(messages: list[ChatMessage], *rest: object) -> ModelOutput:
        first = next(message for message in messages if message.role == "user")
        env.reset(starts[first.text])
        for _ in range(sum(message.role == "assistant" for message in messages)):
            env.step(env.expert_action())
        action = env.expert_action()
        usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        if args["env"] == "tools":
            return called(action, usage)
        return ModelOutput.from_content("mockllm", action).model_copy(update={"usage": usage})

    return answer


def called(action: Any, usage: ModelUsage) -> ModelOutput:
    """The action as calls of the API."""
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant
    from inspect_ai.tool import ToolCall

    calls = [
        ToolCall(id=f"call-{i}", function=one.name, arguments=dict(one.arguments))
        for i, one in enumerate(calls_of(action))
    ]
    message = ChatMessageAssistant(content="", tool_calls=calls, model="mockllm")
    choice = ChatCompletionChoice(message=message, stop_reason="tool_calls")
    return ModelOutput(model="mockllm", choices=[choice], usage=usage)


def always(text: str) -> Callable[..., ModelOutput]:
    """A model that says one thing."""
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)

    def answer(*_: object) -> ModelOutput:
        return ModelOutput.from_content("mockllm", text).model_copy(update={"usage": usage})

    return answer


def run(case: dict[str, Any], folder: str) -> dict[str, Any]:
    """What the log says."""
    args, says = case["args"], case["says"]
    outputs = expert(args) if says == "expert" else always(says)
    model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
    [log] = inspect_ai.eval(play(**args), model=model, log_dir=folder, display="none")
    read = read_eval_log(log.location)
    scores = read.results.scores if read.results else []
    return {
        "status": read.status,
        "args": dict(read.eval.task_args),
        "scored": scores[0].scored_samples if scores else 0,
        "metrics": {
            f"{score.name}/{name}": metric.value
            for score in scores
            for name, metric in score.metrics.items()
        },
        "samples": [
            {
                "id": sample.id,
                "error": sample.error.message if sample.error else None,
                "value": sample.scores["outcome"].value if sample.scores else None,
                "messages": [
                    [m.role, m.text, getattr(m, "tool_call_id", None)] for m in sample.messages
                ],
            }
            for sample in read.samples or []
        ],
    }


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    sys.stdout.write("RESULT" + json.dumps([run(case, sys.argv[1]) for case in cases]))
