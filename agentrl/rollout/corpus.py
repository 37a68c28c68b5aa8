"""The texts that a config-built model's tokenizer is trained on: what train tasks show and accept."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from agentrl.core.protocols import ActionFormat, Env, EnvHandle, Runner, abilities
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Observation, Task
from agentrl.rollout.episode import as_observation, as_step


async def corpus(
    env: Env,
    runner: Runner,
    actions: ActionFormat,
    tasks: Sequence[Task],
    *,
    max_turns: int,
    seed: int,
) -> list[str]:
    """Observations and written actions of one episode per task.

    The expert plays where the env has one, and random legal actions otherwise; an env with neither
    shows its first observations only.
    """
    handle = await runner.open(env)
    texts = [actions.hint(), actions.system]
    try:
        for task in tasks:
            rng = Random(derive_seed(seed, "corpus", task.id))
            observation = as_observation(await runner.call(handle, "reset", task))
            texts.extend(_said(observation))
            for _ in range(max_turns):
                action = await _choose(runner, handle, rng)
                if action is None:
                    break
                texts.append(actions.write(action))
                step = as_step(await runner.call(handle, "step", action))
                texts.extend(_said(as_observation(step.observation)))
                if step.terminated or step.truncated:
                    break
    finally:
        await runner.close(handle)
    return texts


async def _choose(runner: Runner, handle: EnvHandle, rng: Random) -> str | list[str] | None:
    able = abilities(handle.template)
    legal = await runner.call(handle, "legal_actions") if "legal_actions" in able else []
    if "expert_action" in able and (not legal or rng.random() < 0.7):
        return await runner.call(handle, "expert_action")  # type: ignore[return-value]
    return rng.choice(legal) if isinstance(legal, list) and legal else None


def _said(observation: Observation) -> list[str]:
    messages = [message.text for message in observation.messages or ()]
    return [observation.text, *messages]
