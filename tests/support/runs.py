"""A run folder as a finished run leaves it, made in a second, for whoever reads runs.

Nothing is learned here. Episodes walk a little text world whose words are the tokens, so that
prompts, masks, rows and advantages fit together as in a real run.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

from agentrl.core.types import (
    Failure,
    Finish,
    Group,
    Image,
    Score,
    Stop,
    Task,
    Trajectory,
    Turn,
)
from agentrl.evaluate.statistics import append_eval, summarise
from agentrl.track.jsonl import JsonLines
from agentrl.track.trajectories import EpisodeRecord, Phase, record, write_episodes

ACTIONS = ("go forward", "turn left", "turn right", "pick up", "toggle")
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
THINGS = ("ball", "box", "key")
END = "<end>"

CONFIG = """\
run:
  name: quickstart
  folder: runs/quickstart
  seed: 1
  steps: 50
  deterministic: true
model:
  hidden: 128
  layers: 2
env:
  name: babyai
  level: GoToObj
renderer: plain
engine: generate
sampling:
  temperature: 1.0
  max_tokens: 4
rollout:
  tasks_per_step: 16
  group_size: 8
  max_turns: 16
advantage:
  name: grpo
  eps: 0.0001
loss: ppo_clip
kl: none
optim:
  lr: 0.0005
eval:
  every: 10
  split: dev
  tasks: 100
  samples: 1
track:
- console
- jsonl
"""


class Words:
    """Words and line ends as tokens: enough of a tokenizer to write and read prompts."""

    def __init__(self) -> None:
        self.words = [END]

    def ids(self, text: str) -> tuple[int, ...]:
        """Each word with the space before it, each line end alone."""
        pieces: list[str] = []
        for line in text.splitlines(keepends=True):
            words = line.rstrip("\n").split(" ")
            pieces += [word if i == 0 else f" {word}" for i, word in enumerate(words) if i or word]
            pieces += ["\n"] if line.endswith("\n") else []
        for piece in pieces:
            if piece not in self.words:
                self.words.append(piece)
        return tuple(self.words.index(piece) for piece in pieces)

    def piece(self, token: int) -> str:
        """The text of one id."""
        return self.words[token]


def png(width: int, height: int, seed: int = 0) -> bytes:
    """A real PNG: a room of coloured tiles."""
    rng = Random(seed)
    colours = [bytes(rng.randrange(40, 230) for _ in range(3)) for _ in range(4)]
    rows = b"".join(
        b"\0" + b"".join(colours[(x // 16 + y // 16 + seed) % 4] for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def episode(
    words: Words,
    task: Task,
    *,
    seed: int,
    success: bool = True,
    n_turns: int = 4,
    invalid_turn: int | None = None,
    rewrites_at: int | None = None,
    has_images: bool = False,
) -> Trajectory:
    """An episode of `n_turns` turns that reach the goal, or run out of turns.

    `rewrites_at` is the turn whose prompt forgets the history, which opens a second row.
    """
    rng = Random(seed)
    row: tuple[int, ...] = ()
    row_number = 0
    turns = []
    pixels = {}
    for index in range(n_turns):
        sight = f"{rng.choice(COLOURS)} {rng.choice(THINGS)} {rng.randint(1, 4)} steps ahead"
        text = f"\nyou see a {sight} and a wall {rng.randint(1, 5)} to the left\nact:"
        if index in (0, rewrites_at):
            row, row_number = (), row_number + (index == rewrites_at and index > 0)
            text = f"goal: {task.instruction}{text}"
        prompt = row + words.ids(text)
        is_invalid = index == invalid_turn
        action = "dance a little" if is_invalid else rng.choice(ACTIONS)
        sampled = (*words.ids(f" {action}"), 0)
        row = prompt + sampled
        shown: tuple[str, ...] = ()
        if has_images:
            image = Image(png(96, 96, seed=seed * 31 + index))
            pixels[image.hash] = image
            shown = (image.hash,)
        last = index == n_turns - 1
        turns.append(
            Turn(
                prompt_ids=prompt,
                action_ids=sampled,
                sampler_logprobs=tuple(round(math.log(rng.uniform(0.2, 1)), 6) for _ in sampled),
                row=row_number,
                reward=round(1 - 0.9 * n_turns / 16, 4) if success and last else 0.0,
                state_key=f"{rng.getrandbits(32):08x}",
                images=shown,
                action=None if is_invalid else action,
                invalid=is_invalid,
                finish=Finish.STOP if not is_invalid else Finish.LENGTH,
            )
        )
    total = sum(turn.reward for turn in turns)
    return Trajectory(
        task=task,
        turns=tuple(turns),
        stop=Stop.DONE if success else Stop.MAX_TURNS,
        score=Score(value=total, parts={"env": total}),
        success=success,
        seconds=0.2 * n_turns,
        pixels=pixels,
    )


def broken(task: Task) -> Trajectory:
    """An episode whose env hung before its first turn."""
    failure = Failure(where="env", error="step did not answer within 30.0 s")
    return Trajectory(task=task, turns=(), stop=Stop.TIMEOUT, failure=failure, seconds=30.0)


def task(number: int) -> Task:
    """The number-th task of the little world."""
    rng = Random(number)
    goal = f"go to the {rng.choice(COLOURS)} {rng.choice(THINGS)}"
    return Task(id=f"GoToObj-{number}", seed=number, instruction=goal)


def groups(words: Words, *, tasks: int, samples: int, rate: float, seed: int) -> list[Group]:
    """Groups of which a share `rate` of the episodes succeeds, and one episode in 100 breaks."""
    rng = Random(seed)
    made = []
    for number in range(tasks):
        siblings = []
        for sibling in range(samples):
            if rng.random() < 0.01:
                siblings.append(broken(task(number)))
                continue
            success = rng.random() < rate
            one = episode(
                words,
                task(number),
                seed=seed * 1000 + number * 10 + sibling,
                success=success,
                n_turns=rng.randint(2, 6) if success else 16,
                invalid_turn=1 if rate < 1 and rng.random() < 0.2 else None,
            )
            siblings.append(one)
        made.append(Group(task=task(number), trajectories=tuple(siblings)))
    return made


def advantages(group: Group) -> list[list[list[float]] | None]:
    """`[trajectory][turn][token]`: reward minus the group's mean, over its spread."""
    rewards = [t.score.value for t in group.trajectories if t.score and t.is_scored]
    mean = math.fsum(rewards) / len(rewards) if rewards else 0.0
    spread = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / max(1, len(rewards))) or 1.0
    return [
        [[(t.score.value - mean) / spread] * len(turn.action_ids) for turn in t.turns]
        if t.score
        else None
        for t in group.trajectories
    ]


def records(
    words: Words, made: Sequence[Group], *, phase: Phase, label: str, step: int
) -> list[EpisodeRecord]:
    """Every episode of the groups, with advantages if they were trained on."""
    kept = []
    for number, group in enumerate(made):
        for sibling, (one, credit) in enumerate(
            zip(group.trajectories, advantages(group), strict=True)
        ):
            kept.append(
                record(
                    one,
                    phase=phase,
                    label=label,
                    step=step,
                    group=number,
                    sibling=sibling,
                    piece=words.piece,
                    advantages=credit if phase == "train" else None,
                )
            )
    return kept


def write_metrics(folder: Path, steps: int) -> None:
    """Curves of the usual shape: success and reward rise, entropy falls, the rest is noise."""
    rng = Random(7)
    sink = JsonLines()
    sink.open(folder, "quickstart", steps)
    for step in range(1, steps + 1):
        done = 1 - math.exp(-step / 12)
        success = min(1.0, max(0.0, 0.45 + 0.5 * done + rng.gauss(0, 0.04)))
        sink.log(
            step,
            {
                "rollout/success": success,
                "rollout/reward": 0.75 * success + rng.gauss(0, 0.02),
                "rollout/turns": 9 - 5 * done + rng.gauss(0, 0.3),
                "rollout/tokens": 27 - 15 * done + rng.gauss(0, 1),
                "rollout/invalid": 0.05 * (1 - done),
                "rollout/truncated": 0.3 * (1 - done) + abs(rng.gauss(0, 0.02)),
                "episodes/failed_env": float(rng.random() < 0.2),
                "episodes/failed_engine": float(step == 7) * 3,
                "episodes/failed_reward": 0.0,
                "episodes/unscored": 0.0,
                "groups/dropped": float(rng.randrange(3)),
                "env/steps": 8 - 5 * done + rng.gauss(0, 0.3),
                "mismatch/gap": abs(rng.gauss(2e-3, 5e-4)),
                "mismatch/ess": 0.97 - abs(rng.gauss(0, 0.01)),
                "mismatch/capped": abs(rng.gauss(2e-3, 5e-4)),
                "groups/frac_zero_std": min(1.0, 0.1 + 0.5 * done + rng.gauss(0, 0.03)),
                "loss/policy": rng.gauss(0, 0.02),
                "loss/entropy": 0.9 - 0.6 * done + rng.gauss(0, 0.02),
                "loss/kl": 0.001 + 0.02 * done + abs(rng.gauss(0, 0.002)),
                "loss/clip_high": abs(rng.gauss(0.02, 0.01)),
                "loss/clip_low": abs(rng.gauss(0.01, 0.005)),
                "loss/ratio": 1 + rng.gauss(0, 0.004),
                "loss/grad_norm": math.nan if step == 3 else abs(rng.gauss(0.8, 0.2)),
                "optim/lr": 5e-4 * min(1, step / 3),
                "time/step_s": 2.9 - done + rng.gauss(0, 0.1),
                "time/rollout_s": 1.5 - 0.7 * done + rng.gauss(0, 0.1),
                "time/update_s": 1.1 + rng.gauss(0, 0.05),
                "time/env_s": 0.5 - 0.2 * done + rng.gauss(0, 0.03),
                "time/tokens_per_s": 900 + rng.gauss(0, 60),
            },
        )
    sink.close()


def write_evals(folder: Path, words: Words, steps: int) -> None:
    """Floor, ceiling, both warm starts, evaluations during training, and the end."""
    named = (("random", 0, 0.07), ("expert", 0, 1.0), ("sft_double", 0, 0.62), ("sft", 0, 0.45))
    during = [
        (("step"), step, 0.45 + 0.5 * (1 - math.exp(-step / 12))) for step in range(0, steps, 10)
    ]
    for name, step, rate in (*named, *during, ("final", steps, 0.93)):
        split = "dev" if name == "step" else "test"
        played = groups(words, tasks=200, samples=1, rate=rate, seed=step + 3)
        append_eval(folder, summarise(name, played, step=step, split=split, seconds=4.2))  # type: ignore[arg-type]


def write_run(folder: Path, *, steps: int = 50, has_images: bool = False) -> Path:
    """A whole run folder: config, versions, metrics, evaluations, episodes, summary."""
    folder.mkdir(parents=True, exist_ok=True)
    words = Words()
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    versions = {"agentrl": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"}
    (folder / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    write_metrics(folder, steps)
    write_evals(folder, words, steps)
    for step in (1, steps):
        played = groups(words, tasks=4, samples=8, rate=0.5 if step == 1 else 0.8, seed=step)
        write_episodes(
            folder / "trajectories" / f"train-{step:06d}.parquet",
            records(words, played, phase="train", label="step", step=step),
        )
    played = groups(words, tasks=30, samples=1, rate=0.9, seed=99)
    played += [
        Group(
            task=task(100 + index),
            trajectories=(
                episode(
                    words,
                    task(100 + index),
                    seed=index,
                    success=index > 0,
                    n_turns=5,
                    invalid_turn=2,
                    rewrites_at=3,
                    has_images=has_images,
                ),
            ),
        )
        for index in range(2)
    ]
    write_episodes(
        folder / "trajectories" / "eval-final.parquet",
        records(words, played[::-1], phase="eval", label="final", step=steps),
    )
    summary = [
        {
            "seed": 1,
            "success_random": 0.07,
            "success_expert": 1.0,
            "success_sft": 0.45,
            "success_sft_double_demos": 0.62,
            "success_final": 0.93,
            "tasks": 200,
            "seconds": 171.3,
        }
    ]
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder
