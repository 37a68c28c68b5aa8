"""The Gymnasium adapter plays their game unchanged, says it in words, and its expert is optimal."""

import contextlib
import itertools
import pickle
import statistics
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import abilities
from agentrl.core.types import Split, Step, Task
from agentrl.envs.gym import Gymnasium
from agentrl.envs.gym.env import table_of
from agentrl.envs.gym.known import uncoloured
from agentrl.envs.gym.spaces import written
from agentrl.envs.gym.table import Table, solve

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
PLAIN = ("4x4", "8x8")


class Switches(gymnasium.Env[Any, Any]):
    """Observations and actions of several kinds; won by the action [1, 2]."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium declares it
    observation_space: Any = spaces.Dict(
        {"at": spaces.Box(-1, 1, (2,)), "lamps": spaces.MultiBinary(3), "say": spaces.Text(9)}
    )
    action_space: Any = spaces.MultiDiscrete([2, 3])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.lamps = self.np_random.integers(0, 2, 3, dtype=np.int8)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        won = list(action) == [1, 2]
        return self._seen(), float(won), won, False, {}

    def _seen(self) -> dict[str, object]:
        return {"at": np.array([0.125, -1.0], np.float32), "lamps": self.lamps, "say": "hum"}


class Locked(Switches):
    """A game that cannot be copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> "Locked":
        raise NotImplementedError


class Steered(Switches):
    """A game whose actions are not words."""

    action_space: Any = spaces.Box(-1, 1, (2,))


class Parrot(Switches):
    """A game of text alone."""

    action_space: Any = spaces.Text(5)
    observation_space: Any = spaces.Text(9)

    def _seen(self) -> Any:
        return f"say {list(self.lamps)}"[:9]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._seen(), 0.0, True, False, {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The envs above, while a test runs."""
    for kind in (Switches, Locked, Steered, Parrot):
        gymnasium.register(f"{kind.__name__}-v0", entry_point=cast("Any", kind))
    yield
    for kind in (Switches, Locked, Steered, Parrot):
        del gymnasium.registry[f"{kind.__name__}-v0"]


def begun(gym_id: str = "FrozenLake-v1", index: int = 0, **settings: object) -> Gymnasium:
    env = Gymnasium(id=gym_id, **settings)  # type: ignore[arg-type]
    env.reset(env.tasks("train")[index])
    return env


def seeded(env: Gymnasium, seed: int) -> str:
    return env.reset(Task(id=str(seed), seed=seed))


def follow_expert(env: Gymnasium) -> list[Step]:
    steps = [env.step(env.expert_action())]
    while not (steps[-1].terminated or steps[-1].truncated):
        steps.append(env.step(env.expert_action()))
    return steps


def wander(env: Gymnasium, steps: int, seed: int = 0) -> list[Step]:
    rng, taken = Random(seed), list[Step]()
    while len(taken) < steps and not (taken and (taken[-1].terminated or taken[-1].truncated)):
        taken.append(env.step(rng.choice(env.legal_actions())))
    return taken


def of_gymnasium(gym_id: str, **kwargs: object) -> Table:
    found = table_of(gymnasium.make(gym_id, **cast("dict[str, Any]", kwargs)))
    assert found is not None
    return found


def iterate(table: Table, sweeps: int) -> list[float]:
    """Plain value iteration of the expected return, without discount."""
    value = [0.0] * len(table)
    for _ in range(sweeps):
        value = [
            max(
                sum(p * (r + (0.0 if end else value[after])) for p, after, r, end in outcomes)
                for outcomes in table[state].values()
            )
            for state in range(len(table))
        ]
    return value


# --- what is shown, said and won ------------------------------------------------------------------


def test_a_frozen_lake_reads_as_the_documentation_shows() -> None:
    env = Gymnasium(kwargs={"map_name": "4x4", "is_slippery": False}, split_by="seed")
    first = env.reset(env.tasks("train")[0])
    assert first == "walk to G past the holes H\n@ F F F\nF H F H\nF F F H\nH F F G"
    step = env.step("down")
    assert step.observation == "S F F F\n@ H F H\nF F F H\nH F F G"
    assert (step.reward, step.terminated, step.info) == (0.0, False, {"metrics": {"steps": 1.0}})
    step = env.step("right")
    assert step.info == {"metrics": {"steps": 2.0}, "success": False}
    assert (step.reward, step.terminated, step.truncated) == (0.0, True, False)
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("up")


def test_a_taxi_says_where_everything_is_and_counts_gymnasiums_rewards() -> None:
    env = Gymnasium(id="Taxi-v4")
    assert seeded(env, 1) == (
        "fetch the passenger and take him to the goal\n"
        "taxi 2 2 passenger at 4 3 goal 0 0 free south north east west"
    )
    steps = follow_expert(env)
    assert [step.reward for step in steps] == [-1.0] * (len(steps) - 1) + [20.0]
    assert steps[-1].info["success"] is True
    assert any("passenger aboard" in str(step.observation) for step in steps)


def test_ansi_renderings_keep_their_colours_as_words() -> None:
    lake = begun(show="ansi", kwargs={"map_name": "4x4"}, split_by="seed")
    assert seeded(lake, 0).endswith("<on red S>FFF\nFHFH\nFFFH\nHFFG")
    taxi = Gymnasium(id="Taxi-v4", show="ansi", goal="")
    shown = seeded(taxi, 1)
    assert "<magenta R>" in shown
    assert "<blue B>" in shown
    assert "<on yellow _>" in shown
    nested = "a\x1b[0mb\x1b[32;1mc\x1b[0m \x1b[35m\x1b[42mY\x1b[0m\x1b[0m|"
    assert uncoloured(nested) == "ab<green c> <magenta on green Y>|"


def test_an_env_that_nobody_wrote_words_for_is_shown_by_its_space() -> None:
    env = Gymnasium(id="Switches-v0", digits=3)
    shown = seeded(env, 0)
    lamps = " ".join(str(n) for n in np.random.default_rng(0).integers(0, 2, 3, dtype=np.int8))
    assert shown == f"at 0.125 -1.000\nlamps {lamps}\nsay hum"
    assert env.step("1 3").info["invalid_action"] is True
    step = env.step("1 2")
    assert (step.reward, step.info["success"]) == (1.0, True)
    assert {"legal_actions", "expert_action"}.isdisjoint(abilities(env))


def test_text_goes_in_and_out_as_it_is() -> None:
    env = Gymnasium(id="Parrot-v0", split_by="seed")
    assert seeded(env, 0).startswith("say [")
    assert env.step("too long").info["invalid_action"] is True
    assert env.step("hello").terminated


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(7), "7"),
        (True, "1"),
        (np.array([1.0, -0.001]), "1.00 0.00"),
        ((14, np.int64(3), 0), "14 3 0"),
        ({"a": np.array([1, 0]), "b": "hi"}, "a 1 0\nb hi"),
        (np.array([[1, 2], [3, 4]]), "1 2 3 4"),
    ],
)
def test_observations_are_written_as_short_numbers(value: object, text: str) -> None:
    assert written(value, 2) == text


def test_exact_writing_tells_apart_what_rounding_does_not() -> None:
    one, other = np.array([0.1]), np.array([0.1 + 1e-12])
    assert written(one, 2) == written(other, 2)
    assert written(one, None) != written(other, None)


@pytest.mark.parametrize("action", ["", "jump", "LEFT", "0", "left left", ["left"]])
def test_what_is_no_action_costs_a_step_and_changes_nothing(action: str | list[str]) -> None:
    env = begun(cap=2)
    key = env.state_key()
    step = env.step(action)
    assert step.info == {"metrics": {"steps": 1.0}, "invalid_action": True}
    assert env.state_key() == key
    last = env.step(action)
    assert (last.terminated, last.truncated, last.info["success"]) == (False, True, False)


def test_actions_may_be_renamed_and_are_numbers_where_nobody_named_them() -> None:
    env = begun(names=("west", "south", "east", "north"), goal="go")
    assert env.legal_actions() == ["west", "south", "east", "north"]
    acrobot = Gymnasium(id="Acrobot-v1")
    assert seeded(acrobot, 0).startswith("say one of 0 1 2\n")


def test_an_action_mask_says_what_is_legal() -> None:
    env = Gymnasium(id="Taxi-v4")
    for seed in range(20):
        shown = seeded(env, seed)
        free = shown.split("free ")[1].split()
        assert [a for a in env.legal_actions() if a not in ("pickup", "dropoff")] == free


def test_the_rule_of_success_is_a_setting() -> None:
    assert Gymnasium(id="CartPole-v1")._rule == ("return", 475.0)
    env = begun("CartPole-v1", threshold=3.0)
    while not (step := env.step("left")).terminated:
        pass
    assert step.info["success"] is True
    env = begun("CartPole-v1", success="last_reward")
    while not (step := env.step("left")).terminated:
        pass
    assert step.info["success"] is True
    env = begun("CartPole-v1", success="last_reward", threshold=1.0)
    while not (step := env.step("left")).terminated:
        pass
    assert step.info["success"] is False
    lake = Gymnasium(kwargs={"desc": ["SH", "FG"]}, split_by="seed", success="terminated")
    seeded(lake, 0)
    while not (step := lake.step("right")).terminated:
        pass
    assert step.info["success"] is True


def test_truncation_is_the_envs_own_limit_or_the_cap() -> None:
    for cap, limit in ((None, 200), (7, 7), (300, 300)):
        env = Gymnasium(id="Taxi-v4", cap=cap)
        seeded(env, 0)
        steps = [env.step("north")]
        while not (steps[-1].terminated or steps[-1].truncated):
            steps.append(env.step("north"))
        assert (len(steps), steps[-1].truncated) == (limit, True)


def test_the_game_is_gymnasiums_own() -> None:
    """The same seed and actions give the same rewards and states there."""
    env = Gymnasium(id="Taxi-v4", kwargs={"is_rainy": True}, show="space", goal="")
    theirs = gymnasium.make("Taxi-v4", is_rainy=True)
    for seed in range(5):
        observation, _ = theirs.reset(seed=seed)
        assert seeded(env, seed) == str(observation)
        for action in [Random(seed).randrange(6) for _ in range(50)]:
            observation, reward, terminated, *_ = theirs.step(action)
            step = env.step(env._words.names[action])
            assert (step.observation, step.reward) == (str(observation), reward)
            if terminated:
                break


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gym_id", ["FrozenLake-v1", "Taxi-v4", "Blackjack-v1", "CartPole-v1"])
def test_splits_share_no_start(gym_id: str) -> None:
    env = Gymnasium(id=gym_id)
    keys = []
    for split in SPLITS:
        for task in env.tasks(split)[:30]:
            env.reset(task)
            assert env.state_key() == task.data["start"]
            keys.append(env.state_key())
    assert len(set(keys)) == len(keys) == 90


@pytest.mark.parametrize("gym_id", ["FrozenLake-v1", "Taxi-v4", "Blackjack-v1"])
def test_a_known_env_has_as_many_starts_as_it_says(gym_id: str) -> None:
    env = Gymnasium(id=gym_id)
    for split in SPLITS:
        assert env.tasks(split)[-1].id.startswith(f"{gym_id}/{split}/")


def test_taxis_starts_are_the_300_that_it_can_begin_with() -> None:
    env = Gymnasium(id="Taxi-v4")
    starts = set()
    for split in SPLITS:
        env.tasks(split)
        walk = env._starts
        assert walk is not None
        with contextlib.suppress(ConfigError):
            for index in itertools.count():
                starts.add(walk.find(split, index)[1].start)
    assert len(starts) == 300


def test_an_env_that_always_begins_alike_is_split_by_seed_if_asked() -> None:
    env = Gymnasium(kwargs={"map_name": "4x4"})
    with pytest.raises(ConfigError, match=r"has only 1 distinct starts.*env\.split_by=seed"):
        env.tasks("train")[1]
    env = Gymnasium(kwargs={"map_name": "4x4"}, split_by="seed")
    seeds = [task.seed for split in SPLITS for task in env.tasks(split)[:50]]
    assert len(set(seeds)) == 150


def test_maps_have_the_asked_size_and_a_way_to_the_goal() -> None:
    env = Gymnasium(map_size=6, map_frozen=0.6)
    for task in env.tasks("train")[:20]:
        rows = env.reset(task).splitlines()[1:]
        assert [len(row.split()) for row in rows] == [6] * 6
        assert follow_expert(env)[-1].info["success"] is True


# --- snapshots ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gym_id", "kwargs"),
    [
        ("FrozenLake-v1", {"is_slippery": True}),
        ("Taxi-v4", {"is_rainy": True, "fickle_passenger": True}),
        ("Blackjack-v1", None),
        ("CartPole-v1", None),
    ],
)
def test_a_restored_episode_goes_on_exactly_as_before(
    gym_id: str, kwargs: dict[str, bool] | None
) -> None:
    """Random numbers included: ice is slippery and it rains."""
    for index in range(3):
        env = begun(gym_id, index, kwargs=kwargs)
        if any(step.terminated for step in wander(env, 2, seed=index)):
            continue
        saved = env.snapshot()
        expected = wander(env, 25, seed=1)
        env.reset(env.tasks("train")[index + 1])
        wander(env, 1)
        env.restore(saved)
        assert wander(env, 25, seed=1) == expected
        other = Gymnasium(id=gym_id, kwargs=kwargs)  # type: ignore[arg-type]
        other.restore(pickle.loads(pickle.dumps(saved)))
        assert wander(other, 25, seed=1) == expected


def test_what_cannot_be_copied_has_no_snapshots() -> None:
    assert {"snapshot", "restore"} <= abilities(Gymnasium(id="Switches-v0"))
    assert {"snapshot", "restore"}.isdisjoint(abilities(Gymnasium(id="Locked-v0")))


# --- the expert -----------------------------------------------------------------------------------


@pytest.mark.parametrize("map_name", PLAIN)
@pytest.mark.parametrize("is_slippery", [True, False])
def test_the_plans_value_is_that_of_value_iteration(map_name: str, is_slippery: bool) -> None:
    table = of_gymnasium("FrozenLake-v1", map_name=map_name, is_slippery=is_slippery)
    plan = solve(table, horizon=60, rule="last_reward", threshold=0.0)
    for steps in (1, 7, 60):
        assert plan.success[steps] == pytest.approx(iterate(table, steps), rel=1e-9)
    assert (plan.value == plan.success).all()


def test_the_slippery_lake_is_won_as_often_as_can_be() -> None:
    """0.8235 = 14/17 without a limit of steps, the known optimum of the 4x4 map."""
    table = of_gymnasium("FrozenLake-v1", map_name="4x4", is_slippery=True)
    plan = solve(table, horizon=2_000, rule="last_reward", threshold=0.0)
    assert plan.success[2_000, 0] == pytest.approx(14 / 17, abs=1e-9)
    env = Gymnasium(kwargs={"map_name": "4x4", "is_slippery": True}, split_by="seed", cap=100)
    wins = []
    for seed in range(200):
        seeded(env, seed)
        wins.append(bool(follow_expert(env)[-1].info["success"]))
    expected = plan.success[100, 0]
    deviation = (expected * (1 - expected) / 200) ** 0.5
    assert abs(statistics.fmean(wins) - expected) < 3 * deviation


@pytest.mark.parametrize("index", range(5))
def test_the_expert_takes_a_shortest_way(index: int) -> None:
    env = begun(index=index, map_size=5)
    rows = [line.split() for line in str(seeded(env, index)).splitlines()[1:]]
    assert len(follow_expert(env)) == distance(rows)


def distance(rows: Sequence[Sequence[str]]) -> int:
    """Steps from `@` to `G` round the holes, by breadth-first search."""
    tiles: Mapping[complex, str] = {
        complex(r, c): tile for r, row in enumerate(rows) for c, tile in enumerate(row)
    }
    border, seen, steps = {0j}, {0j}, 0
    while not any(tiles[place] == "G" for place in border):
        near = {place + way for place in border for way in (1, -1, 1j, -1j)}
        border = {place for place in near - seen if tiles.get(place, "H") != "H"}
        seen, steps = seen | border, steps + 1
    return steps


def test_the_taxis_expert_earns_what_value_iteration_promises() -> None:
    env = Gymnasium(id="Taxi-v4")
    value = iterate(of_gymnasium("Taxi-v4"), 30)
    for seed in range(40):
        seeded(env, seed)
        state = int(str(env._shown.observation))
        steps = follow_expert(env)
        assert steps[-1].info["success"] is True
        assert sum(step.reward for step in steps) == pytest.approx(value[state])


def test_success_comes_before_return_and_speed_last() -> None:
    """Waiting (action 0) pays, going on (1) wins for less; both ways (1, 2) win, one is longer."""
    table: Table = {
        0: {0: [(1.0, 1, 9.0, True)], 1: [(1.0, 1, 0.0, False)], 2: [(1.0, 2, 0.0, False)]},
        1: {action: [(1.0, 2, 0.0, False)] for action in range(3)},
        2: {action: [(1.0, 0, 10.0, True)] for action in range(3)},
    }
    plan = solve(table, horizon=5, rule="last_reward", threshold=9.5)
    assert plan.best(0, 5) == 2
    assert plan.best(0, 99) == 2
    assert plan.best(0, 1) == 0
    assert plan.success[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def test_there_is_an_expert_only_where_the_table_says_all() -> None:
    assert "expert_action" in abilities(Gymnasium(id="CliffWalking-v1"))
    assert "expert_action" in abilities(Gymnasium(id="Taxi-v4", kwargs={"is_rainy": True}))
    for gym_id, kwargs in (("Taxi-v4", {"fickle_passenger": True}), ("CartPole-v1", None)):
        env = Gymnasium(id=gym_id, kwargs=kwargs)  # type: ignore[arg-type]
        assert "expert_action" not in abilities(env)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "FrozenLake-v9"}, r"knows no 'FrozenLake-v9'; did you mean 'FrozenLake-v1'\?"),
        ({"id": "nowhere.to_find:Game-v0"}, "env.id: nowhere.to_find cannot be imported"),
        ({"kwargs": {"slippery": 1}}, "env.kwargs: FrozenLake-v1 cannot be made with .*'slippery'"),
        ({"kwargs": {"map_name": "9x9"}}, "cannot be made with {'map_name': '9x9'}: KeyError"),
        ({"kwargs": {"render_mode": "human"}}, "render_mode is decided by env.show"),
        ({"names": ("a", "b")}, "env.names: expected 4 different names"),
        ({"names": ("a", "b", "c", "a")}, "expected 4 different names"),
        ({"id": "Switches-v0", "names": ("a",)}, "only Discrete actions have names"),
        ({"id": "Steered-v0"}, "env.id: actions must be Discrete, MultiDiscrete"),
        ({"id": "Pendulum-v1"}, "env.id: actions must be Discrete, MultiDiscrete"),
        ({"id": "CartPole-v1", "show": "ansi"}, "CartPole-v1 has no ansi rendering"),
        ({"id": "CartPole-v1", "show": "words"}, "there are no words for CartPole-v1"),
        ({"success": "return", "id": "Blackjack-v1"}, "env.threshold: Blackjack-v1 has no reward"),
        ({"id": "tabular/Blackjack-v0"}, "env.id: tabular/Blackjack-v0 needs another package"),
    ],
)
def test_settings_that_make_no_sense_are_config_errors(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Gymnasium(**settings)  # type: ignore[arg-type]


def test_acting_before_a_reset_is_a_runtime_error() -> None:
    env = Gymnasium()
    for act in (lambda: env.step("left"), env.legal_actions, env.state_key, env.snapshot):
        with pytest.raises(RuntimeError, match=r"call reset\(task\)"):
            act()
    env.close()
    env.close()
