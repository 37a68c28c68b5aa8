"""Rollout speed: the embedded engine against one `model.generate` for each turn, as TRL does it.

    python scripts/bench/engine.py --json docs/results/bench/engine.json

Both arms replay the same seeded episodes on the same float32 model: 64 in groups of 8, prompts of
100-140 tokens shared in a group, replies of forced length (geometric, mean 12, cut at 1-64; the end
of a reply is never sampled), observations of 25-55 tokens, an env without latency. They sample at
temperature 1. Useful tokens are the sampled ones that stay in an episode.

The peer is a re-creation of what `GRPOTrainer` of TRL 1.16 does in `_generate_single_turn` and
`_tool_call_loop`: the whole history left-padded, one `generate` with a DynamicCache for each turn,
all rows to the longest, what comes after a row's end cut off. It leaves out TRL's templates,
parsing and metrics, and has no logprobs to give; TRL's own trainer stands beside it in one row. In
the row with latency the peer's tools are async, so that it waits once a turn; its sync tools would
wait once for each episode.

The bound is the arithmetic of every distinct token once at the rate of a 1024^3 GEMM, and keys and
values read once for each sampled token at the rate of a long sum, both measured in the same run.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import measure
import torch
from measure import Report, Spread, interleaved, need, ratios, show
from subjects import (
    Script,
    build,
    gemm_flops_per_s,
    read_bytes_per_s,
    rollout_bound,
    scripts,
)
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from agentrl.core import registry
from agentrl.core.protocols import Engine, SamplingParams
from agentrl.engines.policy import LoadedPolicy

LONGEST = 64
"""Most tokens of a reply."""
GOALS = {2: 2.0, 4: 4.0, 8: 6.0}
"""Turns -> the ratio to reach with models up to 4M; larger ones are to reach 2.5 at 2 turns."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of the table."""

    size: str = "0.65M"
    turns: int = 4
    episodes: int = 64
    group_size: int = 8
    threads: int = 1
    latency_s: float = 0.0
    uniform: bool = False
    samples: bool = False
    """Replies end where a stop id is sampled, not where the script says."""
    own: bool = False
    """TRL's own trainer runs beside the two."""
    about: str = ""


@dataclass
class Played:
    """What one arm did."""

    seconds: float
    tokens: int
    """Sampled tokens that stay in an episode."""

    @property
    def pace(self) -> float:
        """Useful tokens a second."""
        return self.tokens / self.seconds


# --- the peer -------------------------------------------------------------------------------------


class Forced(StoppingCriteria):
    """Ends row b after `lengths[b]` tokens."""

    def __init__(self, width: int, lengths: Sequence[int]) -> None:
        self.width, self.lengths_B = width, torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Which rows are done."""
        return input_ids.shape[1] - self.width >= self.lengths_B


def generate_per_turn(policy: LoadedPolicy, played: Sequence[Script], case: Case) -> Played:
    """The re-creation of TRL's loop."""
    module: Any = policy.module
    end, pad = int(policy.tokenizer.eos_token_id), int(policy.tokenizer.pad_token_id)
    settings = GenerationConfig(
        max_new_tokens=LONGEST,
        do_sample=True,
        pad_token_id=pad,
        eos_token_id=[end],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        disable_compile=True,
    )
    histories = [list(script.prompt) for script in played]
    began, tokens = time.perf_counter(), 0
    for turn in range(case.turns):
        width = max(map(len, histories))
        ids_BT = torch.full((len(histories), width), pad)
        seen_BT = torch.zeros_like(ids_BT)
        for i, history in enumerate(histories):
            ids_BT[i, width - len(history) :] = torch.tensor(history)
            seen_BT[i, width - len(history) :] = 1
        forced = [Forced(width, [script.replies[turn] for script in played])]
        with torch.no_grad():
            out_BT = module.generate(
                input_ids=ids_BT,
                attention_mask=seen_BT,
                generation_config=settings,
                stopping_criteria=StoppingCriteriaList([] if case.samples else forced),
            )
        for i, (script, row) in enumerate(zip(played, out_BT[:, width:].tolist(), strict=True)):
            length = row.index(end) + 1 if end in row else len(row)
            reply = row[: length if case.samples else script.replies[turn]]
            tokens += len(reply)
            histories[i] += reply
            if turn < case.turns - 1:
                histories[i] += script.observations[turn]
        if turn < case.turns - 1:
            time.sleep(case.latency_s)
    return Played(time.perf_counter() - began, tokens)


# --- ours -----------------------------------------------------------------------------------------


def embedded(name: str, policy: LoadedPolicy, played: Sequence[Script], case: Case) -> Played:
    """Episodes side by side on an engine; opening it is not timed, filling it is."""
    engine: Engine = registry.find("engine", name)()
    stop_ids = frozenset({int(policy.tokenizer.eos_token_id)})
    tokens = 0

    async def episode(number: int, script: Script) -> None:
        nonlocal tokens
        history = script.prompt
        for turn in range(case.turns):
            params = SamplingParams(
                max_tokens=LONGEST if case.samples else script.replies[turn],
                stop_ids=stop_ids,
                seed=number * 1000 + turn,
            )
            reply = await engine.generate(history, params, episode=number, group=script.group)
            tokens += len(reply.ids)
            if turn < case.turns - 1:
                await asyncio.sleep(case.latency_s)
                history = history + reply.ids + script.observations[turn]
        await engine.end(number)

    async def play() -> float:
        await engine.start(policy)
        try:
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number, script in enumerate(played):
                    group.create_task(episode(number, script))
            return time.perf_counter() - began
        finally:
            await engine.close()

    return Played(asyncio.run(play()), tokens)


@dataclass
class Anatomy:
    """What the model's forward did in one rollout."""

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    _began: float = field(default=0.0, repr=False)


@contextmanager
def watched(module: torch.nn.Module) -> Iterator[Anatomy]:
    """Counts and times the forward passes of a module."""
    found = Anatomy()

    def before(_: object, arguments: tuple[object, ...], named: dict[str, object]) -> None:
        ids = named.get("input_ids", arguments[0] if arguments else None)
        found.calls += 1
        found.tokens += ids.numel() if isinstance(ids, torch.Tensor) else 0
        found._began = time.perf_counter()

    def after(*_: object) -> None:
        found.seconds += time.perf_counter() - found._began

    hooks = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


# --- TRL's own trainer ----------------------------------------------------------------------------


class Replayed:
    """An environment of TRL's kind that says what a script says, in words."""

    texts: Sequence[Sequence[str]] = ()
    """Observations of each script."""

    def reset(self, script: int = 0, **_: object) -> None:
        """Begin a script; its prompt is the dataset's."""
        self._script, self._turn = script, 0

    def act(self, action: str) -> str:
        """Act.

        Args:
            action: anything.

        Returns:
            What the script says next.
        """
        self._turn += 1
        return self.texts[self._script][self._turn - 1]

    def get_reward(self) -> float:
        """Nothing depends on it."""
        return float(self._script % 2)


class OwnTrainer:
    """`GRPOTrainer`'s rollout, stock but for the forced lengths, which `generate` is given.

    TRL cuts a reply behind its first end token; rows that are done are filled with it, so one token
    less is forced, and the fill makes up for it.
    """

    def __init__(self, policy: LoadedPolicy, played: Sequence[Script], case: Case) -> None:
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer

        tokenizer = policy.tokenizer
        tokenizer.pad_token = tokenizer.eos_token
        texts = [[str(tokenizer.decode(list(o[1:-1]))) for o in s.observations] for s in played]
        self.rows: list[dict[str, object]] = [
            {
                "prompt": [
                    {"role": "user", "content": str(tokenizer.decode(list(s.prompt[1:-1])))}
                ],
                "script": i,
            }
            for i, s in enumerate(played)
        ]
        self.played, self.turn = played, 0
        module: Any = policy.module
        self.trainer = cast("Any", GRPOTrainer)(
            model=module,
            processing_class=tokenizer,
            environment_factory=type("Env", (Replayed,), {"texts": texts}),
            train_dataset=Dataset.from_list(self.rows),
            args=GRPOConfig(
                output_dir="never-written",
                per_device_train_batch_size=len(played),
                num_generations=case.group_size,
                max_completion_length=4000,
                max_tool_calling_iterations=case.turns - 1,
                generation_kwargs={"max_new_tokens": LONGEST},
                max_steps=1,
                report_to="none",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                activation_checkpointing=False,
            ),
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        self._rollout, self.trainer._generate = self.trainer._generate, self._timed
        self._generate, module.generate = module.generate, self._forced
        self.found = Played(0.0, 0)

    def _forced(self, **arguments: Any) -> torch.Tensor:
        width = arguments["input_ids"].shape[1]
        lengths = [max(script.replies[self.turn] - 1, 1) for script in self.played]
        self.turn += 1
        stops = StoppingCriteriaList([Forced(width, lengths)])
        out: torch.Tensor = self._generate(**arguments, stopping_criteria=stops)
        return out

    def _timed(self, prompts: object) -> tuple[Any, ...]:
        began = time.perf_counter()
        out: tuple[Any, ...] = self._rollout(prompts)
        tokens = sum(map(sum, out[2]))
        self.found = Played(time.perf_counter() - began, tokens)
        return out

    def __call__(self) -> Played:
        """One rollout: templates, generation, parsing, tools and TRL's metrics."""
        self.turn = 0
        self.trainer._generate_and_score_completions([dict(row) for row in self.rows])
        if self.turn != len(self.played[0].replies):
            sys.exit(f"TRL's trainer played {self.turn} turns: the comparison is off")
        return self.found


# --- the cases ------------------------------------------------------------------------------------


def cases(threads: int, *, full: bool) -> list[Case]:
    """The sizes and turns of the goals, then one change at a time from a smaller base."""
    plain = [
        *(Case(size="0.65M", turns=turns) for turns in (2, 4, 8)),
        *(Case(size="4M", turns=turns) for turns in ((2, 4, 8) if full else (2, 4))),
    ]
    if full:
        plain += [
            *(Case(size="33M", turns=turns, episodes=16) for turns in (2, 4)),
            *(Case(size="90M", turns=turns, episodes=8) for turns in (2, 4)),
        ]
    base = Case(episodes=32, about="base of the rows below", own=True)
    other = 2 if threads == 1 else 1
    return [
        *(replace(case, threads=threads) for case in plain),
        replace(base, threads=threads),
        replace(base, threads=threads, own=False, group_size=1, about="no shared prompts"),
        replace(base, threads=threads, own=False, latency_s=0.05, about="env takes 50 ms a turn"),
        replace(base, threads=threads, own=False, uniform=True, about="every reply has 12 tokens"),
        replace(base, threads=threads, own=False, samples=True, about="real stop ids"),
        replace(base, threads=other, own=False, about=f"{other} thread(s)"),
    ]


def run(case: Case, engine: str, seed: int, repeats: int, report: Report) -> list[str]:
    """Measure one case; its row of the table."""
    torch.set_num_threads(case.threads)
    ends = 12.0 if case.samples else None
    policy = build(case.size, seed=seed, ends=ends)
    played = scripts(
        policy.tokenizer,
        seed=seed,
        episodes=case.episodes,
        group_size=case.group_size,
        turns=case.turns,
        uniform=case.uniform,
    )
    short = replace(case, turns=2, latency_s=0.0)
    generate_per_turn(policy, played[:8], short)
    embedded(engine, policy, played[:8], short)
    done: dict[str, list[Played]] = {}

    def arm(name: str, play: Callable[[], Played]) -> Callable[[], float]:
        def once() -> float:
            done.setdefault(name, []).append(play())
            return 1 / done[name][-1].pace

        return once

    arms = {
        "peer": arm("peer", lambda: generate_per_turn(policy, played, case)),
        "ours": arm("ours", lambda: embedded(engine, policy, played, case)),
    }
    if case.own:
        own = OwnTrainer(build(case.size, seed=seed), played, case)
        arms["own"] = arm("own", own)
    peaks: list[tuple[float, float]] = []

    def probe() -> float:
        peaks.append((gemm_flops_per_s(), read_bytes_per_s()))
        return 0.0

    arms["probe"] = probe
    times = interleaved(arms, repeats)
    check_tokens(case, done, played)
    bound_s = rollout_bound(policy, played).seconds(*map(max, zip(*peaks, strict=True)))
    with watched(policy.module) as anatomy:
        whole = embedded(engine, policy, played, case)
    gap = Spread.of([p.seconds / bound_s for p in done["ours"]])
    found = {
        "ratio": ratios(times["peer"], times["ours"]),
        "tokens_per_s_ours": Spread.of([p.pace for p in done["ours"]]),
        "tokens_per_s_peer": Spread.of([p.pace for p in done["peer"]]),
        **({} if case.samples else {"bound_gap": gap}),
        **({"ratio_to_own_trainer": ratios(times["own"], times["ours"])} if case.own else {}),
    }
    report.case(
        **vars(case),
        parameters=policy.parameter_count(),
        useful_tokens=done["ours"][0].tokens,
        bound_s=bound_s,
        gemm_gflops=max(p[0] for p in peaks) / 1e9,
        read_gb_per_s=max(p[1] for p in peaks) / 1e9,
        forwards=anatomy.calls,
        tokens_forwarded=anatomy.tokens,
        forward_share=anatomy.seconds / whole.seconds,
        **found,
    )
    return [
        f"{case.size} {case.turns} turns {case.episodes}/{case.group_size} {case.about}",
        found["ratio"].text(),
        found["ratio_to_own_trainer"].text() if case.own else "",
        f"{found['tokens_per_s_ours'].median:.0f}",
        f"{found['tokens_per_s_peer'].median:.0f}",
        "" if case.samples else f"{gap.median:.1f}",
        f"{anatomy.calls} x {anatomy.tokens / max(anatomy.calls, 1):.0f}",
        f"{anatomy.seconds / whole.seconds:.0%}",
    ]


def check_tokens(case: Case, done: dict[str, list[Played]], played: Sequence[Script]) -> None:
    """Leave unless the arms sampled as many tokens (TRL's own may be off by one a reply)."""
    wanted = sum(script.useful for script in played)
    exact = [p.tokens for name in ("peer", "ours") for p in done[name]]
    if not case.samples and set(exact) != {wanted}:
        sys.exit(f"expected {wanted} tokens in both arms, got {exact}: the comparison is off")
    slack = case.turns * case.episodes
    if any(abs(p.tokens - wanted) > slack for p in done.get("own", ())):
        sys.exit(f"TRL's trainer sampled {done['own'][0].tokens} tokens, not {wanted}")


def main() -> None:
    """Measure every case and name the figures."""
    options = measure.parser(__doc__ or "", threads=2)
    options.add_argument("--engine", default="transformers", help="ours (default %(default)s)")
    options.add_argument("--only", type=int, metavar="N", help="only the first N cases")
    arguments = options.parse_args()
    need("trl", "1.16")
    report = Report(bench="engine", arguments=arguments)
    chosen = cases(arguments.threads, full=arguments.full)[: arguments.only]
    rows = []
    for case in chosen:
        rows.append(run(case, arguments.engine, arguments.seed, arguments.repeats, report))
        show("So far", ["case", "ratio"], [rows[-1][:2]])
    show(
        "Useful tokens a second, ours over generate-per-turn",
        [
            "case",
            "ratio",
            "to TRL's own",
            "ours tok/s",
            "peer tok/s",
            "bound gap",
            "forwards",
            "in them",
        ],
        rows,
    )
    goals = [c for c in report.cases if not c["about"]]
    for turns, goal in GOALS.items():
        found = [c["ratio"]["median"] for c in goals if c["turns"] == turns and small(c)]
        if found:
            report.figure(f"ratio_{turns}_turns", min(found), f"at least {goal:g}")
    large = [c["ratio"]["median"] for c in goals if c["turns"] == 2 and not small(c)]
    if large:
        report.figure("ratio_2_turns_30m_to_90m", min(large), "at least 2.5")
    report.figure("bound_gap", max(c["bound_gap"]["median"] for c in goals))
    report.finish()


def small(case: dict[str, Any]) -> bool:
    """Of 0.6M to 4M parameters."""
    return case["size"] in ("0.65M", "4M")


if __name__ == "__main__":
    main()
