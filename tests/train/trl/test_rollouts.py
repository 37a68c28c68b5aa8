"""Our worker under stock `GRPOTrainer`: what was sampled, masked and paid here is what TRL uses."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl.core.config import Config
from agentrl.core.errors import ConfigError, DataError, TrainingError
from agentrl.core.types import Task
from agentrl.engines.policy import LoadedPolicy
from agentrl.train.trl import env_score, rollout_func, task_dataset
from agentrl.train.trl.dataset import task_of
from agentrl.train.trl.rollouts import Rollouts
from support.envs import EchoEnv
from support.models import tiny_policy
from support.whole_runs import tiny, training_envs

__all__ = ["training_envs"]

pytestmark = [pytest.mark.trl, pytest.mark.usefixtures("training_envs")]

TASKS, SIBLINGS, STEPS = 2, 4, 2


@dataclass
class Seen:
    """What went in and out of TRL at each of its generations."""

    rollouts: list[dict[str, list[Any]]] = field(default_factory=list)
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    logprobs: list[torch.Tensor] = field(default_factory=list)


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedPolicy]:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    policy = tiny_policy()
    yield policy
    vars(policy.module).pop("forward", None)


def stock(policy: LoadedPolicy, rollouts: Rollouts, config: Config, **settings: Any) -> Any:
    """A stock trainer; `seen` is noted beside it, nothing of it is replaced."""
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer(
        model=policy.module,  # type: ignore[arg-type]
        processing_class=policy.tokenizer,
        reward_funcs=env_score,
        rollout_func=rollouts,
        train_dataset=task_dataset(config.env, count=8),
        args=GRPOConfig(
            output_dir="never-written",
            per_device_train_batch_size=TASKS * SIBLINGS,
            num_generations=SIBLINGS,
            max_steps=STEPS,
            learning_rate=1e-3,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            activation_checkpointing=False,
            **settings,
        ),
    )


def watched(trainer: Any, seen: Seen) -> None:
    """Keep what `rollout_func` answered, what TRL made of it, and its own view of the tokens."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    play, generate = trainer.rollout_func, trainer._generate_and_score_completions

    def rollout(prompts: object, trainer: object) -> dict[str, list[Any]]:
        answer: dict[str, list[Any]] = play(prompts, trainer)
        seen.rollouts.append(answer)
        return answer

    def generated(inputs: object) -> dict[str, torch.Tensor]:
        out: dict[str, torch.Tensor] = generate(inputs)
        seen.batches.append(out)
        with torch.no_grad():
            ids = torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1)
            attended = torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1)
            width = out["completion_ids"].shape[1]
            logp, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, attended, width
            )
        seen.logprobs.append(logp)
        return out

    trainer.rollout_func, trainer._generate_and_score_completions = rollout, generated


def test_stock_grpo_trains_on_our_tokens_mask_and_rewards(
    tmp_path: Path, policy: LoadedPolicy
) -> None:
    config, seen = tiny(tmp_path), Seen()
    before = [p.detach().clone() for p in policy.module.parameters()]
    with rollout_func(config) as rollouts:
        trainer = stock(policy, rollouts, config)
        watched(trainer, seen)
        trainer.train()
    assert len(seen.rollouts) == len(seen.batches) == STEPS
    for answer, batch, logp_BT in zip(seen.rollouts, seen.batches, seen.logprobs, strict=True):
        assert len(answer["score"]) == TASKS * SIBLINGS
        mask_BT = (batch["completion_mask"] * batch["tool_mask"]).bool()
        for i, (ids, mask) in enumerate(
            zip(answer["completion_ids"], answer["env_mask"], strict=True)
        ):
            assert batch["completion_ids"][i, : len(ids)].tolist() == ids
            assert mask_BT[i].nonzero()[:, 0].tolist() == [t for t, m in enumerate(mask) if m]
            # EchoEnv speaks between two replies, so the mask has a hole
            assert 0 in mask[: max(t for t, m in enumerate(mask) if m)]
            sampled = torch.tensor(answer["logprobs"][i])[torch.tensor(mask, dtype=torch.bool)]
            torch.testing.assert_close(logp_BT[i][mask_BT[i]], sampled, rtol=0, atol=1e-4)
        rewards = torch.tensor(answer["score"]).view(TASKS, SIBLINGS)
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        expected = centred / (rewards.std(dim=1, keepdim=True) + 1e-4)
        torch.testing.assert_close(batch["advantages"], expected.flatten(), rtol=1e-4, atol=1e-5)
        assert (rewards > 0).any()
    last = [*trainer._logs["rewards"]["env_score"]][-TASKS * SIBLINGS :]
    assert last == pytest.approx(seen.rollouts[-1]["score"])
    log = [line for line in trainer.state.log_history if "reward" in line]
    assert [line["reward"] for line in log] == pytest.approx(
        [sum(answer["score"]) / (TASKS * SIBLINGS) for answer in seen.rollouts]
    )
    assert all("rollout/success" in line for line in log)
    after = list(policy.module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_same_tasks_are_played_anew_at_each_step_and_alike_in_each_run(
    tmp_path: Path, policy: LoadedPolicy
) -> None:
    config = tiny(tmp_path)
    with rollout_func(config) as first, rollout_func(config) as second:
        trainer = stock(policy, first, config)
        prompts = [trainer.train_dataset[0]["prompt"]] * 2
        answers = [first(prompts, trainer), first(prompts, trainer), second(prompts, trainer)]
    assert answers[0] == answers[2]
    assert answers[0]["completion_ids"] != answers[1]["completion_ids"]


def test_a_failed_episode_is_left_out_of_trl_s_statistics(
    tmp_path: Path, policy: LoadedPolicy
) -> None:
    # Four envs take two steps each and break at the third, in their second episode.
    half = ("env=bad", "env.after=2", "rollout.max_turns=2", "rollout.in_flight=4")
    config, seen = tiny(tmp_path, *half), Seen()
    with rollout_func(config) as rollouts:
        trainer = stock(policy, rollouts, config)
        watched(trainer, seen)
        inputs = [trainer.train_dataset[0]] * SIBLINGS + [trainer.train_dataset[1]] * SIBLINGS
        trainer.model.train()
        trainer._generate_and_score_completions([dict(row) for row in inputs])
    [answer], [batch] = seen.rollouts, seen.batches
    failed = [i for i, score in enumerate(answer["score"]) if score is None]
    assert len(failed) == TASKS * SIBLINGS // 2
    assert all(answer["env_mask"][i] == [0] for i in failed)
    assert (batch["advantages"][failed] == 0).all()
    assert trainer.model.training


@pytest.mark.parametrize(
    ("overrides", "settings", "error", "problem"),
    [
        (["sampling.temperature=0.5"], {}, ConfigError, "set both alike"),
        (["context={name: window, turns: 1}", "env.length=3"], {}, DataError, "use context=full"),
        (["env=bad"], {}, TrainingError, "every one of 8 episodes failed.*the dog ate the world"),
    ],
)
def test_what_trl_cannot_hold_is_refused(
    tmp_path: Path,
    policy: LoadedPolicy,
    overrides: list[str],
    settings: dict[str, object],
    error: type[Exception],
    problem: str,
) -> None:
    config = tiny(tmp_path, *overrides)
    with rollout_func(config) as rollouts:
        trainer = stock(policy, rollouts, config, **settings)
        with pytest.raises(error, match=problem):
            trainer.train()


def test_a_dataset_carries_its_tasks() -> None:
    env = EchoEnv()
    rows = task_dataset(env, "dev", 3, prompt="Play. ", system="Be brief.")
    tasks = env.tasks("dev")
    assert [task_of(row["prompt"]) for row in rows] == list(tasks[:3])
    assert rows["task_id"][:] == [task.id for task in tasks[:3]]
    assert [m["content"] for m in rows[0]["prompt"]] == ["Be brief.", "Play. "]
    assert len(task_dataset(env, "dev")) == len(tasks)
    with pytest.raises(ConfigError, match="asked for 999 tasks of split 'dev'"):
        task_dataset(env, "dev", 999)


def test_a_task_goes_there_and_back_whatever_it_holds() -> None:
    task = Task(id="x", seed=2**62, answer=None, data={"deep": [{"a": None, "b": [1.5, "é"]}]})

    class Env(EchoEnv):
        def tasks(self, split: str) -> list[Task]:
            return [task]

    assert task_of(task_dataset(Env())[0]["prompt"]) == task


@pytest.mark.parametrize("prompt", ["x", [], [{"role": "user", "content": "x"}]])
def test_a_prompt_of_another_dataset_is_refused(prompt: object) -> None:
    with pytest.raises(DataError, match=r"task_dataset\(env\)"):
        task_of(prompt)
    assert json.dumps(prompt)
