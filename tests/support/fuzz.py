"""Episodes at random through the real episode loop, renderer and fold, and what must hold of them.

Replies are any ids that an engine may answer: words, reasoning, bytes that are no text, control
tokens in the middle, cut-offs, an eos where the template ends otherwise. `check` compares what came
out with renderings made here, by the tokenizer's own template and nothing of ours.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import ClassVar, cast

from agentrl.core.protocols import (
    ActionFormat,
    Completion,
    ContextPolicy,
    Env,
    EnvHandle,
    Runner,
    RunsIn,
    Seat,
)
from agentrl.core.types import (
    Finish,
    Forced,
    Fork,
    Group,
    Image,
    Json,
    Message,
    Observation,
    Role,
    Row,
    Score,
    Split,
    Step,
    Task,
    Trajectory,
    Turn,
)
from agentrl.rollout.episode import Episode, Rules, Table
from agentrl.rollout.fold import fold
from agentrl.rollout.rewrites import rewrites
from agentrl.rollout.runners import runner_for
from agentrl.text.actions.hermes import HermesCalls
from agentrl.text.actions.plain import PlainAction
from agentrl.text.context import Full, LastImages, Summary, Window
from agentrl.text.renderer import Template, build_renderer
from support.templates import CONTROLS, STYLES, TAGS, TOKENIZERS, tokenizer_of

WORDS = (
    *(
        "go",
        "Go",
        " forward",
        "left",
        "red ball",
        "\n",
        "  ",
        "é",
        "漢字",
        "🙂",
        "ﬁ",
        "x<y",
        "</",
        "# ",
    ),
    *(
        "[1]",
        "Remember!",
        "### user:",
        "(dropped)",
        "\t",
        "\u200b",
        "\ufdd0",
        "\U0010f000",
        "\U0010f0ff",
    ),
)
TOOLS: list[Json] = [
    {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}
]
CALL = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
CONTEXTS: tuple[ContextPolicy, ...] = (
    *(Full(), Full(), Full(), Window(turns=1), Window(turns=2), LastImages(images=1)),
    *(Summary(turns=1), Summary(turns=2, every=2)),
)


@dataclass(kw_only=True)
class FuzzEnv(Env):
    """Says what its task holds, turn by turn, whatever is done."""

    runs_in: ClassVar[RunsIn] = "inline"

    def tasks(self, split: Split) -> Sequence[Task]:
        return []

    def reset(self, task: Task) -> Observation:
        self._left = list(cast("Sequence[Sequence[Sequence[str]]]", task.data["observations"]))
        return self._next()

    def step(self, action: object) -> Step:
        is_over = not self._left
        seen = Observation("over") if is_over else self._next()
        return Step(observation=seen, reward=0.5, terminated=is_over, info={"success": True})

    def tools(self, task: Task) -> list[Json]:
        return TOOLS

    def _next(self) -> Observation:
        said = self._left.pop(0)
        if len(said) == 1 and said[0][0] == "user":
            return Observation(said[0][1], images=_pictures(said[0][2]))
        messages = [
            Message(role=cast("Role", role), text=text, images=_pictures(names))
            for role, text, names in said
        ]
        return Observation("", messages=tuple(messages))


def _pictures(names: str) -> tuple[Image, ...]:
    return tuple(Image(name.encode()) for name in names)


def noise(rng: Random) -> str:
    """A few words; now and then a control token or a tag spelt out."""
    spelt = (*CONTROLS, *TAGS)
    return "".join(
        rng.choice(spelt) if rng.random() < 0.1 else rng.choice(WORDS)
        for _ in range(rng.randint(0, 5))
    )


@dataclass(kw_only=True)
class FuzzAgent:
    """Answers at random, by the episode's number and the turn; notes what it was shown."""

    renderer: Template
    vocabulary: int
    shown: dict[tuple[int, int], tuple[Message, ...]] = field(default_factory=dict)

    async def act(self, seat: Seat) -> Completion:
        self.shown[seat.episode, seat.turn] = seat.messages
        rng = Random(seat.seed)
        ids = self._ids(rng)
        end = next((i for i, t in enumerate(ids) if t in self.renderer.stop_ids), None)
        ids = ids[: seat.max_tokens if end is None else end + 1]
        forced = None
        if len(ids) > 1 and rng.random() < 0.1:
            closing = self.renderer.encode("\n</think>\n")
            forced = Forced(at=rng.randint(1, len(ids) - (end is not None)), ids=closing)
        return Completion(
            ids=ids,
            logprobs=tuple(-rng.random() for _ in ids),
            finish=Finish.LENGTH if end is None else Finish.EOS,
            versions=((seat.turn, len(ids)),),
            forced=forced,
        )

    def _ids(self, rng: Random) -> tuple[int, ...]:
        stops = sorted(self.renderer.stop_ids)
        end = self.renderer.reply("")[-1:]
        kind = rng.randrange(8)
        if kind == 0:  # anything at all, beyond the tokenizer's last id too
            ids = tuple(rng.randrange(self.vocabulary + 2) for _ in range(rng.randint(1, 8)))
            return (*ids, *end) if rng.random() < 0.5 else ids
        if kind == 1:
            return (rng.choice(stops),)
        if kind == 2:
            return self.renderer.reply(f"<think>\n{noise(rng)}</think>{noise(rng)}{CALL}")
        if kind == 3:
            return (*self.renderer.reply(noise(rng))[:-1], rng.choice(stops))
        if kind == 4:
            return self.renderer.reply(noise(rng) + CALL + CALL)[:-1] or end
        if kind == 5:  # the same words by other tokens
            text = noise(rng) or "go"
            return (*(i for c in text for i in self.renderer.encode(c)), *end)
        return self.renderer.reply(noise(rng))

    async def end(self, episode: int) -> None:
        """Nothing to free."""


@dataclass(kw_only=True)
class Seen:
    """How much was looked at."""

    episodes: int = 0
    branches: int = 0
    turns: int = 0
    tokens: int = 0
    rows: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    """New rows by template style."""
    finishes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.episodes} episodes ({self.branches} branches), {self.turns} turns, "
            f"{self.tokens} sampled tokens, {self.rows} rows, {sum(self.splits.values())} of them "
            f"opened by a rewritten history; {dict(sorted(self.finishes.items()))}"
        )


@cache
def renderer_of(kind: str, style: str) -> Template:
    """A template renderer that also stops at `<|stop|>`, as a generation_config may say."""
    tokenizer = tokenizer_of(kind, style)
    stop = tokenizer.convert_tokens_to_ids("<|stop|>")
    assert isinstance(stop, int)
    return cast("Template", build_renderer("template", tokenizer, frozenset({stop})))


def fuzz(first: int, count: int) -> Seen:
    """Play and check the episodes numbered `first` to `first + count - 1`."""
    return asyncio.run(_fuzz(first, count))


async def _fuzz(first: int, count: int) -> Seen:
    env = FuzzEnv()
    runner = runner_for(env)
    handle = await runner.open(env)
    seen = Seen()
    for number in range(first, first + count):
        kind = TOKENIZERS[number % len(TOKENIZERS)]
        style = list(STYLES)[number // len(TOKENIZERS) % len(STYLES)]
        game = _Game(number, kind, style, runner, handle)
        try:
            group = await game.group()
            check(group, game.agent, game.table, style, is_exact=kind == "byte_level")
        except AssertionError as error:
            raise AssertionError(f"episode {number}, {kind}, {style}: {error}") from error
        _count(seen, group, style)
    await runner.close(handle)
    return seen


class _Game:
    """One task, played once or with a branch."""

    def __init__(
        self, number: int, kind: str, style: str, runner: Runner, handle: EnvHandle
    ) -> None:
        self.number, self.runner, self.handle = number, runner, handle
        self.rng = Random(number)
        self.table, self.task = _setting(self.rng, kind, style)
        renderer = cast("Template", self.table.renderer)
        self.agent = FuzzAgent(renderer=renderer, vocabulary=len(renderer.tokenizer))

    async def group(self) -> Group:
        episodes = [await self.play(0)]
        if self.rng.random() < 0.2:
            fork = Fork(trajectory=0, turn=self.rng.randint(0, len(episodes[0].turns) - 1))
            episodes.append(await self.play(1, (episodes[0], fork)))
        return Group(task=self.task, trajectories=tuple(episodes))

    async def play(self, index: int, fork: tuple[Trajectory, Fork] | None = None) -> Trajectory:
        trajectory = await Episode(
            task=self.task,
            table=self.table,
            agent=self.agent,
            runner=self.runner,
            env=self.handle,
            number=index,
            group=0,
            seed=2 * self.number + index,
            fork=fork,
        ).play()
        assert trajectory.failure is None, trajectory.failure
        return replace(trajectory, score=Score(value=0.0))


def _setting(rng: Random, kind: str, style: str) -> tuple[Table, Task]:
    has_calls = rng.random() < 0.3
    system = noise(rng) if STYLES[style].has_system and rng.random() < 0.5 else ""
    actions: ActionFormat = PlainAction(system=system)
    if has_calls and STYLES[style].has_system:
        actions = HermesCalls(system=system)
    turns = rng.randint(1, 5)
    observations: list[Json] = []
    for k in range(turns):
        text = f"#{k}:{noise(rng)}"
        pictures = "".join(rng.choice("abc") for _ in range(rng.randint(0, 2)))
        said: list[Json] = [["user", text, pictures]]
        if k and STYLES[style].has_tools and rng.random() < 0.3:
            said = [["tool", text, pictures], ["tool", noise(rng), ""]]
        observations.append(said)
    rules = Rules(
        max_turns=6, max_tokens=rng.choice((4, 16, 256)), max_context=100_000, on_invalid="pass"
    )
    table = Table(
        renderer=renderer_of(kind, style),
        context=rng.choice(CONTEXTS),
        actions=actions,
        rules=rules,
    )
    return table, Task(id=f"{kind}/{style}", seed=0, data={"observations": observations})


def _count(seen: Seen, group: Group, style: str) -> None:
    for trajectory in group.trajectories:
        seen.episodes += 1
        seen.branches += trajectory.parent is not None
        seen.turns += len(trajectory.turns)
        seen.tokens += trajectory.n_tokens
        seen.rows += trajectory.turns[-1].row + 1
        seen.splits[style] += trajectory.turns[-1].row
        seen.finishes.update(turn.finish.value for turn in trajectory.turns)


# --- what must hold ------------------------------------------------------------------------------


def check(group: Group, agent: FuzzAgent, table: Table, style: str, *, is_exact: bool) -> None:
    """Every claim of the renderer and of folding, on one task's episodes."""
    rows = fold(group, index=0)
    for index, trajectory in enumerate(group.trajectories):
        check_rows(trajectory, [row for row in rows if row.trajectory == index])
        first = trajectory.parent.turn if trajectory.parent else 0
        for k in range(1, len(trajectory.turns)):
            shown = [
                table.context(agent.shown[0 if k - back < first else index, k - back])
                for back in (1, 0)
            ]
            _check_turn(trajectory.turns, k, shown, table, is_exact=is_exact)
        _check_detector(trajectory.turns, table)
    if not STYLES[style].rewrites and isinstance(table.context, Full):
        _check_that_it_appends(group, cast("Template", table.renderer))


def check_rows(trajectory: Trajectory, rows: Sequence[Row]) -> None:
    """Each sampled token stands in one row, unchanged, behind exactly what the model saw."""
    assert sum(sum(row.mask) for row in rows) == trajectory.n_tokens, "the mask is what was sampled"
    places = [
        (k, row.ids[t], row.sampler_logprobs[t], row.versions[t])
        for row in rows
        for t, k in enumerate(row.turn_of)
        if k >= 0
    ]
    assert places == [
        (k, token, turn.sampler_logprobs[a], turn.versions[0][0])
        for k, turn in enumerate(trajectory.turns)
        for a, token in enumerate(turn.action_ids)
    ], "every sampled token once, in order, with its own logprob"
    for row in rows:
        assert [k >= 0 for k in row.turn_of] == list(row.mask)
    for turn in trajectory.turns:
        saw = turn.prompt_ids + turn.reply_ids
        assert rows[turn.row].ids[: len(saw)] == saw, "the model saw what is trained"


def _said(table: Table, turn: Turn) -> str:
    """The reply and the control token that ended it, as text."""
    renderer = cast("Template", table.renderer)
    last = turn.reply_ids[-1]
    ids = turn.reply_ids[:-1] if last in renderer.stop_ids else turn.reply_ids
    end = str(renderer.tokenizer.decode([last])) if len(ids) < len(turn.reply_ids) else ""
    return str(renderer.tokenizer.decode(list(ids), skip_special_tokens=False)) + end


def rendered(table: Table, messages: Sequence[Message]) -> str:
    """The chat template's text for these messages."""
    renderer = cast("Template", table.renderer)
    chat: list[dict[str, str]] = []
    for message in messages:
        text = message.text
        is_merged = message.role == "tool" and chat and chat[-1].get("was") == "tool"
        if message.role == "tool" and not renderer._has_tool_role and is_merged:
            chat[-1]["content"] += "\n" + text
            continue
        role = "user" if message.role == "tool" and not renderer._has_tool_role else message.role
        chat.append({"role": role, "content": text, "was": message.role})
    tools = None
    if renderer.takes_tools and isinstance(table.actions, HermesCalls):
        tools = [{"type": "function", "function": tool} for tool in TOOLS]
    return str(
        renderer.tokenizer.apply_chat_template(
            chat,
            tools=tools,  # type: ignore[arg-type]
            tokenize=False,
            add_generation_prompt=True,
        )
    )


def _check_turn(
    turns: Sequence[Turn],
    k: int,
    shown: Sequence[Sequence[Message]],
    table: Table,
    *,
    is_exact: bool,
) -> None:
    """The row goes on exactly where the template's text does, and says what the template says."""
    before = rendered(table, shown[0]) + _said(table, turns[k - 1])
    now = rendered(table, shown[1])
    pictures = [[i.hash for m in messages for i in m.images] for messages in shown]
    is_same = now.startswith(before) and pictures[1][: len(pictures[0])] == pictures[0]
    has_same = turns[k].row == turns[k - 1].row  # where spaces are no tokens, ids may go on anyway
    assert has_same == is_same or (has_same and not is_exact), f"turn {k}: {before!r} -> {now!r}"
    if is_exact:
        start = min(j for j, turn in enumerate(turns[: k + 1]) if turn.row == turns[k].row)
        text = _text_of_row(turns[start : k + 1], table)
        assert text == now, f"turn {k} says {text!r}, and the template {now!r}"


def _text_of_row(turns: Sequence[Turn], table: Table) -> str:
    """The last prompt as text, prompt parts and replies decoded apart."""
    decode = cast("Template", table.renderer).tokenizer.decode
    text, done = "", 0
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        text += str(decode(list(turn.prompt_ids[done:])))
        done = len(turn.prompt_ids) + len(turn.reply_ids)
        text += _said(table, turn) if following is not None else ""
    return text


def _check_detector(turns: Sequence[Turn], table: Table) -> None:
    """The first rewrite is laid at the turn in whose words the texts begin to differ."""
    decode = cast("Template", table.renderer).tokenizer.decode
    found = list(rewrites(turns, lambda ids: str(decode(ids))))
    opened = [k for k in range(1, len(turns)) if turns[k].row != turns[k - 1].row]
    assert [rewrite.turn for rewrite in found] == opened
    for rewrite in found[:1]:
        last = turns[rewrite.turn - 1]
        before = str(decode(list(last.prompt_ids + last.reply_ids)))
        now = str(decode(list(turns[rewrite.turn].prompt_ids)))
        at = next(
            (i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(now)
        )
        if rewrite.part == "pictures" or "#0:" not in before:  # a tokenizer of few words
            continue
        begins = range(max(at - len(rewrite.was), 0), at + 1)
        assert any(before.startswith(rewrite.was, begin) for begin in begins), rewrite
        marks = {j: before.find(f"#{j}:") for j in range(len(turns))}
        of = max((j for j, mark in marks.items() if 0 <= mark <= at), default=0)
        is_between = rewrite.part == "prompt" and rewrite.of == of + 1
        assert rewrite.of == of or is_between, (rewrite, before, now)


def _check_that_it_appends(group: Group, renderer: Template) -> None:
    """Only a reply that ended otherwise than the template ends it opens a new row."""
    usual = renderer.end_of_turn
    for trajectory in group.trajectories:
        for turn, following in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            last = turn.reply_ids[-1]
            is_usual = last == usual or last not in renderer.stop_ids
            assert (following.row == turn.row) == is_usual, "an appending template keeps its row"
