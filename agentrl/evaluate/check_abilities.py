"""Checks of the optional methods; an env that lacks them skips these."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from random import Random
from typing import cast

from agentrl.core.types import Action, Task
from agentrl.evaluate.check_player import (
    TURNS,
    TURNS_S,
    Beat,
    Bench,
    CheckFailedError,
    CheckSkippedError,
    Player,
    Shown,
    ended,
    require,
    same,
)

EXPERT_RATE = 0.8
"""Share of tasks that an expert must solve."""
JSON_TYPES = {"string", "number", "integer", "boolean", "array", "object", "null"}
TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


async def snapshot_equals_replay(bench: Bench) -> str:
    """What follows a restore is what followed the snapshot, and what a replay gives."""
    bench.need("snapshot", "restore")
    mend = "save in snapshot, and set in restore, all that step and the other methods read"
    async with bench.player() as player, bench.player() as other:
        for task in bench.tasks:
            prefix = await _advance(player, task)
            saved, key = await player.call("snapshot"), await player.state_key()
            actions, beats = await player.improvise(task)
            await player.reset(bench.tasks[-1])
            await player.call("restore", saved)
            restored = await player.state_key()
            require(
                restored == key,
                f"restore to bring back the state key {key!r:.80}",
                got=f"{restored!r:.80}",
                where=f"{len(prefix)} turns into task {task.id}",
                mend=mend,
            )
            same("the episode after a restore", mend, task, beats, await player.repeat(actions))
            await other.reset(task)
            await other.repeat(prefix)
            replayed = await other.repeat(actions)
            same("a replay from reset, as after the snapshot,", mend, task, beats, replayed)
    return f"{len(bench.tasks)} tasks"


async def restore_leaves_the_snapshot_alone(bench: Bench) -> str:
    """A snapshot can be restored again and again, whatever was played from it."""
    bench.need("snapshot", "restore")
    async with bench.player() as player:
        for task in bench.tasks:
            await _advance(player, task)
            saved = await player.call("snapshot")
            await player.call("restore", saved)
            actions, beats = await player.improvise(task)
            await player.call("restore", saved)
            same(
                "a second restore of one snapshot",
                "copy lists and dicts in restore instead of taking the snapshot's own",
                task,
                beats,
                await player.repeat(actions),
            )
    return f"{len(bench.tasks)} tasks"


async def _advance(player: Player, task: Task) -> list[Action]:
    """Play into a task, half of it or three turns; the actions that lead there."""
    await player.reset(task)
    actions, _ = await player.improvise(task, 2 * 3)
    prefix = actions[: len(actions) // 2]
    await player.reset(task)
    await player.repeat(prefix)
    return prefix


async def state_keys_tell_states_apart(bench: Bench) -> str:
    """Keys are strings, and starts that look different have different ones."""
    bench.need("state_key")
    mend = "build the key from everything that makes states differ"
    starts: dict[object, tuple[Shown, Task]] = {}
    keys = set[object]()
    async with bench.player() as player:
        for task in bench.tasks:
            shown, key = await player.reset(task), await player.state_key()
            require(
                isinstance(key, str),
                "state_key() to return a str",
                got=f"{type(key).__name__} {key!r:.80}",
                where=f"the start of task {task.id}",
                mend="join what the state consists of, or take a hexdigest of it",
            )
            other, other_task = starts.setdefault(key, (shown, task))
            require(
                other == shown,
                "different keys for starts that look different",
                got=f"the key {key!r:.80} for both",
                where=f"tasks {other_task.id} and {task.id}",
                mend=mend,
            )
            keys |= {key, *_distinct(task, (await player.improvise(task))[1], mend)}
    return f"{len(keys)} keys"


def _distinct(task: Task, beats: Sequence[Beat], mend: str) -> set[object]:
    """The keys of an episode, which changes them where it changes what is shown."""
    looks, keys = {beat.observation for beat in beats}, {beat.state_key for beat in beats}
    require(
        len(keys) > 1 or len(looks) < 3,
        "keys that change with the state",
        got=f"one key for {len(looks)} different observations",
        where=f"an episode of task {task.id}",
        mend=mend,
    )
    return keys


async def looking_changes_nothing(bench: Bench) -> str:
    """What may be asked between steps can be asked twice and leaves the episode as it is."""
    calls: dict[str, tuple[object, ...]] = {
        "state_key": (),
        "legal_actions": (),
        "expert_action": (),
        "snapshot": (),
    }
    asked = [verb for verb in calls if verb in bench.able]
    if not asked:
        raise CheckSkippedError("there is nothing to ask")
    mend = "let it read the state without changing it, drawing from a random.Random of its own"
    async with bench.player() as player, bench.player() as other:
        for task in bench.tasks:
            await player.reset(task)
            actions, beats = await player.improvise(task)
            await other.reset(task)
            seen: list[Beat] = []
            for action in actions:
                if seen and ended(seen[-1]):
                    break
                for verb in asked:
                    answers = [await other.call(verb) for _ in range(2)]
                    require(
                        verb == "snapshot" or answers[0] == answers[1],
                        f"{verb}() to answer {answers[0]!r:.80} again",
                        got=f"{answers[1]!r:.80}",
                        where=f"turn {len(seen)} of task {task.id}",
                        mend=mend,
                    )
                seen.append(await other.echo(action))
            same(f"an episode with {', '.join(asked)} asked in between", mend, task, beats, seen)
    return ", ".join(asked)


async def the_expert_solves_tasks(bench: Bench) -> str:
    """Following `expert_action` leads to success."""
    bench.need("expert_action")
    played = [episode for episode in await bench.played() if episode.by_expert]
    unsolved = [e.task.id for e in played if not e.steps[-1].info.get("success", False)]
    turns = sum(len(e.steps) for e in played) / len(played)
    solved = f"{len(played) - len(unsolved)} of {len(played)} tasks"
    require(
        len(unsolved) <= (1 - EXPERT_RATE) * len(played) + 1e-9,
        f"the expert to solve {EXPERT_RATE:.0%} of its tasks",
        got=f"{solved}, not {', '.join(unsolved[:5])}",
        mend="raise the env's limit of steps, or give this setting no expert_action",
    )
    return f"{solved} in {turns:.3g} turns each"


async def expert_actions_are_valid(bench: Bench) -> str:
    """No action of the expert is reported invalid."""
    bench.need("expert_action")
    turns = 0
    for task, by_expert, _, steps in await bench.played():
        for turn, step in enumerate(steps if by_expert else ()):
            require(
                not step.info.get("invalid_action"),
                "an expert whose actions are valid",
                got="info['invalid_action'] for one of them",
                where=f"turn {turn} of task {task.id}",
                mend="let expert_action() spell actions as step() wants them",
            )
            turns += 1
    return f"{turns} actions"


async def legal_actions_are_valid(bench: Bench) -> str:
    """No action that `legal_actions` names is reported invalid, and there is always one."""
    bench.need("legal_actions")
    turns, until = 0, time.monotonic() + TURNS_S * len(bench.tasks)
    async with bench.player() as player:
        for task in bench.tasks:
            rng, is_over = Random(task.id), False
            await player.reset(task)
            while not is_over and turns < TURNS * len(bench.tasks) and time.monotonic() < until:
                legal = cast("Sequence[object]", await player.call("legal_actions"))
                require(
                    legal and all(isinstance(a, str | list) for a in legal),
                    "legal_actions() to name actions until the episode is over",
                    got=f"{legal!r:.80}",
                    where=f"turn {turns} of task {task.id}",
                    mend="name what makes sense now, as strings; end the episode if nothing does",
                )
                action = cast("str", rng.choice(legal))
                step = await player.step(action)
                require(
                    not step.info.get("invalid_action"),
                    f"legal_actions() to name what step takes, such as {action!r}",
                    got="info['invalid_action'] for it",
                    where=f"task {task.id}",
                    mend="let both read one table of actions",
                )
                turns += 1
                is_over = ended(step)
    return f"{turns} actions"


async def tools_are_json_schemas(bench: Bench) -> str:
    """`tools(task)` lists functions with a name and JSON-schema parameters."""
    bench.need("tools")
    names: set[str] = set()
    async with bench.player() as player:
        for task in bench.tasks:
            await player.reset(task)
            tools = await player.call("tools", task)
            where = f"tools of task {task.id}"
            try:
                json.dumps(tools, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise _no_tool(str(error), where) from error
            if not isinstance(tools, list):
                raise _no_tool(f"{tools!r:.120}", where)
            mine = [_tool_name(tool, where) for tool in tools]
            if len(set(mine)) < len(mine):
                raise _no_tool(f"the names {', '.join(mine)}", where)
            names.update(mine)
    return ", ".join(sorted(names))


def _tool_name(tool: object, where: str) -> str:
    """The name of a tool (bare, or wrapped as {"type": "function", "function": ...})."""
    spec = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(spec, Mapping):
        raise _no_tool(f"{tool!r:.120}", where)
    name, schema = spec.get("name"), spec.get("parameters", {"type": "object"})
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise _no_tool(f"the name {name!r:.80}", where)
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or schema.get("type") != "object":
        raise _no_tool(f"parameters {schema!r:.120}", f"{where}, {name}")
    for key, value in properties.items():
        kinds = value.get("type", "string") if isinstance(value, Mapping) else "no schema"
        if not set([kinds] if isinstance(kinds, str) else kinds) <= JSON_TYPES:
            raise _no_tool(f"{value!r:.120} for {key!r}", f"{where}, {name}")
    missing = set(schema.get("required", ())) - set(properties)
    if missing:
        raise _no_tool(
            f"required {', '.join(sorted(missing))} without property", f"{where}, {name}"
        )
    return name


def _no_tool(got: str, where: str) -> CheckFailedError:
    return CheckFailedError(
        "a list of tools with unique names and parameters that are JSON schemas of type object",
        got=got,
        where=where,
        mend='write {"name": ..., "description": ..., "parameters": {"type": "object", '
        '"properties": {...}, "required": [...]}}',
    )


async def goals_hold_or_not(bench: Bench) -> str:
    """`check(goal)` answers True, False or None (cannot tell), whatever the goal is."""
    bench.need("check")
    told: set[object] = set()
    async with bench.player() as player:
        for task in bench.tasks:
            await player.reset(task)
            for goal in ("", "no such goal", task.instruction):
                answer = await player.call("check", goal)
                require(
                    answer is None or isinstance(answer, bool),
                    "True, False or None",
                    got=f"{type(answer).__name__} {answer!r:.80}",
                    where=f"check({goal!r:.80}) in task {task.id}",
                    mend="answer None to goals that the env does not know",
                )
                told.add(answer)
    return f"answers {', '.join(sorted(map(str, told)))}"
