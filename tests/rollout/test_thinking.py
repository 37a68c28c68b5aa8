"""A think budget: what it forces into a reply is seen by the model and never trained."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch

from agentrl.core.config import Thinking, load_config
from agentrl.core.errors import ConfigError, DataError
from agentrl.core.protocols import Completion, Policy, Renderer, SamplingParams
from agentrl.core.types import (
    Finish,
    Forced,
    Fork,
    Group,
    Image,
    Message,
    Score,
    Trajectory,
    Turn,
)
from agentrl.rollout.agents import EngineAgent, ExpertAgent
from agentrl.rollout.episode import Rules, Table
from agentrl.rollout.fold import fold
from agentrl.rollout.thinking import answer_in, is_thinking, joined
from agentrl.text.actions.plain import PlainAction
from agentrl.text.context import Full
from agentrl.text.renderer import Plain, Template
from agentrl.track.trajectories import record
from support.envs import EchoEnv
from support.models import bpe
from support.play import collect, words_of, worker
from support.templates import STYLES

THINKING = Thinking(budget=12)
PLAIN = Plain(bpe())
OPENS = Template(bpe(STYLES["opens_reasoning"].template))
ENDING = PLAIN.encode("\n</think>\n\n")


@dataclass(kw_only=True)
class Speaker:
    """An engine that says given texts, as far as it is let; notes what it was asked."""

    shares_module: ClassVar[bool] = True
    renderer: Renderer
    texts: list[str]
    asked: list[tuple[tuple[int, ...], SamplingParams]] = field(default_factory=list)

    async def start(self, policy: Policy) -> None:
        """Nothing to do."""

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        self.asked.append((tuple(prompt_ids), params))
        ids = self.renderer.reply(self.texts.pop(0))
        is_cut = len(ids) > params.max_tokens
        ids = ids[: params.max_tokens]
        return Completion(
            ids=ids,
            logprobs=tuple(-0.01 * (len(self.asked) + a) for a in range(len(ids))),
            finish=Finish.LENGTH if is_cut else Finish.EOS,
            versions=((7, len(ids)),),
        )

    async def end(self, episode: int) -> None:
        """Nothing to free."""

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Nothing to load."""

    async def probe(self, ids: Sequence[int]) -> list[float]:
        return []

    async def close(self) -> None:
        """Nothing to close."""


def play(
    texts: Sequence[str],
    *,
    renderer: Renderer = PLAIN,
    max_tokens: int = 40,
    budget: int = 12,
    length: int = 1,
) -> tuple[Trajectory, Speaker]:
    env = EchoEnv(length=length)
    thinking = replace(THINKING, budget=budget)
    engine = Speaker(renderer=renderer, texts=list(texts))
    agent = EngineAgent(
        engine=engine, renderer=renderer, temperature=1.0, timeout_s=5.0, thinking=thinking
    )
    rules = Rules(max_turns=3, max_tokens=max_tokens, max_context=600, thinking=thinking)
    at = Table(renderer=renderer, context=Full(), actions=PlainAction(), rules=rules)
    [group] = collect(worker(env, at=at), agent, env.tasks("train")[:1], group_size=1)
    return group.trajectories[0], engine


LONG = "<think>turn left turn right go forward turn left turn right"


def test_reasoning_beyond_the_budget_is_ended_by_tokens_that_are_masked() -> None:
    trajectory, engine = play([LONG, "ant"])
    [turn] = trajectory.turns
    thought, answer = PLAIN.reply(LONG)[:12], PLAIN.reply("ant")
    assert turn.action_ids == thought + answer
    assert turn.forced == Forced(at=12, ids=ENDING)
    assert turn.reply_ids == thought + ENDING + answer
    assert turn.sampler_logprobs == tuple(
        -0.01 * (call + a) for call, ids in ((1, thought), (2, answer)) for a in range(len(ids))
    )
    assert turn.versions == ((7, 12), (7, len(answer)))
    assert (turn.action, trajectory.success) == ("ant", True)
    first, second = engine.asked
    assert second[0] == first[0] + thought + ENDING, "the engine goes on behind the ending"
    assert (first[1].max_tokens, second[1].max_tokens) == (12, 40 - 12 - len(ENDING))
    assert first[1].seed != second[1].seed

    trajectory = replace(trajectory, score=Score(value=1.0))
    [row] = fold(Group(task=trajectory.task, trajectories=(trajectory,)), index=0)
    start = len(turn.prompt_ids)
    assert row.ids == turn.prompt_ids + turn.reply_ids
    assert row.mask[start:] == (True,) * 12 + (False,) * len(ENDING) + (True,) * len(answer)
    assert tuple(i for i, m in zip(row.ids, row.mask, strict=True) if m) == turn.action_ids
    assert tuple(p for p, m in zip(row.sampler_logprobs, row.mask, strict=True) if m) == (
        turn.sampler_logprobs
    )


def test_the_next_turn_continues_the_row_with_its_forced_tokens() -> None:
    trajectory, _ = play([LONG, "ant", LONG, "ant"], length=2)
    first, second = trajectory.turns
    saw = first.prompt_ids + first.reply_ids
    assert second.prompt_ids[: len(saw)] == saw
    assert (first.row, second.row) == (0, 0)
    trajectory = replace(trajectory, score=Score(value=1.0))
    [row] = fold(Group(task=trajectory.task, trajectories=(trajectory,)), index=0)
    assert sum(row.mask) == trajectory.n_tokens


def test_reasoning_that_ends_in_time_is_left_alone() -> None:
    text = "<think></think>ant"
    budget = len(PLAIN.reply(text))
    trajectory, engine = play([text], budget=budget)
    [turn] = trajectory.turns
    assert (turn.forced, turn.action, len(engine.asked)) == (None, "ant", 1)


def test_reasoning_that_ended_before_the_budget_did_goes_on_unforced() -> None:
    text = "<think></think>ant"
    trajectory, engine = play([text, ""], budget=len(PLAIN.reply(text)) - 1)
    [turn] = trajectory.turns
    assert (turn.forced, turn.action, len(engine.asked)) == (None, "ant", 2)
    assert turn.action_ids == PLAIN.reply(text)


def test_a_reply_without_reasoning_goes_on_beyond_the_budget_unforced() -> None:
    trajectory, engine = play(["turn right turn left go forward " * 3, "and so on", "ant", "ant"])
    turn = trajectory.turns[0]
    assert turn.forced is None
    assert len(engine.asked) >= 2
    assert engine.asked[1][0] == turn.prompt_ids + turn.action_ids[:12]
    assert PLAIN.text(turn.action_ids).endswith("and so on")


def test_reasoning_that_never_ends_is_no_action() -> None:
    trajectory, _ = play([LONG] * 3, max_tokens=16, budget=12)
    assert [turn.action for turn in trajectory.turns] == [None] * 3
    assert all(turn.invalid for turn in trajectory.turns)
    assert all(turn.forced is None for turn in trajectory.turns), "no room for an answer"


def test_a_prompt_that_opens_the_reasoning_is_told_from_one_that_does_not() -> None:
    prompt = OPENS.prompt([Message(role="user", text="a")])
    hm, done = OPENS.reply("left?"), OPENS.reply("left?</think>go")
    assert is_thinking(THINKING, OPENS, prompt, hm)
    assert not is_thinking(THINKING, OPENS, prompt, done)
    assert answer_in(THINKING, OPENS, prompt, hm) is None
    assert answer_in(THINKING, OPENS, prompt, done) == "go"
    plain = PLAIN.prompt([Message(role="user", text="a")])
    assert answer_in(THINKING, PLAIN, plain, PLAIN.reply("go")) == "go"


def test_an_expert_ends_the_reasoning_that_the_prompt_began() -> None:
    env = EchoEnv(length=2)
    task = env.tasks("train")[3]
    rules = Rules(max_turns=3, max_tokens=40, max_context=600, thinking=THINKING)
    at = Table(renderer=OPENS, context=Full(), actions=PlainAction(), rules=rules)
    agent = ExpertAgent(renderer=OPENS, actions=PlainAction(), thinking=THINKING)
    [group] = collect(worker(env, at=at), agent, [task], group_size=1)
    trajectory = group.trajectories[0]
    assert trajectory.success
    assert [turn.action for turn in trajectory.turns] == words_of(task)


def test_a_branch_inherits_a_turn_with_forced_tokens() -> None:
    parent, _ = play([LONG, "ant", LONG, "ant"], length=2)
    group = Group(
        task=parent.task,
        trajectories=(
            replace(parent, score=Score(value=1.0)),
            replace(parent, score=Score(value=0.0), parent=Fork(trajectory=0, turn=1)),
        ),
    )
    own, branch = fold(group, index=0)
    assert own.ids == branch.ids
    assert sum(branch.inherited) == len(parent.turns[0].action_ids)


def test_a_record_shows_forced_tokens_unmasked() -> None:
    trajectory, _ = play([LONG, "ant"])
    [turn] = trajectory.turns
    advantages = [[0.5] * len(turn.action_ids)]
    kept = record(
        trajectory,
        phase="train",
        label="step",
        step=0,
        group=0,
        sibling=0,
        piece=str,
        advantages=advantages,
    ).turns[0]
    assert kept.ids == [*turn.prompt_ids, *turn.reply_ids]
    assert [i for i, m in zip(kept.ids, kept.mask, strict=True) if m] == list(turn.action_ids)
    assert [a is None for a in kept.advantages] == [not m for m in kept.mask]


def test_joining_without_an_ending_forces_nothing() -> None:
    one = Completion(ids=(1,), logprobs=(-1.0,), finish=Finish.LENGTH, versions=((1, 1),))
    two = Completion(ids=(2,), logprobs=(-2.0,), finish=Finish.EOS)
    both = joined(one, (), two)
    assert both.forced is None
    assert (both.ids, both.versions, both.finish) == ((1, 2), (), Finish.EOS)


def test_forced_tokens_must_stand_inside_the_reply() -> None:
    with pytest.raises(DataError, match="before its action token 3, but has 1"):
        Turn(
            prompt_ids=(1,),
            action_ids=(2,),
            sampler_logprobs=(0.0,),
            forced=Forced(at=3, ids=(9,)),
        )


def test_budgets_that_leave_no_room_are_config_errors() -> None:
    with pytest.raises(
        ConfigError, match=r"thinking\.budget: must be below sampling\.max_tokens=8"
    ):
        load_config(None, ["thinking.budget=8", "sampling.max_tokens=8"])
    with pytest.raises(ConfigError, match="an ending that holds the closing"):
        load_config(None, ["thinking.ending=done", "sampling.max_tokens=512"])
    assert load_config(None, []).thinking is None
    loaded = load_config(None, ["thinking.budget=4", "sampling.max_tokens=8"]).thinking
    assert loaded == Thinking(budget=4)


def test_the_engine_is_asked_once_where_nothing_is_cut() -> None:
    _, engine = play(["ant"])
    assert len(engine.asked) == 1
    assert asyncio.run(engine.probe([])) == []
