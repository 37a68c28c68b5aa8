"""The critic: what it reads, what it learns, what it refuses, and that a resumed run keeps it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agentrl.algo.advantages.token_gae import TokenGae
from agentrl.core.critic import Critic as Settings
from agentrl.core.errors import CheckpointError, ConfigError, TrainingError
from agentrl.core.types import AdvantageOut, Fork, Group, Level, Score, Stop, Trajectory, Turn
from agentrl.rollout.fold import fold
from agentrl.rollout.share import Solo
from agentrl.train.critic import Critic, aimed, build_critic, check_critic, clipped_error
from agentrl.train.kl_reward import scored_step
from agentrl.train.loop import train
from agentrl.train.prepare import TrainRow
from support.credit import TASK
from support.same import differences
from support.stopping import stopped, stopping_sink
from support.trees import model
from support.whole_runs import column, tiny, training_envs

__all__ = ["stopping_sink", "training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
GAE = ("advantage=token_gae", "critic.lr=3e-2", "critic.epochs=2")
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false")
KEPT = ("checkpoint.every=1", "checkpoint.keep=9", "run.steps=4", "eval.every=2")

FIRST = Turn(prompt_ids=(1,), action_ids=(5, 6), sampler_logprobs=(0.0, 0.0))
A = Trajectory(
    task=TASK,
    turns=(FIRST, Turn(prompt_ids=(1, 9), action_ids=(7,), sampler_logprobs=(0.0,), row=1)),
    stop=Stop.MAX_TURNS,
    score=Score(value=1.0, turns=(0.25, 0.75)),
)
B = Trajectory(
    task=TASK,
    turns=(FIRST, Turn(prompt_ids=(1, 5, 6, 3, 4), action_ids=(8,), sampler_logprobs=(0.0,))),
    stop=Stop.DONE,
    score=Score(value=0.0),
    parent=Fork(0, 1),
)
C = Trajectory(task=TASK, turns=(), stop=Stop.MAX_TOKENS, score=Score(value=0.5))
D = Trajectory(task=TASK, turns=(FIRST,), stop=Stop.ERROR)
GROUP = Group(task=TASK, trajectories=(A, B, C, D))


def rows_of(group: Group = GROUP) -> list[TrainRow]:
    return [TrainRow.blank(row) for row in fold(group, index=0)]


def critic(folder: Path, *overrides: str) -> Critic:
    """A critic on a tiny trunk, whose head is not blank any more."""
    made = build_critic(tiny(folder, *GAE, *overrides), model())
    assert made is not None
    with torch.no_grad():
        torch.manual_seed(0)
        made.model.head.weight.normal_()
    return made


# --- what it reads --------------------------------------------------------------------------------


def test_a_new_critic_says_0_and_leaves_the_policy_alone(tmp_path: Path) -> None:
    policy = model()
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    made = build_critic(tiny(tmp_path, *GAE), policy)
    assert made is not None
    valued = made.valued(rows_of())
    assert {value for item in valued for value in item.values or ()} == {0.0}
    made.fit([[replace(item, targets=(1.0,) * len(item.row.ids)) for item in valued]])
    assert all(torch.equal(before[name], weight) for name, weight in policy.state_dict().items())
    assert any(value for item in made.valued(rows_of()) for value in item.values or ())


def test_the_value_of_a_token_is_read_before_it(tmp_path: Path) -> None:
    made = critic(tmp_path)
    for item in made.valued(rows_of()):
        ids_1T = torch.tensor([item.row.ids])
        behind = made.model(ids_1T, torch.ones_like(ids_1T))[0].tolist()
        assert item.values == pytest.approx([0.0, *behind[:-1]], abs=1e-4)
        assert item.value_after == pytest.approx(behind[-1], abs=1e-4)


def test_padding_and_neighbours_change_no_value(tmp_path: Path) -> None:
    made = critic(tmp_path)
    together = made.valued(rows_of())
    for item, alone in zip(together, [made.valued([row])[0] for row in rows_of()], strict=True):
        assert item.values == pytest.approx(alone.values, abs=1e-4)
        assert item.value_after == pytest.approx(alone.value_after, abs=1e-4)


def test_an_estimator_sees_the_values_of_sampled_tokens_and_what_lies_behind_the_last_row(
    tmp_path: Path,
) -> None:
    valued = critic(tmp_path).valued(rows_of())
    step, _ = scored_step([GROUP], valued, kl=None, share=Solo(), needs=frozenset({"values"}))
    first, second, third = valued
    assert first.values
    assert second.values
    assert third.values
    assert step.values == [
        [
            [*first.values[1:3], second.values[2]],
            [*third.values[1:3], third.values[5]],
            [],
            [],
        ]
    ]
    assert step.end_values == [[second.value_after, third.value_after, 0.0, 0.0]]
    noisy = [
        replace(
            item,
            values=tuple(
                v if is_sampled else 9.0
                for v, is_sampled in zip(item.values or (), item.row.mask, strict=True)
            ),
        )
        for item in valued
    ]
    again, _ = scored_step([GROUP], noisy, kl=None, share=Solo(), needs=frozenset({"values"}))
    assert TokenGae()(again) == TokenGae()(step)


# --- what it learns -------------------------------------------------------------------------------


def test_targets_go_to_the_tokens_and_shared_ones_get_the_mean_once() -> None:
    out = AdvantageOut(
        values=((0.0, 0.0, 0.0, None),),
        level=Level.TRAJECTORY,
        returns=(([1.0, 2.0, 3.0], [3.0, math.nan, 5.0], [], None),),
        keep=(((False,) * 3, (False,) * 3, (), None),),
    )
    found = [item.targets for item in aimed(rows_of(), [GROUP], out)]
    nan = math.nan
    assert found[0] == pytest.approx((nan, 2.0, nan), nan_ok=True)
    assert found[1] == pytest.approx((nan, nan, 3.0), nan_ok=True)
    assert found[2] == pytest.approx((nan, nan, nan, nan, nan, 5.0), nan_ok=True)
    untouched = aimed(rows_of(), [GROUP], replace(out, returns=None))
    assert [item.targets for item in untouched] == [None] * 3


def test_the_loss_is_the_worse_of_free_and_clipped() -> None:
    value = torch.tensor([1.0, 0.3, -1.0, 0.2])
    target = torch.tensor([1.0, 1.0, 1.0, 0.2])
    loss, is_clipped = clipped_error(value, torch.zeros(4), target, 0.5)
    assert loss.tolist() == pytest.approx([0.125, 0.245, 2.0, 0.0])
    assert is_clipped.tolist() == [True, False, False, False]


def test_it_learns_what_the_returns_are_and_says_how_well(tmp_path: Path) -> None:
    made = critic(tmp_path, "critic.epochs=40", "critic.lr=1e-2", "critic.clip=10")
    goals = [(0.0, 1.0, 0.5), (0.0, 0.0, -1.0), (0.0, 1.0, 0.5, 0.0, 0.0, 2.0)]
    rows = [
        replace(
            item,
            targets=tuple(
                aim if is_sampled else math.nan
                for aim, is_sampled in zip(goal, item.row.mask, strict=True)
            ),
        )
        for item, goal in zip(rows_of(), goals, strict=True)
    ]
    made.fit([made.valued(rows)])
    metrics = made.fit([made.valued(rows)])
    assert metrics["critic/explained_variance"].mean > 0.95
    assert metrics["critic/return"].mean == pytest.approx((1 + 0.5 - 1 + 1 + 0.5 + 2) / 6)


@pytest.mark.parametrize("budget", [1, 1000])
def test_the_step_does_not_depend_on_how_the_batch_was_cut(tmp_path: Path, budget: int) -> None:
    whole = critic(tmp_path, "critic.epochs=1")
    cut = replace(critic(tmp_path, "critic.epochs=1"), budget=budget)
    rows = [replace(item, targets=(1.0,) * len(item.row.ids)) for item in rows_of()]
    for made in (whole, cut):
        made.fit([made.valued(rows)])
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_step_without_a_target_moves_nothing(tmp_path: Path) -> None:
    made = critic(tmp_path)
    before = [weight.clone() for weight in made.model.parameters()]
    assert made.fit([made.valued(rows_of())]) == {}
    assert all(map(torch.equal, before, made.model.parameters()))


def test_a_target_that_is_infinite_stops_the_run(tmp_path: Path) -> None:
    made = critic(tmp_path)
    rows = [replace(item, targets=(math.inf,) * len(item.row.ids)) for item in rows_of()]
    with pytest.raises(TrainingError, match=r"the loss is inf \(of the critic\)"):
        made._step(made.valued(rows))


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "advantage",
    [
        "token_gae",
        "{name: turn_gae, anchor: last}",
        "bilevel_gae",
        "{name: mask_truncated, of: turn_gae}",
    ],
)
def test_a_run_learns_values_and_trains_by_them(tmp_path: Path, advantage: str) -> None:
    settings = (*BARE, f"advantage={advantage}", "critic.lr=1e-2", "run.steps=3")
    folder = train(tiny(tmp_path, *settings, "optim.updates_per_batch=2"))
    for key in ("critic/loss", "critic/grad_norm", "loss/grad_norm", "critic/return"):
        assert all(isinstance(v, float) and v > 0 for v in column(folder, key)), key
    assert column(folder, "critic/value")[0] == 0.0
    assert all(column(folder, "critic/value")[1:])


def test_while_it_warms_up_the_policy_rests(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *BARE, *GAE, "critic.warmup=1"))
    assert column(folder, "loss/grad_norm")[0] is None
    assert column(folder, "loss/grad_norm")[1] is not None
    assert None not in column(folder, "critic/grad_norm")


@pytest.mark.parametrize(
    "settings",
    [
        [],
        pytest.param(["lora.rank=2", "advantage=bilevel_gae"], marks=pytest.mark.slow),
        pytest.param(["kl={name: k1, placement: reward}"], marks=pytest.mark.slow),
    ],
    ids=["full", "lora", "kl"],
)
def test_a_resumed_run_goes_on_with_its_critic_exactly(tmp_path: Path, settings: list[str]) -> None:
    straight = train(tiny(tmp_path / "a", *KEPT, *GAE, *settings))
    config = tiny(tmp_path / "b", *KEPT, *GAE, *settings)
    stopped(config, 3)
    assert differences(straight, train(config, "auto")) == []
    saved = straight / "checkpoints" / "step-000004" / "trainer" / "critic"
    assert {"values.safetensors", "optimiser.pt"} <= {path.name for path in saved.iterdir()}


def test_under_lora_only_adapters_and_head_are_trained(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *BARE, *GAE, "lora.rank=2"))
    saved = folder / "checkpoints" / "step-000002" / "trainer" / "critic" / "values.safetensors"
    names = load_file(saved)
    assert {"head.weight", "head.bias"} < set(names)
    assert all("lora_" in name for name in set(names) - {"head.weight", "head.bias"})


def test_a_checkpoint_without_a_critic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"values\.safetensors is missing"):
        critic(tmp_path).load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("advantage=token_gae",), r"TokenGae needs values, .* set critic=\{\}"),
        (("critic={}",), "asks for no values, so there is nothing to learn"),
        ((*GAE, "parallel=fsdp"), "parallel=single and ddp only.*parallel=fsdp"),
        ((*GAE, "parallel=deepspeed"), "parallel=single and ddp only.*parallel=deepspeed"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_loaded(
    tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    config = tiny(tmp_path, *settings)
    with pytest.raises(ConfigError, match=message):
        check_critic(config)
    with pytest.raises(ConfigError, match=message):
        train(config)
    assert not (tmp_path / "tiny").exists()


def test_default_settings_are_one_word(tmp_path: Path) -> None:
    assert tiny(tmp_path, "advantage=turn_gae", "critic={}").critic == Settings()
