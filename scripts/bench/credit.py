"""What credit and losses cost: seconds and memory of each estimator and loss on one large step.

    python scripts/bench/credit.py --json docs/results/bench/credit.json

1,024 trajectories of one row with 4,096 sampled tokens each, in groups of 8: turns of 64 tokens,
rewards in every turn, states that siblings share, a value, an entropy and a reference logprob for
each token. An estimator is timed from the step's groups to its `AdvantageOut`; a loss forward and
backward on `[1024, 4096]` float32 tensors, aggregation and other terms aside. One thread, in CPU
seconds, so that other work on the machine does not count.

Memory is the peak of a process of its own while it works, over what it held before, as a multiple
of the input's bytes: for an estimator the Python objects of the groups and what it needs beside
them; for a loss its tensors. Costs are absolute: there is no peer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any

import measure
import torch
from measure import Report, Spread, forget_peak, peak_mib, show

from agentrl.core.registry import find, names
from agentrl.core.tensors import Siblings
from agentrl.core.types import Group, Score, Scored, Stop, Task, Trajectory, Turn

ROWS, TOKENS, SIBLINGS, PER_TURN = 1024, 4096, 8, 64
WAIT_S = 600.0


def step(rows: int, tokens: int, seed: int, needs: frozenset[str]) -> Scored:
    """A step as the loop hands it to an estimator, with what it needs."""
    rng, draw = Random(seed), torch.Generator().manual_seed(seed)
    task = Task(id="bench", seed=0)

    def floats(low: float, high: float) -> list[float]:
        found: list[float] = torch.empty(tokens).uniform_(low, high, generator=draw).tolist()
        return found

    def trajectory() -> Trajectory:
        ids = torch.randint(0, 32_000, (tokens,), generator=draw).tolist()
        logprobs = floats(-3.0, 0.0)
        turns = tuple(
            Turn(
                prompt_ids=(1,),
                action_ids=tuple(ids[t : t + PER_TURN]),
                sampler_logprobs=tuple(logprobs[t : t + PER_TURN]),
                reward=rng.random(),
                state_key=f"{rng.randrange(32)}",
            )
            for t in range(0, tokens, PER_TURN)
        )
        rewards = tuple(turn.reward for turn in turns)
        success = rng.random() < 0.5
        score = Score(value=sum(rewards) + success, turns=rewards)
        stop = rng.choice((Stop.DONE, Stop.MAX_TURNS))
        return Trajectory(task=task, turns=turns, stop=stop, score=score, success=success)

    groups = tuple(
        Group(
            task=task,
            trajectories=tuple(trajectory() for _ in range(SIBLINGS)),
            greedy=trajectory() if "greedy" in needs else None,
        )
        for _ in range(rows // SIBLINGS)
    )

    def each(name: str, low: float, high: float) -> list[list[list[float]]] | None:
        if name not in needs:
            return None
        return [[floats(low, high) for _ in group.trajectories] for group in groups]

    return Scored(
        groups=groups,
        values=each("values", -1.0, 1.0),
        end_values=[[0.5] * SIBLINGS for _ in groups],
        entropies=each("entropies", 0.0, 0.6),
        ref_logprobs=each("ref_logprobs", -3.0, 0.0),
    )


def bytes_of(found: Scored, needs: frozenset[str]) -> int:
    """Of the objects that an estimator is handed: token ids, logprobs, and what it asks for; tuples
    with their numbers, each counted once."""
    size = 0
    for group in found.groups:
        for t in group.trajectories:
            for turn in t.turns:
                size += sys.getsizeof(turn) + sys.getsizeof(turn.action_ids)
                size += sum(map(sys.getsizeof, turn.action_ids))
                size += sys.getsizeof(turn.sampler_logprobs) + 24 * len(turn.sampler_logprobs)
    for name in ("values", "entropies", "ref_logprobs"):
        if name in needs:
            lists = getattr(found, name)
            size += sum(sys.getsizeof(own) + 24 * len(own) for group in lists for own in group)
    return size


def tensors(rows: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    """What a loss is handed."""
    draw = torch.Generator().manual_seed(seed)
    old = torch.empty(rows, tokens).uniform_(-3.0, 0.0, generator=draw)
    moved = torch.empty(rows, tokens).uniform_(-0.3, 0.3, generator=draw)
    return {
        "logp": (old + moved).requires_grad_(),
        "old_logp": old,
        "advantages": torch.empty(rows, tokens).uniform_(-1.0, 1.0, generator=draw),
        "mask": torch.rand(rows, tokens, generator=draw) < 0.9,
        "trajectory_B": torch.arange(rows),
    }


def of_estimator(name: str, rows: int, tokens: int, repeats: int, seed: int) -> dict[str, Any]:
    """Seconds, peak and input of an estimator."""
    estimator = find("advantage", name)()
    found = step(rows, tokens, seed, estimator.needs)
    return _measured(lambda: estimator(found), bytes_of(found, estimator.needs), repeats)


def of_loss(name: str, rows: int, tokens: int, repeats: int, seed: int) -> dict[str, Any]:
    """The same of a loss and its backward pass."""
    loss, given = find("loss", name)(), tensors(rows, tokens, seed)
    size = sum(value.numel() * value.element_size() for value in given.values())

    def work() -> None:
        given["logp"].grad = None
        if getattr(loss, "whole_groups", False):
            of_groups(loss, given).backward()
        else:
            loss(**given).loss_BT.sum().backward()

    return _measured(work, size, repeats)


def of_groups(loss: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """A loss that compares trajectories, from the same tensors."""
    mask_BT, lengths_B = given["mask"], given["mask"].sum(-1)
    rewards_B = torch.where(mask_BT, given["advantages"], 0.0).sum(-1) / lengths_B
    siblings = Siblings(
        margins_N=torch.where(mask_BT, given["logp"] - given["old_logp"], 0.0).sum(-1),
        rewards_N=rewards_B,
        lengths_N=lengths_B,
        group_N=given["trajectory_B"] // SIBLINGS,
    )
    losses_N, _ = loss(siblings)
    total: torch.Tensor = losses_N.sum()
    return total


def _measured(work: Callable[[], object], size: int, repeats: int) -> dict[str, Any]:
    before = forget_peak()
    work()
    peak = peak_mib() - before
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return {"times": times, "peak_mib": peak, "input_mib": size / 2**20}


def alone(work: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """In a process of its own, so that the peak is this one's."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.apply_async(work, arguments).get(timeout=WAIT_S)


def main() -> None:
    """Measure all of them."""
    options = measure.parser(__doc__ or "", repeats=3)
    options.add_argument("--rows", type=int, default=ROWS, help="default %(default)s")
    options.add_argument("--tokens", type=int, default=TOKENS, help="default %(default)s")
    options.add_argument("--only", action="append", help="a name; may be given several times")
    args: argparse.Namespace = options.parse_args()
    report = Report(bench="credit", arguments=args)
    rows = []
    kinds = {"advantage": of_estimator, "loss": of_loss}
    for slot, work in kinds.items():
        for name in names(slot):
            if args.only and name not in args.only:
                continue
            found = alone(work, name, args.rows, args.tokens, args.repeats, args.seed)
            spent = Spread.of(found["times"])
            ratio = max(found["peak_mib"], 0.0) / found["input_mib"]
            report.case(
                slot=slot,
                name=name,
                seconds=spent,
                input_mib=found["input_mib"],
                memory_ratio=ratio,
            )
            rows.append(
                [slot, name, spent.text(".3f"), f"{found['input_mib']:.0f}", f"{ratio:.2f}"]
            )
    show("Credit", ["slot", "name", "seconds", "input MiB", "peak / input"], rows)
    cases = report.cases
    worst = max(cases, key=lambda case: case["seconds"]["median"])
    report.figure("worst_seconds", worst["seconds"]["median"], "at most 1")
    report.figure("worst_memory_ratio", max(c["memory_ratio"] for c in cases), "at most 4")
    report.finish()


if __name__ == "__main__":
    main()
