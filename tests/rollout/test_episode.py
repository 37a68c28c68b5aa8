"""What happens to messages and tokens in one episode, and how it ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import pytest

from agentrl.core.protocols import Completion, RunsIn, SamplingParams
from agentrl.core.types import (
    Action,
    Failure,
    Finish,
    Group,
    Image,
    Message,
    Observation,
    Score,
    Spot,
    Step,
    Stop,
    Task,
    Trajectory,
)
from agentrl.engines.scripted import Scripted
from agentrl.rewards.success import Success
from agentrl.rollout.fold import fold
from agentrl.text.context import Window
from support import EchoEnv
from support.play import (
    collect,
    engine_agent,
    play_one,
    renderer,
    right,
    says,
    shown,
    table,
    words_of,
    worker,
    wrong,
)

TASK = EchoEnv().tasks("train")[10]
FOUR = EchoEnv(length=4).tasks("train")[200]
END = renderer().reply("")[0]


def scored(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, score=Score(value=0.0))


@dataclass(kw_only=True)
class Listening(Scripted):
    """Remembers what it was asked."""

    prompts: list[tuple[int, ...]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    images: list[tuple[Image, ...]] = field(default_factory=list)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        self.prompts.append(tuple(prompt_ids))
        self.params.append(params)
        self.images.append(tuple(images or ()))
        return await super().generate(prompt_ids, params, episode=episode, group=group)


# --- tokens ---------------------------------------------------------------------------------------


def test_the_prompt_grows_by_the_sampled_ids_and_the_next_observation() -> None:
    first, second = words_of(TASK)
    a, b = says(first), says(second)
    trajectory = play_one(EchoEnv(), [a, b], TASK)
    one, two = trajectory.turns
    assert one.prompt_ids == shown(f"say {first}")
    assert (one.action_ids, one.sampler_logprobs) == (a.ids, a.logprobs)
    assert two.prompt_ids == one.prompt_ids + a.ids + shown(f"say {second}")
    assert (two.action_ids, two.sampler_logprobs) == (b.ids, b.logprobs)
    assert (one.row, two.row) == (0, 0)
    assert (one.action, two.action) == (first, second)
    [row] = fold(Group(task=TASK, trajectories=(scored(trajectory),)), index=0)
    assert row.ids == two.prompt_ids + b.ids
    assert row.ids[len(one.prompt_ids)] == a.ids[0]


def test_ids_that_spell_a_word_in_another_way_are_kept_as_they_were_sampled() -> None:
    word, *rest = words_of(TASK)
    letters = tuple(i for letter in word for i in renderer().reply(letter)[:-1])
    assert letters != says(word).ids[:-1]
    odd = Completion(ids=(*letters, END), logprobs=(-1.0,) * (len(letters) + 1), finish=Finish.EOS)
    trajectory = play_one(EchoEnv(), [odd, *map(says, rest)], TASK)
    assert trajectory.turns[0].action == word
    assert trajectory.turns[0].action_ids == odd.ids
    first = len(trajectory.turns[0].prompt_ids)
    assert trajectory.turns[1].prompt_ids[first : first + len(odd.ids)] == odd.ids


def test_a_cut_reply_gets_its_end_of_turn_from_the_renderer_and_it_is_not_trained() -> None:
    first, second = words_of(TASK)
    cut = says(first, is_cut=True)
    trajectory = play_one(EchoEnv(), [cut, says(second)], TASK)
    one, two = trajectory.turns
    assert one.finish is Finish.LENGTH
    assert two.prompt_ids == one.prompt_ids + cut.ids + (END,) + shown(f"say {second}")
    [row] = fold(Group(task=TASK, trajectories=(scored(trajectory),)), index=0)
    at = len(one.prompt_ids) + len(cut.ids)
    assert row.ids[at] == END
    assert not row.mask[at]
    assert row.mask[at - 1]


def test_a_window_opens_a_new_row_when_history_is_dropped() -> None:
    trajectory = play_one(EchoEnv(length=4), right(FOUR), FOUR, at=table(context=Window(turns=1)))
    assert [turn.row for turn in trajectory.turns] == [0, 0, 1, 2]
    words = words_of(FOUR)
    assert trajectory.turns[2].prompt_ids == (
        shown(f"say {words[0]}") + says(words[1]).ids + shown(f"say {words[2]}")
    )
    rows = fold(Group(task=FOUR, trajectories=(scored(trajectory),)), index=0)
    assert [sorted(set(row.turn_of) - {-1}) for row in rows] == [[0, 1], [2], [3]]
    assert sum(sum(row.mask) for row in rows) == trajectory.n_tokens


def test_the_format_s_system_message_opens_the_episode() -> None:
    trajectory = play_one(EchoEnv(), right(TASK), TASK, at=table(system="say it"))
    system = renderer().prompt([Message(role="system", text="say it")])[:-1]
    assert trajectory.turns[0].prompt_ids[: len(system)] == system


def test_versions_are_recorded_run_by_run_and_reach_their_tokens() -> None:
    word = next(w for w in ("ant", "dog", "elk") if len(says(w).ids) >= 2)
    n = len(says(word).ids)
    stale = says(word, versions=((3, 1), (4, n - 1)))
    trajectory = play_one(EchoEnv(), [stale, says("ant")], TASK)
    assert trajectory.turns[0].versions == ((3, 1), (4, n - 1))
    [row] = fold(Group(task=TASK, trajectories=(scored(trajectory),)), index=0)
    sampled = [v for v, of in zip(row.versions, row.turn_of, strict=True) if of == 0]
    assert sampled == [3] + [4] * (n - 1)
    assert {v for v, m in zip(row.versions, row.mask, strict=True) if not m} == {-1}


def test_each_turn_is_sampled_with_a_seed_of_its_own_that_the_run_s_seed_decides() -> None:
    def seeds(seed: int) -> list[int]:
        engine = Listening(script={-1: right(TASK)})
        collect(worker(EchoEnv(), seed=seed), engine_agent(engine), [TASK], group_size=2)
        return [params.seed for params in engine.params]

    assert len(set(seeds(1))) == 4
    assert seeds(1) == seeds(1)
    assert not set(seeds(1)) & set(seeds(2))


def test_state_keys_are_recorded_when_asked_for() -> None:
    trajectory = play_one(EchoEnv(), right(TASK), TASK, at=table(state_keys=True))
    first, second = words_of(TASK)
    keys = [f"{first}/{second}/", f"{first}/{second}//{first}"]
    assert [turn.state_key for turn in trajectory.turns] == keys
    assert play_one(EchoEnv(), right(TASK), TASK).turns[0].state_key is None


# --- limits ---------------------------------------------------------------------------------------


def test_a_reply_gets_no_more_tokens_than_the_context_has_room_for() -> None:
    engine = Listening(script={-1: right(TASK)})
    length = len(shown(f"say {words_of(TASK)[0]}"))
    by = worker(EchoEnv(), at=table(max_context=length + 5, max_tokens=32))
    [group] = collect(by, engine_agent(engine), [TASK], group_size=1)
    assert [params.max_tokens for params in engine.params] == [5]
    assert group.trajectories[0].stop is Stop.MAX_TOKENS, "the second prompt has no room"
    assert len(group.trajectories[0].turns) == 1
    assert group.trajectories[0].success is False
    assert group.trajectories[0].is_scored
    assert "prompt_too_long" not in group.trajectories[0].metrics


def test_a_first_prompt_longer_than_the_context_is_a_counted_truncation() -> None:
    trajectory = play_one(EchoEnv(), right(TASK), TASK, at=table(max_context=4))
    assert (trajectory.stop, trajectory.turns, trajectory.success) == (Stop.MAX_TOKENS, (), False)
    assert trajectory.metrics["prompt_too_long"] == 1.0
    assert trajectory.failure is None
    assert trajectory.score == Score(value=0.0, turns=(), parts={"env": 0.0})
    assert fold(Group(task=TASK, trajectories=(trajectory,)), index=0) == []


def test_max_turns_cuts_an_episode_off() -> None:
    trajectory = play_one(EchoEnv(length=4), right(FOUR), FOUR, at=table(max_turns=3))
    assert (trajectory.stop, len(trajectory.turns)) == (Stop.MAX_TURNS, 3)
    assert trajectory.success is False
    assert trajectory.env_return == pytest.approx(0.75)


def test_an_env_s_own_truncation_is_one_too() -> None:
    trajectory = play_one(EchoEnv(cap=2), [says("nonsense")] * 2, TASK)
    assert (trajectory.stop, len(trajectory.turns)) == (Stop.MAX_TURNS, 2)


# --- actions that do not parse --------------------------------------------------------------------

EMPTY = says("")


def test_tell_uses_up_the_turn_and_tells_the_model_what_a_reply_must_be() -> None:
    trajectory = play_one(EchoEnv(), [EMPTY, *right(TASK)], TASK, at=table(on_invalid="tell"))
    bad, good, _ = trajectory.turns
    assert (bad.invalid, bad.action, bad.reward) == (True, None, 0.0)
    hint = shown("Reply with one action and nothing else.")
    assert good.prompt_ids == bad.prompt_ids + EMPTY.ids + hint
    assert (trajectory.stop, trajectory.success) == (Stop.DONE, True)
    assert trajectory.metrics["said"] == 2, "the env was not stepped"


def test_pass_gives_the_text_to_the_env_and_counts_it() -> None:
    trajectory = play_one(EchoEnv(), [EMPTY, *right(TASK)], TASK, at=table(on_invalid="pass"))
    bad, good, _ = trajectory.turns
    assert (bad.invalid, bad.action) == (True, "")
    assert good.prompt_ids == bad.prompt_ids + EMPTY.ids + shown(f"say {words_of(TASK)[0]}")


def test_end_ends_the_episode_unsolved_with_what_it_had_earned() -> None:
    replies = [right(TASK)[0], EMPTY]
    trajectory = play_one(EchoEnv(), replies, TASK, at=table(on_invalid="end"))
    assert (trajectory.stop, trajectory.success) == (Stop.BAD_ACTION, False)
    assert [turn.invalid for turn in trajectory.turns] == [False, True]
    assert trajectory.score is not None
    assert trajectory.score.value == 0.5


@pytest.mark.parametrize("on_invalid", ["tell", "pass"])
def test_an_action_that_the_env_calls_invalid_is_counted(
    on_invalid: Literal["tell", "pass"],
) -> None:
    replies = [says("nonsense"), *right(TASK)]
    trajectory = play_one(EchoEnv(), replies, TASK, at=table(on_invalid=on_invalid))
    assert [turn.invalid for turn in trajectory.turns] == [True, False, False]
    assert [turn.action for turn in trajectory.turns] == ["nonsense", *words_of(TASK)]


# --- success --------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Told(EchoEnv):
    """Answers with given steps."""

    steps: tuple[Step, ...]

    def reset(self, task: Task) -> str:
        self._left = list(self.steps)
        return "go"

    def step(self, action: Action) -> Step:
        return self._left.pop(0)


def told(*steps: Step, **rules: int) -> Trajectory:
    return play_one(Told(steps=steps), [says("ant")] * 9, TASK, at=table(**rules))  # type: ignore[arg-type]


def step(*, end: bool = False, cut: bool = False, **info: object) -> Step:
    return Step(observation="on", terminated=end, truncated=cut, info=info)


@pytest.mark.parametrize(
    ("steps", "success"),
    [
        ([step(end=True, success=True)], True),
        ([step(end=True, success=False)], False),
        ([step(success=False), step(end=True, success=True)], True),
        ([step(success=True), step(end=True, success=False)], False),
        ([step(cut=True)], False),
        ([step(cut=True, success=True)], True),
        ([step(success=True), step(cut=True)], True),
    ],
)
def test_the_latest_word_on_success_counts_and_silence_on_a_truncation_is_failure(
    steps: list[Step], success: bool
) -> None:
    trajectory = told(*steps)
    assert trajectory.success is success
    assert trajectory.stop is (Stop.DONE if steps[-1].terminated else Stop.MAX_TURNS)
    assert trajectory.failure is None


def test_success_said_before_max_turns_counts() -> None:
    trajectory = told(step(success=True), step(), max_turns=2)
    assert (trajectory.stop, trajectory.success) == (Stop.MAX_TURNS, True)


def test_a_terminal_step_without_success_is_the_env_s_failure() -> None:
    trajectory = told(step(end=True))
    assert trajectory.stop is Stop.ERROR
    assert trajectory.success is None
    assert trajectory.score is None
    assert trajectory.failure is not None
    assert trajectory.failure.where == "env"
    assert "without info['success'], which a terminal step must set" in trajectory.failure.error


def test_the_env_s_metrics_are_kept_and_the_latest_counts() -> None:
    trajectory = told(
        step(metrics={"a": 1}), step(end=True, success=True, metrics={"a": 2, "b": 3})
    )
    assert trajectory.metrics == {"a": 2.0, "b": 3.0}


@pytest.mark.parametrize(
    ("metrics", "complaint"), [({"a": "many"}, "a='many'"), (["a"], "to be a mapping")]
)
def test_metrics_that_are_no_numbers_are_the_env_s_failure(metrics: object, complaint: str) -> None:
    trajectory = told(step(metrics=metrics))
    assert trajectory.failure is not None
    assert trajectory.failure.where == "env"
    assert complaint in trajectory.failure.error


def test_where_an_action_pointed_is_kept_and_anything_else_is_the_env_s_failure() -> None:
    spot = Spot(500, 20)
    assert [turn.spots for turn in told(step(spots=[spot]), step()).turns] == [(spot,), ()]
    for other in (spot, [(500, 20)], 5):
        failure = told(step(spots=other)).failure
        assert failure is not None
        assert (failure.where, "to be a list of Spot" in failure.error) == ("env", True)


def test_a_reward_of_nan_leaves_the_episode_whole_but_unscored() -> None:
    trajectory = told(
        Step(observation="", reward=math.nan, terminated=True, info={"success": True})
    )
    assert (trajectory.stop, trajectory.failure, trajectory.score) == (Stop.DONE, None, None)
    assert not trajectory.is_scored


# --- images ---------------------------------------------------------------------------------------

CAT, DOG, MAP = (Image(f"a picture of a {thing}".encode()) for thing in ("cat", "dog", "map"))


@dataclass(kw_only=True)
class Gallery(EchoEnv):
    """Shows a map and a cat, the cat again, a dog (in a message of its own), then nothing."""

    def reset(self, task: Task) -> Observation:
        self._left = [
            Observation("two", (CAT,)),
            Observation(
                "",
                messages=(
                    Message(role="user", text="three", images=(DOG,)),
                    Message(role="user", text="act"),
                ),
            ),
            Observation("four"),
            Observation("the end"),
        ]
        return Observation("one", (MAP, CAT))

    def step(self, action: Action) -> Step:
        return Step(observation=self._left.pop(0))


def gallery(**parts: Window) -> tuple[Trajectory, Listening]:
    engine = Listening(script={-1: [says("ant")] * 4})
    by = worker(Gallery(), at=table(max_turns=4 if parts else 3, **parts))  # type: ignore[arg-type]
    [group] = collect(by, engine_agent(engine), [TASK], group_size=1)
    return group.trajectories[0], engine


def test_pixels_are_kept_once_and_turns_name_what_is_new_to_their_row() -> None:
    trajectory, engine = gallery()
    assert dict(trajectory.pixels) == {image.hash: image for image in (MAP, CAT, DOG)}
    assert [turn.images for turn in trajectory.turns] == [
        (MAP.hash, CAT.hash),
        (CAT.hash,),
        (DOG.hash,),
    ]
    assert engine.images == [(MAP, CAT), (MAP, CAT, CAT), (MAP, CAT, CAT, DOG)]
    [row] = fold(Group(task=TASK, trajectories=(scored(trajectory),)), index=0)
    assert row.images == (MAP.hash, CAT.hash, CAT.hash, DOG.hash)


def test_a_new_row_names_every_image_that_its_prompt_shows_and_no_other() -> None:
    trajectory, engine = gallery(context=Window(turns=1))
    assert [turn.row for turn in trajectory.turns] == [0, 0, 1, 2]
    rows = fold(Group(task=TASK, trajectories=(scored(trajectory),)), index=0)
    assert [row.images for row in rows] == [
        (MAP.hash, CAT.hash, CAT.hash),
        (MAP.hash, CAT.hash, DOG.hash),
        (MAP.hash, CAT.hash),
    ]
    assert engine.images[2:] == [(MAP, CAT, DOG), (MAP, CAT)]


# --- faults ---------------------------------------------------------------------------------------


class Stuck(EchoEnv):
    """An async env that never answers."""

    runs_in: ClassVar[RunsIn] = "inline"
    timeout_s: ClassVar[float] = 60.0

    async def step(self, action: Action) -> Step:  # type: ignore[override]
        await asyncio.sleep(60)
        raise AssertionError("unreachable")


def test_the_episode_s_deadline_names_whom_it_waited_for() -> None:
    trajectory = play_one(Stuck(), right(TASK), TASK, at=table(deadline_s=0.2))
    assert trajectory.stop is Stop.TIMEOUT
    assert trajectory.failure == Failure(
        where="env",
        error="the episode passed its deadline of 0.2 s (rollout.deadline_s) while waiting for the "
        "env",
    )
    assert 0.15 < trajectory.seconds < 2


def test_success_as_a_reward_is_unknown_for_a_failed_episode_only() -> None:
    solved = play_one(EchoEnv(), right(TASK), TASK, reward=Success())
    failed = play_one(EchoEnv(), wrong(TASK), TASK, reward=Success())
    assert [t.score and t.score.value for t in (solved, failed)] == [1.0, 0.0]
