"""Checks of an episode: how it begins, what a step answers, how it ends, that it comes again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import SupportsFloat

from agentrl.core.types import Step, Task
from agentrl.evaluate.check_player import (
    END_TURNS,
    TURNS,
    Beat,
    Bench,
    CheckFailedError,
    CheckSkippedError,
    Shown,
    ended,
    require,
    same,
)
from agentrl.rollout.calls import build
from agentrl.rollout.runners import EnvRaisedError

NONSENSE = ("no such action", '{"unclosed": [', "'; drop --")
ODD = {
    "an empty action": "",
    "blanks": " \n\t ",
    "20,000 letters": "x" * 20_000,
    "letters beyond ASCII": "naïve 東京 🙂 \u202e",
    "control characters": "\x00\x1b[31m\x7f",
}
SEEDED = "draw random numbers from random.Random(task.seed) and begin every episode in reset"


async def reset_shows_something(bench: Bench) -> str:
    """Reset gives an observation that isn't empty."""
    longest = 0
    async with bench.player() as player:
        for task in bench.tasks:
            shown = await player.reset(task)
            require(
                any(shown),
                "text, pictures or messages to begin with",
                got="an empty observation",
                where=f"reset of task {task.id}",
                mend="show the agent where it is",
            )
            longest = max(longest, len(shown.text.split()))
    return f"{longest} words at most"


async def text_can_be_encoded(bench: Bench) -> str:
    """Whatever is shown is valid Unicode."""
    for task, _, first, steps in await bench.played():
        for turn, one in enumerate((first, *(Shown.of(s.observation) for s in steps)), start=-1):
            try:
                "".join((task.instruction, one.text, *(text for _, text in one.messages))).encode()
            except UnicodeEncodeError as error:
                raise CheckFailedError(
                    "text that UTF-8 can hold",
                    got=str(error),
                    where=f"turn {turn} of task {task.id}" if turn >= 0 else f"task {task.id}",
                    mend="decode bytes with errors='replace' before showing them",
                ) from error
    return ""


async def same_task_same_episode(bench: Bench) -> str:
    """The same actions give the same answers in two copies of the env."""
    turns = 0
    async with bench.player() as player, bench.player() as other:
        for task in bench.tasks:
            first = await player.reset(task)
            actions, beats = await player.improvise(task)
            again = await other.reset(task)
            require(
                first == again,
                f"a second copy to begin with {first!r:.120}",
                got=f"{again!r:.120}",
                where=f"reset of task {task.id}",
                mend=SEEDED,
            )
            same("a second copy", SEEDED, task, beats, await other.repeat(actions))
            turns += len(beats)
    return f"{turns} turns of {len(bench.tasks)} tasks"


async def reset_forgets_what_was_played(bench: Bench) -> str:
    """A task begins and goes on the same after other episodes, ended or broken off."""
    mend = "begin every episode in reset: set each attribute that step reads"
    async with bench.player() as player:
        for task, before in zip(bench.tasks, bench.tasks[1:] + bench.tasks[:1], strict=True):
            first = await player.reset(task)
            actions, beats = await player.improvise(task)
            for turns in (TURNS, 1):
                await player.reset(before)
                await player.improvise(before, turns)
                again = await player.reset(task)
                after = "after another episode" if turns > 1 else "after one that was broken off"
                require(
                    again == first,
                    f"{first!r:.120} {after}",
                    got=f"{again!r:.120}",
                    where=f"reset of task {task.id}",
                    mend=mend,
                )
                same(f"an episode {after}", mend, task, beats, await player.repeat(actions))
    return f"{len(bench.tasks)} tasks"


async def another_task_is_another_episode(bench: Bench) -> str:
    """Tasks differ in what is shown, asked for, or in the state."""
    if len(bench.tasks) < 2:
        raise CheckSkippedError("there is one task only")
    found: list[tuple[Task, Shown, object, list[Beat]]] = []
    async with bench.player() as player:
        for task in bench.tasks:
            shown, key = await player.reset(task), await player.state_key()
            found.append((task, shown, key, (await player.improvise(bench.tasks[0]))[1]))
    turns = min(len(beats) for *_, beats in found)  # some may have been left off sooner
    starts = {(t.instruction, t.answer, shown, key, *b[:turns]) for t, shown, key, b in found}
    require(
        len(starts) > 1,
        "tasks that differ in what they show, ask for or answer",
        got=f"{len(bench.tasks)} tasks with one and the same episode",
        where=f"tasks {', '.join(task.id for task in bench.tasks[:3])}",
        mend="let reset use task.seed or task.data",
    )
    return f"{len(starts)} of {len(bench.tasks)} differ"


async def rewards_are_finite(bench: Bench) -> str:
    """Rewards are finite numbers."""
    seen: set[float] = set()
    for task, turn, step in await _turns(bench):
        require(
            math.isfinite(step.reward),
            "a finite reward",
            got=f"{step.reward}",
            where=f"turn {turn} of task {task.id}",
            mend="guard the division or logarithm that it comes from",
        )
        seen.add(float(step.reward))
    return f"{min(seen):g} to {max(seen):g}"


async def metrics_are_numbers(bench: Bench) -> str:
    """`info["metrics"]` maps names to numbers."""
    names: set[str] = set()
    for task, turn, step in await _turns(bench):
        metrics = step.info.get("metrics", {})
        odd = [f"{metrics!r:.80}"]
        if isinstance(metrics, Mapping):
            odd = [f"{k}={v!r:.80}" for k, v in metrics.items() if not isinstance(v, SupportsFloat)]
            names.update(map(str, metrics))
        require(
            not odd,
            "numbers by name in info['metrics']",
            got=", ".join(odd),
            where=f"turn {turn} of task {task.id}",
            mend="report float values there and everything else under other keys of info",
        )
    return ", ".join(sorted(names)) or "none"


async def the_end_says_success(bench: Bench) -> str:
    """A terminal step sets `info["success"]`."""
    ends = 0
    for task, turn, step in await _turns(bench):
        ends += ended(step)
        require(
            not step.terminated or step.info.get("success") is not None,
            "info['success'] in a step that is terminated",
            got=f"info with {', '.join(step.info) or 'nothing'}",
            where=f"turn {turn} of task {task.id}",
            mend="set info['success'] to True or False where the episode ends",
        )
    if not ends:
        raise CheckSkippedError(f"no episode ended within {END_TURNS} turns")
    return f"{ends} of {len(await bench.played())} episodes ended"


async def success_is_true_or_false(bench: Bench) -> str:
    """Wherever `info["success"]` stands, it is a bool."""
    for task, turn, step in await _turns(bench):
        success = step.info.get("success")
        require(
            success is None or isinstance(success, bool),
            "True or False as info['success']",
            got=f"{type(success).__name__} {success!r:.80}",
            where=f"turn {turn} of task {task.id}",
            mend="wrap it: bool(...)",
        )
    return ""


async def an_episode_ends_in_one_way(bench: Bench) -> str:
    """No step is both terminated (the task's own end) and truncated (a limit)."""
    for task, turn, step in await _turns(bench):
        require(
            not (step.terminated and step.truncated),
            "terminated or truncated",
            got="both",
            where=f"turn {turn} of task {task.id}",
            mend="let truncated be False where terminated is True",
        )
    return ""


async def _turns(bench: Bench) -> list[tuple[Task, int, Step]]:
    """Each step of the expert's and the wanderer's episode of every task."""
    return [
        (episode.task, turn, step)
        for episode in await bench.played()
        for turn, step in enumerate(episode.steps)
    ]


async def step_after_the_end_raises(bench: Bench) -> str:
    """An episode that is over cannot be played on."""
    task = bench.tasks[0]
    async with bench.player() as player:
        await player.reset(task)
        action = await player.choose(task, Random(0))
        if not ended((await player.finish(task, as_expert=True)).steps[-1]):
            raise CheckSkippedError(f"no episode ended within {END_TURNS} turns")
        try:
            step = await player.step(action)
        except EnvRaisedError as error:
            return error.kind
        raise CheckFailedError(
            "RuntimeError from a step after the end",
            got=f"{step!r:.120}",
            where=f"step({action!r}) after the end of task {task.id}",
            mend="remember the end, and raise RuntimeError('the episode is over') in step",
        )


async def nonsense_is_flagged(bench: Bench) -> str:
    """An action that means nothing does no harm; where actions are a closed set, it is reported."""
    reported = 0
    async with bench.player() as player:
        for nonsense in NONSENSE:
            await player.reset(bench.tasks[0])
            try:
                step = await player.step(nonsense)
            except EnvRaisedError as error:
                raise _crash(nonsense, error) from error
            is_reported = bool(step.info.get("invalid_action", False))
            reported += is_reported
            require(
                is_reported or "legal_actions" not in bench.able,
                "info['invalid_action'] to be True where legal_actions() does not have the action",
                got=f"info with {', '.join(step.info) or 'nothing'}",
                where=f"step({nonsense!r}) in task {bench.tasks[0].id}",
                mend="set info['invalid_action'] = True for what was not understood",
            )
    return "reported as invalid" if reported == len(NONSENSE) else "some taken as answers"


async def odd_text_is_survived(bench: Bench) -> str:
    """Empty, blank, very long and exotic actions do no harm."""
    async with bench.player() as player:
        for what, action in ODD.items():
            await player.reset(bench.tasks[0])
            try:
                await player.step(action)
            except EnvRaisedError as error:
                raise _crash(what, error) from error
    return ", ".join(ODD)


def _crash(action: str, error: EnvRaisedError) -> CheckFailedError:
    return CheckFailedError(
        "a step whatever the action is",
        got=str(error),
        where=f"step({action!r})" if action in NONSENSE else f"step with {action}",
        mend="let what is not understood cost a turn, with info['invalid_action'] = True",
    )


async def tasks_are_left_alone(bench: Bench) -> str:
    """An episode does not change its task."""
    async with bench.player() as player:
        for task in await bench.first(bench.split, bench.count, build(bench.env)):
            before = repr(task)
            await player.reset(task)
            await player.improvise(task)
            require(
                repr(task) == before,
                f"the task to be {before:.120} still",
                got=f"{task!r:.120}",
                where=f"after an episode of task {task.id}",
                mend="copy what task.data holds before changing it",
            )
    return ""


async def closes_twice(bench: Bench) -> str:
    """Closing is harmless before a reset, within an episode, and when closed."""
    async with bench.player() as player:
        await player.call("close")
    async with bench.player() as player:
        await player.reset(bench.tasks[0])
        await player.call("close")
        await player.call("close")
    return ""


async def reset_opens_what_was_closed(bench: Bench) -> str:
    """A reset after a close in mid-episode begins anew."""
    mend = "let close forget what it closed, and let reset open it again"
    async with bench.player() as player:
        for task in bench.tasks:
            first = await player.reset(task)
            actions, beats = await player.improvise(task)
            await player.reset(task)
            await player.repeat(actions[:1])
            await player.call("close")
            again = await player.reset(task)
            require(
                again == first,
                f"{first!r:.120} after a close",
                got=f"{again!r:.120}",
                where=f"reset of task {task.id}",
                mend=mend,
            )
            same("an episode after a close", mend, task, beats, await player.repeat(actions))
    return ""
