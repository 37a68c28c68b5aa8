"""One class of TRL's kind under both trainers: the same replies earn the same rewards."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl.core import registry
from agentrl.core.protocols import Completion, SamplingParams
from agentrl.core.types import Finish, Image
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy
from agentrl.envs.trl_environment.example import Ladder
from agentrl.track.trajectories import EpisodeRecord, read_episodes
from agentrl.train.loop import train
from support.models import logprobs
from support.toolcalls import calling_policy, written
from support.whole_runs import tiny

pytestmark = pytest.mark.trl

SEEDS, SIBLINGS, STEPS = (3, 4), 4, 2


def reply(shown: str, sibling: int) -> str:
    """At the first turn odd siblings give up and the third asks for too much; whoever goes on
    climbs to the target and says so."""
    if "<|im_start|>assistant" not in shown.removesuffix("<|im_start|>assistant\n"):
        if sibling % 2:
            return "I give up"
        if sibling == 2:
            return written("add", amount=9)
    now, target = map(int, re.findall(r"You are at (\d+)\. Reach (\d+)", shown)[-1])
    if now >= target:
        return "done"
    return written("double") if 2 * now <= target else written("add", amount=1)


def earned(sibling: int) -> float:
    return float(sibling % 2 == 0)


@dataclass(kw_only=True)
class Parrot(Generate):
    """Says what `reply` says, with the module's own logprobs."""

    _tokens: Any = field(default=None, init=False, repr=False, compare=False)

    async def start(self, policy: Any) -> None:
        self._tokens = policy.tokenizer
        await super().start(policy)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        assert self._policy is not None
        text = reply(self._tokens.decode(list(prompt_ids)), episode % 1000)
        ids = self._tokens.encode(f"{text}<|im_end|>", add_special_tokens=False)
        with torch.no_grad():
            logp = logprobs(self._policy.module, [*prompt_ids, *ids])[-len(ids) :]
        return Completion(
            ids=tuple(ids),
            logprobs=tuple(logp.tolist()),
            finish=Finish.EOS,
            versions=((self._version, len(ids)),),
        )


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> LoadedPolicy:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    registry.names("engine")
    monkeypatch.setitem(registry._parts, "engine", {**registry._parts["engine"], "parrot": Parrot})
    ladder = Ladder()
    dialogue = [("You are at 1. Reach 5.", written("add", amount=1)), ("error 9", "I give up")]
    return calling_policy([ladder.add, ladder.double], [dialogue], steps=0)


def under_trl(policy: LoadedPolicy) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Rewards in the order of rows, and the batches that were trained on."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    trainer: Any = GRPOTrainer(
        model=policy.module,  # type: ignore[arg-type]
        processing_class=policy.tokenizer,
        environment_factory=Ladder,
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": ""}], "seed": seed} for seed in SEEDS]
        ),
        args=GRPOConfig(
            output_dir="never-written",
            per_device_train_batch_size=len(SEEDS) * SIBLINGS,
            num_generations=SIBLINGS,
            max_completion_length=600,
            max_steps=STEPS,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            activation_checkpointing=False,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    batches: list[dict[str, torch.Tensor]] = []

    def said(prompts: list[list[int]], *_: object, **__: object) -> tuple[list[list[int]], None]:
        """In place of the model's own replies; the first turn has all rows, in order."""
        texts = [str(policy.tokenizer.decode(ids)) for ids in prompts]
        replies = [reply(text, i % SIBLINGS) for i, text in enumerate(texts)]
        return [
            policy.tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False)
            for text in replies
        ], None

    generate = trainer._generate_and_score_completions

    def generated(inputs: object) -> dict[str, torch.Tensor]:
        batches.append(generate(inputs))
        return batches[-1]

    trainer._generate_single_turn, trainer._generate_and_score_completions = said, generated
    trainer.train()
    vars(policy.module).pop("forward", None)
    return list(trainer._logs["rewards"]["Ladder"]), batches


def under_ours(policy: LoadedPolicy, folder: Path) -> list[EpisodeRecord]:
    """The episodes of every step, in order."""
    model, rows = folder / "model", folder / "rows.jsonl"
    policy.save(model)
    rows.write_text("\n".join(json.dumps({"seed": seed}) for seed in range(40)), encoding="utf-8")
    config = tiny(
        folder,
        f"env={{name: trl_environment, rows: {rows}}}",
        "actions=hermes",
        "rollout.on_invalid=pass",
        "rollout.max_turns=16",
        f"rollout.group_size={SIBLINGS}",
        "sampling.max_tokens=60",
        "engine=parrot",
        f"run.steps={STEPS}",
        "eval={every: 0, final_tasks: 0}",
        model=str(model),
    )
    run = train(config)
    paths = sorted((run / "trajectories").glob("train-*"))
    assert len(paths) == STEPS
    return [episode for path in paths for episode in read_episodes(path)]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_class_earns_the_same_under_both_trainers(policy: LoadedPolicy, tmp_path: Path) -> None:
    before = [p.detach().clone() for p in policy.module.parameters()]
    ours = under_ours(policy, tmp_path)
    theirs, batches = under_trl(policy)
    assert len(ours) == STEPS * 2 * SIBLINGS
    assert [episode.reward for episode in ours] == [earned(episode.sibling) for episode in ours]
    assert theirs == [earned(i % SIBLINGS) for i in range(len(SEEDS) * SIBLINGS)]
    # ours: reward 1, 0, 1, 0 in each group; so is the credit
    sign_B = torch.tensor([1.0, -1.0] * SIBLINGS)
    assert all(torch.equal(batch["advantages"].sign(), sign_B) for batch in batches)
    calls = [turn for e in ours for turn in e.turns if str(turn.action).startswith("{")]
    assert sum(turn.invalid for turn in calls) == STEPS * 2 < len(calls)
    assert {episode.stop for episode in ours} == {"done"}
    after = list(policy.module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
