"""What a config-built model's tokenizer is trained on: what train tasks show and accept."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.protocols import ActionFormat, Env, EnvHandle, Runner, abilities
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Action, Observation, Task
from agentrl.rollout.answers import as_action, as_observation, as_step
from agentrl.rollout.runners import EnvPool


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
    shows its first observations only. An episode that fails adds what it said before.

    Raises:
        EnvError: every episode failed; it tells of the first.
    """
    pool = EnvPool(runner, env)
    texts = [actions.hint(), actions.system]
    failures: list[EnvError | DeadlineError] = []
    try:
        for task in tasks:
            handle = await pool.acquire()
            rng = Random(derive_seed(seed, "corpus", task.id))
            is_broken = True
            try:
                await _play(runner, handle, actions, task, max_turns, rng, texts)
                is_broken = False
            except (EnvError, DeadlineError) as error:
                failures.append(error)
            finally:
                await pool.release(handle, is_broken=is_broken)
    finally:
        await pool.close()
    if failures and len(failures) == len(tasks):
        raise EnvError(
            f"each of {len(tasks)} train tasks failed; the first: {failures[0]}"
        ) from failures[0]
    return texts


async def _play(
    runner: Runner,
    handle: EnvHandle,
    actions: ActionFormat,
    task: Task,
    max_turns: int,
    rng: Random,
    texts: list[str],
) -> None:
    """One episode; whatever it says is added to `texts`."""
    texts.extend(_said(as_observation(await runner.call(handle, "reset", task))))
    for _ in range(max_turns):
        action = await _choose(runner, handle, rng)
        if action is None:
            break
        texts.append(actions.write(action))
        step = as_step(await runner.call(handle, "step", action))
        texts.extend(_said(as_observation(step.observation)))
        if step.terminated or step.truncated:
            break


async def _choose(runner: Runner, handle: EnvHandle, rng: Random) -> Action | None:
    able = abilities(handle.template)
    legal = await runner.call(handle, "legal_actions") if "legal_actions" in able else []
    if "expert_action" in able and (not legal or rng.random() < 0.7):
        return as_action(await runner.call(handle, "expert_action"))
    return as_action(rng.choice(legal)) if isinstance(legal, list) and legal else None


def _said(observation: Observation) -> list[str]:
    messages = [message.text for message in observation.messages or ()]
    return [observation.text, *messages]
