"""Plays tasks with an agent and counts; evaluates checkpoints, random players and experts."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentrl.core import registry
from agentrl.core.config import Config, Rollout, load_config
from agentrl.core.deadlines import deadline
from agentrl.core.errors import ConfigError, DeadlineError, EngineError
from agentrl.core.exploring import Bonus, Watches
from agentrl.core.protocols import ActionFormat, Agent, Env, Renderer, Runner, Share, abilities
from agentrl.core.types import (
    Action,
    Group,
    Message,
    SamplingParams,
    Split,
    Task,
    Trajectory,
)
from agentrl.engines.policy import LoadedPolicy, load_policy, load_tokenizer
from agentrl.evaluate.checkpoints import resolve_checkpoint
from agentrl.evaluate.statistics import MARKDOWN_HEADER, EvalResult, summarise
from agentrl.rollout.agents import EngineAgent, ExpertAgent, FollowAgent, PlanAgent, RandomAgent
from agentrl.rollout.corpus import corpus
from agentrl.rollout.episode import Rules, Table
from agentrl.rollout.lockstep import Lockstep
from agentrl.rollout.rewrites import first_rewrite
from agentrl.rollout.runners import ProcessRunner, runner_for
from agentrl.rollout.share import Solo
from agentrl.rollout.watching import Watch
from agentrl.rollout.worker import Worker
from agentrl.text.context import Full
from agentrl.text.renderer import build_renderer
from agentrl.text.tokenizer import train_bpe

ASIDE = -1
"""The number of what is no episode."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything that plays: the policy, how its messages become tokens, and the worker."""

    config: Config
    policy: LoadedPolicy
    renderer: Renderer
    worker: Worker

    @property
    def actions(self) -> ActionFormat:
        """The action format in use."""
        return self.worker.table.actions

    def first_rewrite(self, episodes: Iterable[Trajectory]) -> str | None:
        """What to say of a template or context policy that rewrites history; None if none does."""
        return first_rewrite(
            episodes,
            lambda ids: str(self.policy.tokenizer.decode(ids)),
            is_full=isinstance(self.config.context, Full),
        )

    def engine_agent(self, *, in_step: bool = True) -> EngineAgent:
        """The policy in its seat, sampled at the training temperature.

        Args:
            in_step: episodes wait for each other where runs are to repeat (`run.deterministic`).
        """
        return EngineAgent(
            engine=self.config.engine,
            renderer=self.renderer,
            temperature=self.config.sampling.temperature,
            timeout_s=self.config.rollout.engine_timeout_s,
            lockstep=Lockstep() if in_step and self.config.run.deterministic else None,
            thinking=self.config.thinking,
        )

    async def voice(self, messages: Sequence[Message], max_tokens: int, seed: int) -> str:
        """What the policy answers outside of any episode, at the training temperature.

        Raises:
            EngineError: the engine failed, or the model's context is too short.
            DeadlineError: it was late.
        """
        params = SamplingParams(
            temperature=self.config.sampling.temperature,
            max_tokens=max_tokens,
            stop_ids=self.renderer.stop_ids,
            seed=seed,
        )
        prompt, room = self.renderer.prompt(messages), self.policy.context_length
        if len(prompt) + max_tokens > room:
            raise EngineError(f"a prompt of {len(prompt)} tokens for a model of {room}")
        engine, limit = self.config.engine, self.config.rollout.engine_timeout_s
        try:
            async with deadline(limit):
                said = await engine.generate(prompt, params, episode=ASIDE, group=ASIDE)
        except TimeoutError as error:
            raise DeadlineError(f"the engine gave no answer within {limit:g} s") from error
        finally:
            await engine.end(ASIDE)
        return self.renderer.text(said.ids)

    def expert(self) -> ExpertAgent:
        """The env's expert."""
        return ExpertAgent(
            renderer=self.renderer, actions=self.actions, thinking=self.config.thinking
        )

    def follow(self, actions: Sequence[Action]) -> FollowAgent:
        """Whoever takes these actions, one a turn."""
        return FollowAgent(
            way=tuple(actions),
            renderer=self.renderer,
            actions=self.actions,
            thinking=self.config.thinking,
        )

    def plan(self, plan: Mapping[str, Action], name: Callable[[str, str], str]) -> PlanAgent:
        """Whoever does in each state what the plan says."""
        return PlanAgent(
            plan=plan,
            name=name,
            renderer=self.renderer,
            actions=self.actions,
            thinking=self.config.thinking,
        )

    def random(self) -> RandomAgent:
        """A random player."""
        return RandomAgent(
            renderer=self.renderer, actions=self.actions, thinking=self.config.thinking
        )


async def build_stage(
    config: Config, *, share: Share | None = None, resumed: Path | None = None
) -> Stage:
    """Load the policy and make ready to play.

    Args:
        share: this process among those that play the same tasks; None for alone.
        resumed: a checkpoint of this run, which holds the weights (under LoRA those of the merged
            model: then the base is loaded anew) and the tokenizer.

    Raises:
        ConfigError: something that was asked for cannot be had.
    """
    actions = config.actions or registry.find("actions", config.env.actions)()
    runner = runner_for(config.env, config.rollout.runner)
    tokenizer = None
    if resumed is not None:
        tokenizer = load_tokenizer(resumed)
    elif not isinstance(config.model, str):
        texts = await corpus(
            config.env,
            runner,
            actions,
            first_tasks(config.env.tasks("train"), config.tokenizer.texts),
            max_turns=config.rollout.max_turns,
            seed=config.run.seed,
        )
        tokenizer = train_bpe(texts, config.tokenizer.vocabulary)
    policy = load_policy(
        config.model if resumed is None or config.lora is not None else str(resumed),
        seed=config.run.seed,
        device=config.run.device,
        tokenizer=tokenizer,
    )
    return stage_for(config, policy, share)


def stage_for(config: Config, policy: LoadedPolicy, share: Share | None = None) -> Stage:
    """Make a loaded policy ready to play; `share` is as in `build_stage`."""
    actions = config.actions or registry.find("actions", config.env.actions)()
    runner = runner_for(config.env, config.rollout.runner)
    renderer = build_renderer(config.renderer, policy.tokenizer, policy.stop_ids)
    limit = config.rollout.max_context or policy.context_length
    bonus = config.bonus if config.channel.coef else None
    rules = Rules(
        max_turns=config.rollout.max_turns,
        max_tokens=config.sampling.max_tokens,
        max_context=min(limit, policy.context_length),
        deadline_s=config.rollout.deadline_s,
        env_timeout_s=config.rollout.env_timeout_s,
        on_invalid=config.rollout.on_invalid,
        state_keys="state_keys" in config.advantage.needs,
        kept=frozenset() if bonus is None else bonus.needs,
        thinking=config.thinking,
    )
    worker = Worker(
        env=config.env,
        runner=runner,
        table=Table(renderer=renderer, context=config.context, actions=actions, rules=rules),
        reward=config.reward,
        strategy=config.strategy,
        seed=config.run.seed,
        in_flight=most_in_flight(config.rollout, runner),
        reward_timeout_s=config.rollout.reward_timeout_s,
        watch=_watch(bonus),
        share=share or Solo(),
    )
    return Stage(config=config, policy=policy, renderer=renderer, worker=worker)


def _watch(bonus: Bonus | None) -> Watch | None:
    """How a bonus names goals, if it has any."""
    part: object = bonus
    if bonus is None or "goals" not in bonus.needs or not isinstance(part, Watches):
        return None
    return part.watch


def roomy(stage: Stage) -> Stage:
    """The stage for floors and ceilings, which are no model's: nothing is too long for them. It has
    a worker of its own, to be closed as well."""
    rules = replace(stage.worker.table.rules, max_context=sys.maxsize, max_tokens=sys.maxsize)
    table = replace(stage.worker.table, rules=rules)
    return replace(stage, worker=replace(stage.worker, table=table))


def most_in_flight(settings: Rollout, runner: Runner) -> int:
    """Most episodes at a time; each env process costs memory, so those are bounded."""
    if not isinstance(runner, ProcessRunner):
        return settings.in_flight
    return min(settings.in_flight or settings.env_processes, settings.env_processes)


def first_tasks(tasks: Sequence[Task], count: int) -> list[Task]:
    """The first `count` tasks, or all if there are fewer."""
    return [tasks[i] for i in range(min(count, len(tasks)))]


def enough_tasks(env: Env, split: Split, count: int) -> Sequence[Task]:
    """The tasks of a split. Raises `ConfigError` if they are fewer than `count`."""
    found = env.tasks(split)
    if len(found) < count:
        raise ConfigError(
            f"asked for {count} tasks of split {split!r}, and {type(env).__name__} has "
            f"{len(found)}: ask for fewer (eval.tasks, eval.final_tasks, --tasks), or raise the "
            "env's own number of tasks"
        )
    return found


async def evaluate(
    stage: Stage,
    agent: Agent,
    *,
    name: str,
    split: Split,
    tasks: int,
    samples: int = 1,
    step: int = 0,
) -> tuple[EvalResult, list[Group]]:
    """Play the first tasks of a split, each `samples` times.

    Raises:
        ConfigError: the split has fewer tasks than were asked for.
    """
    found = enough_tasks(stage.config.env, split, tasks)
    began = time.perf_counter()
    groups = await stage.worker.collect(
        first_tasks(found, tasks), agent=agent, group_size=samples, label=f"eval/{name}", step=step
    )
    seconds = time.perf_counter() - began
    return summarise(name, groups, step=step, split=split, seconds=seconds), groups


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    overrides: Sequence[str],
    env: str | None,
    split: Split,
    tasks: int,
    samples: int,
    out: Path | None,
) -> list[EvalResult]:
    """`agentrl eval`: the checkpoint, with the random floor and the expert's ceiling beside it.

    The run's own `config.yaml` says how episodes are played; `env` and `overrides` change it.

    Raises:
        ConfigError: there is no checkpoint, or its config cannot be used.
    """
    folder = resolve_checkpoint(checkpoint).resolve()
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    written = run / "config.yaml" if (run / "config.yaml").exists() else None
    if written is None and env is None:
        raise ConfigError(
            f"{checkpoint} lies in no run folder, so there is no config.yaml that names its "
            "environment: add --env NAME"
        )
    if env is not None and (written is None or env != _name(load_config(written).env)):
        overrides = [f"env={env}", *overrides]  # before the others, which may set its keys
    config = load_config(written, overrides)
    config = replace(config, model=str(folder), lora=None)
    enough_tasks(config.env, split, tasks)

    async def play() -> list[EvalResult]:
        stage = await build_stage(config)
        others = roomy(stage)
        await config.engine.start(stage.policy)
        seats: dict[str, Agent] = {"checkpoint": stage.engine_agent()}
        if "legal_actions" in abilities(config.env):
            seats["random"] = stage.random()
        if "expert_action" in abilities(config.env):
            seats["expert"] = stage.expert()
        try:
            return [
                (
                    await evaluate(
                        stage if name == "checkpoint" else others,
                        agent,
                        name=name,
                        split=split,
                        tasks=tasks,
                        samples=samples,
                    )
                )[0]
                for name, agent in seats.items()
            ]
        finally:
            await stage.worker.close()
            await others.worker.close()
            await config.engine.close()

    results = asyncio.run(play())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".md":
            text = "\n".join([MARKDOWN_HEADER, *(result.markdown() for result in results)])
        else:
            text = json.dumps([result.to_json() for result in results], indent=1)
        out.write_text(text + "\n")
    return results


def _name(env: Env) -> str | None:
    found = registry.slot_of(type(env))
    return found[1] if found else None
