"""Training speed and exactness: the token trie against padded rows.

    python scripts/bench/trie.py --json docs/results/bench/trie.json

The peer is `scorer=padded`, which leaves out the padding mask that causal models do not need, so
that attention skips the future; the speed-up over padded rows with a mask, as most trainers have
them, stands beside. Both score the same rows (forward, then the backward pass of a weighted sum
of logprobs), cut into micro-batches of at most 16,384 tokens by themselves, as in training. Three
workloads, each with two sizes of a float32 model with random weights and 4,096 words:

- `turns`: 8 trajectories of 6 turns behind one prompt of 200 tokens, apart from turn 1 on;
- `tree`: 16 trajectories of 8 turns, one trunk that forks before turns 2, 4, 5 and 7;
- `prompt`: 8 short completions (30-70 tokens) of one prompt of 1,000 tokens.

Turns have 20-60 sampled tokens and 30-90 observed ones. The bound is the ratio of FLOPs: linear
layers on every token that an arm computes, the head on every position whose logits it computes,
attention over causal pairs (of the padded width) or over pairs of a token and its ancestors. The
share of the bound is the speed-up over that ratio.

Differences are the largest of a logprob, and of a gradient over the largest gradient. In float64
(an RMS norm that stays in float64 put in place of the model's, which rounds to float32) the trie is
compared with rows computed one by one, without batch and padding. The memory of `dfs` and of padded
rows is the peak of a process of its own, beyond the loaded model, on the tree in one piece.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

import measure
import torch
from measure import (
    Report,
    Spread,
    forget_peak,
    interleaved,
    peak_mib,
    ratios,
    seconds,
    show,
)
from subjects import build, linear_flops

from agentrl.core import registry
from agentrl.core.protocols import Scorer
from agentrl.core.types import Row
from agentrl.engines.policy import LoadedPolicy
from agentrl.train.trie.forest import Forest, Wanted

WORKLOADS = ("turns", "tree", "prompt")
BUDGET = 16384
VOCABULARY = 4096
WAIT_S = 300.0


# --- rows -----------------------------------------------------------------------------------------


def rows_of(workload: str, seed: int) -> list[Row]:
    """The rows of a group."""
    rng = Random(f"{workload} {seed}")

    def some(low: int, high: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(low, high))]

    def grown(row: list[tuple[int, bool]], turns: int) -> list[tuple[int, bool]]:
        row = list(row)
        for _ in range(turns):
            row += [(token, True) for token in some(20, 60)]
            row += [(token, False) for token in some(30, 90)]
        return row

    prompt = [
        (token, False) for token in some(*((1000, 1000) if workload == "prompt" else (200, 200)))
    ]
    if workload == "prompt":
        return [_row([*prompt, *((token, True) for token in some(30, 70))]) for _ in range(8)]
    if workload == "turns":
        return [_row(grown(prompt, 6)) for _ in range(8)]
    branches = [prompt]
    for turn in range(1, 9):
        if turn in (2, 4, 5, 7):
            branches = [branch for branch in branches for _ in range(2)]
        branches = [grown(branch, 1) for branch in branches] if turn > 1 else [grown(prompt, 1)]
    return [_row(branch) for branch in branches]


def _row(tokens: Sequence[tuple[int, bool]]) -> Row:
    mask = tuple(is_sampled for _, is_sampled in tokens)
    return Row(
        ids=tuple(token for token, _ in tokens),
        mask=mask,
        inherited=(False,) * len(mask),
        sampler_logprobs=(0.0,) * len(mask),
        turn_of=tuple(0 if m else -1 for m in mask),
        versions=tuple(0 if m else -1 for m in mask),
        trajectory=0,
        group=0,
    )


def weights_of(row: Row) -> torch.Tensor:
    """What the loss multiplies each logprob with, decided by the row alone."""
    generator = torch.Generator().manual_seed(hash(row.ids) % 2**31)
    return torch.randn(len(row.ids), generator=generator, dtype=torch.float64)


# --- one pass -------------------------------------------------------------------------------------


def passed(scorer: Scorer, module: torch.nn.Module, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Forward and backward; the rows' logprobs. Gradients are left in the module."""
    module.zero_grad()
    found: dict[int, torch.Tensor] = {}
    for part in scorer.split(rows, BUDGET):
        logp_BT = scorer.score(module, [rows[i] for i in part]).logp_BT
        loss = logp_BT.new_zeros(())
        for i, logp_T in zip(part, logp_BT, strict=True):
            loss = loss + (logp_T[: len(rows[i].ids)] * weights_of(rows[i])).sum()
            found[i] = logp_T[: len(rows[i].ids)].detach()
        loss.backward()
    return [found[i] for i in range(len(rows))]


def alone(module: torch.nn.Module, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The same row by row, by a plain forward pass."""
    module.zero_grad()
    found = []
    for row in rows:
        ids_1T, mask_T = torch.tensor([row.ids]), torch.tensor(row.mask)
        logp_TV = module(input_ids=ids_1T, use_cache=False).logits[0, :-1].log_softmax(-1)
        logp_T = torch.zeros(len(row.ids), dtype=logp_TV.dtype)
        logp_T[1:] = logp_TV.gather(1, ids_1T[0, 1:, None])[:, 0]
        logp_T = logp_T * mask_T
        (logp_T * weights_of(row)).sum().backward()
        found.append(logp_T.detach())
    return found


def gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    """Copies."""
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def apart(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    """The largest difference."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


class ExactNorm(torch.nn.Module):
    """RMSNorm in the precision of its input."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, float(norm.variance_epsilon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Along the last axis."""
        out: torch.Tensor = x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight
        return out


def in_float64(policy: LoadedPolicy) -> torch.nn.Module:
    """The module in float64, norms included."""
    module = policy.module.double()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, ExactNorm(child))
    return module


# --- the bound ------------------------------------------------------------------------------------


def flop_ratio(module: Any, rows: Sequence[Row]) -> dict[str, float]:
    """FLOPs of padded rows over those of the tree, and what they are made of."""
    config = module.config
    body, head = linear_flops(module)
    pair = 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    tokens = logits = pairs = 0
    for part in registry.find("scorer", "padded")().split(rows, BUDGET):
        width = max(len(rows[i].ids) for i in part)
        columns = {t for i in part for t, m in enumerate(rows[i].mask) if m}
        tokens, logits = tokens + len(part) * width, logits + len(part) * len(columns)
        pairs += len(part) * width * (width + 1) // 2
    forest = Forest.of(rows)
    distinct, ancestors = len(forest.ids_T), int(forest.depth_T.sum()) + len(forest.ids_T)
    parents = len(Wanted.of(rows, forest).parents_R)
    of_padded = tokens * body + logits * head + pairs * pair
    of_tree = distinct * body + parents * head + ancestors * pair
    return {
        "tokens_padded": tokens,
        "tokens_real": sum(len(row.ids) for row in rows),
        "tokens_distinct": distinct,
        "pairs_padded_per_tree": pairs / ancestors,
        "flop_ratio": of_padded / of_tree,
    }


# --- memory ---------------------------------------------------------------------------------------


def _child(name: str, size: str, seed: int, threads: int, line: Any) -> None:
    torch.set_num_threads(threads)
    policy = build(size, seed=seed, vocabulary=VOCABULARY, plain=True)
    scorer: Scorer = registry.find("scorer", "trie")(executor=name)
    if name == "padded":
        scorer = registry.find("scorer", "padded")()
        scorer.check(policy.module)
    rows = rows_of("tree", seed)
    passed(scorer, policy.module, [_row([(1, False), (2, True)])])
    policy.module.zero_grad()
    idle = forget_peak()
    loss = scorer.score(policy.module, rows).logp_BT.sum()
    loss.backward()
    line.send(peak_mib() - idle)


def memory_mib(name: str, arguments: argparse.Namespace, size: str) -> float:
    """Peak of one pass over the tree in one piece, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(
        target=_child, args=(name, size, arguments.seed, arguments.threads, its)
    )
    process.start()
    its.close()
    try:
        if not mine.poll(WAIT_S):
            raise TimeoutError(f"{name}: no figure within {WAIT_S:g} s")
        return float(mine.recv())
    finally:
        process.kill()
        process.join()


# --- the cases ------------------------------------------------------------------------------------


def run(size: str, workload: str, arguments: argparse.Namespace, report: Report) -> dict[str, Any]:
    """One workload with one size."""
    policy = build(size, seed=arguments.seed, vocabulary=VOCABULARY, plain=True)
    module, rows = policy.module, rows_of(workload, arguments.seed)
    padded, masked = (cast("Scorer", registry.find("scorer", "padded")()) for _ in range(2))
    padded.check(module)
    trie: Scorer = registry.find("scorer", "trie")(executor="segment")
    expected, wanted = passed(padded, module, rows), gradients(module)
    found, got = passed(trie, module, rows), gradients(module)
    largest = max(float(g.abs().max()) for g in wanted)

    def timed(scorer: Scorer) -> Callable[[], float]:
        return lambda: seconds(lambda: passed(scorer, module, rows))

    arms = {"masked": timed(masked), "padded": timed(padded), "trie": timed(trie)}
    times = interleaved(arms, arguments.repeats)
    bound = flop_ratio(module, rows)
    speedup = ratios(times["padded"], times["trie"])
    case: dict[str, Any] = {
        "size": size,
        "workload": workload,
        "parameters": policy.parameter_count(),
        **bound,
        "speedup": speedup,
        "speedup_over_masked": ratios(times["masked"], times["trie"]),
        "share_of_bound": speedup.median / bound["flop_ratio"],
        "seconds_masked": Spread.of(times["masked"]),
        "seconds_padded": Spread.of(times["padded"]),
        "seconds_trie": Spread.of(times["trie"]),
        "logprob_diff": apart(expected, found),
        "rel_grad_diff": apart(wanted, got) / largest,
    }
    report.case(**case)
    return case


def exact(workload: str, seed: int) -> tuple[float, float]:
    """Differences of logprobs and gradients in float64."""
    policy = build("0.65M", seed=seed, vocabulary=VOCABULARY, plain=True)
    module, rows = in_float64(policy), rows_of(workload, seed)
    expected, wanted = alone(module, rows), gradients(module)
    found = passed(registry.find("scorer", "trie")(executor="segment"), module, rows)
    largest = max(float(g.abs().max()) for g in wanted)
    return apart(expected, found), apart(wanted, gradients(module)) / largest


def main() -> None:
    """Measure the six cases, float64 and memory, and name the figures."""
    options = measure.parser(__doc__ or "", threads=2)
    options.add_argument("--sizes", nargs="+", default=["0.65M", "4M"], help="of models")
    options.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    arguments = options.parse_args()
    if arguments.full:
        arguments.sizes = [*arguments.sizes, "12M", "33M"]
    report = Report(bench="trie", arguments=arguments)
    torch.set_num_threads(arguments.threads)
    found = [run(s, w, arguments, report) for s in arguments.sizes for w in arguments.workloads]
    show(
        "Forward and backward, padded seconds over the trie's",
        [
            "case",
            "speed-up",
            "over masked",
            "FLOP ratio",
            "share",
            "padded s",
            "trie s",
            "logprobs",
            "gradients",
        ],
        [
            [
                f"{c['size']} {c['workload']}",
                c["speedup"].text(),
                f"{c['speedup_over_masked'].median:.2f}",
                f"{c['flop_ratio']:.2f}",
                f"{c['share_of_bound']:.0%}",
                f"{c['seconds_padded'].median:.2f}",
                f"{c['seconds_trie'].median:.2f}",
                f"{c['logprob_diff']:.1e}",
                f"{c['rel_grad_diff']:.1e}",
            ]
            for c in found
        ],
    )
    doubles = [exact(workload, arguments.seed) for workload in arguments.workloads]
    memory = {
        name: memory_mib(name, arguments, arguments.sizes[len(arguments.sizes) > 1])
        for name in ("padded", "segment", "dfs")
    }
    report.case(workload="tree", size=arguments.sizes[len(arguments.sizes) > 1], peak_mib=memory)
    show("Peak on the tree", ["scorer", "MiB"], [[k, f"{v:.0f}"] for k, v in memory.items()])
    report.figure("max_abs_logprob_diff", max(c["logprob_diff"] for c in found), "at most 1e-5")
    report.figure("max_rel_grad_diff", max(c["rel_grad_diff"] for c in found), "at most 1e-4")
    report.figure("max_abs_logprob_diff_float64", max(d[0] for d in doubles), "at most 1e-12")
    report.figure("max_rel_grad_diff_float64", max(d[1] for d in doubles), "at most 1e-12")
    report.figure("share_of_bound", min(c["share_of_bound"] for c in found), "at least 0.85")
    report.figure("dfs_memory_ratio", memory["dfs"] / memory["padded"], "at most 0.125")
    report.finish()


if __name__ == "__main__":
    main()
