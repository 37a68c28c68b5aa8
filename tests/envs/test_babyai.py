"""BabyAI shows only what the agent sees, restores exactly, and keeps its splits apart."""

import io
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from PIL import Image as Pillow

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import abilities
from agentrl.core.types import Observation, Step
from agentrl.envs.babyai import BabyAI
from agentrl.envs.babyai.game import ACTIONS, level_id, levels
from agentrl.envs.babyai.starts import starts

HARD = ("GoToObj", "GoToLocal", "UnlockLocal", "PutNextLocal", "GoToSeqS5R2", "DoorKey-6x6")


def begun(level: str = "GoToObj", index: int = 0, **settings: int | bool) -> BabyAI:
    env = BabyAI(level=level, **settings)  # type: ignore[arg-type]
    env.reset(env.tasks("train")[index])
    return env


def text(shown: Observation | str) -> str:
    assert isinstance(shown, Observation)
    return shown.text


def wander(env: BabyAI, steps: int, seed: int = 0) -> list[Step]:
    """Random legal actions; stops at the end of the episode."""
    rng, taken = Random(seed), list[Step]()
    while len(taken) < steps and not (taken and (taken[-1].terminated or taken[-1].truncated)):
        taken.append(env.step(rng.choice(env.legal_actions())))
    return taken


def follow_expert(env: BabyAI) -> Step:
    step = env.step(env.expert_action())
    while not (step.terminated or step.truncated):
        step = env.step(env.expert_action())
    return step


def test_an_episode_reads_as_the_documentation_shows() -> None:
    env = BabyAI()
    task = env.tasks("train")[0]
    assert text(env.reset(task)) == (
        "goal go to the green key\nfront free wall 6 see green key 2 forward 1 right"
    )
    steps = [env.step(env.expert_action()) for _ in range(3)]
    assert [text(step.observation) for step in steps] == [
        "front free wall 5 see green key 1 forward 1 right",
        "front free wall 4 see green key 1 right",
        "front green key wall 5 see nothing",
    ]
    assert [(s.reward, s.terminated, s.truncated) for s in steps] == [
        (0.0, False, False),
        (0.0, False, False),
        (1 - 0.9 * 3 / 16, True, False),
    ]
    assert steps[-1].info == {"metrics": {"steps": 3.0}, "success": True}


def test_doors_have_states_and_what_is_carried_is_said() -> None:
    env = begun("UnlockLocal", cap=64)
    said = [text(env.step(env.expert_action()).observation) for _ in range(11)]
    assert said[1] == (
        "front free wall 5 see red key 3 forward 1 right , red door locked 3 forward 3 left"
    )
    assert said[6] == "carry red key front free wall 4 see nothing"


@pytest.mark.parametrize("level", HARD)
def test_only_what_lies_in_the_view_is_told(level: str) -> None:
    """Against minigrid's own encoding of the view, which the words never read."""
    for index in range(5):
        env = begun(level, index, cap=64)
        for _ in range(20):
            if env._is_over:
                break
            step = wander(env, 1, seed=index)[0]
            game = env._game
            assert game is not None
            shown = game.gen_obs()["image"]  # type: ignore[no-untyped-call]
            things = sum(
                int(shown[i, j, 0]) not in (0, 1, 2, 3)  # unseen, empty, wall, floor
                for i in range(7)
                for j in range(7)
                if (i, j) != (3, 6)
            )
            words = text(step.observation).split()
            told = sum(words.count(kind) for kind in ("key", "ball", "box", "door", "goal"))
            assert told - ("carry" in words) == things


def test_the_words_are_few_regular_and_short() -> None:
    seen: set[str] = set()
    lengths = []
    for index in range(30):
        env = begun("GoToObj", index)
        for step in wander(env, 16, seed=index):
            words = text(step.observation).split(" ")
            seen.update(words)
            lengths.append(len(words))
    assert all(word == word.lower() and word.strip() for word in seen)
    assert len(seen) <= 30
    assert sorted(lengths)[len(lengths) // 2] <= 10


def test_repeat_goal_says_the_goal_every_time() -> None:
    env = begun(repeat_goal=True)
    assert text(env.step("left").observation).startswith("goal go to the green key\nfront ")


@pytest.mark.parametrize("words", [True, False])
def test_pictures_show_the_view_at_the_asked_size(words: bool) -> None:
    env = BabyAI(images=True, words=words, tile_pixels=8)
    first = env.reset(env.tasks("train")[0])
    assert ("front" in first.text) is words
    picture = Pillow.open(io.BytesIO(first.images[0].png))
    assert picture.size == (56, 56)
    assert len(picture.getcolors() or []) > 3
    step = env.step("left")
    assert isinstance(step.observation, Observation)
    assert step.observation.images[0].hash != first.images[0].hash
    assert env.reset(env.tasks("train")[0]).images == first.images


def test_an_agent_that_would_see_nothing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="words and images are both off"):
        BabyAI(words=False)


def test_the_cap_truncates_without_reward_and_counts_as_no_success() -> None:
    env = begun(cap=4)
    last = [env.step("left") for _ in range(4)][-1]
    assert (last.reward, last.terminated, last.truncated) == (0.0, False, True)
    assert last.info["success"] is False
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step("left")


def test_success_on_the_last_step_is_no_truncation() -> None:
    last = follow_expert(begun(cap=3))
    assert (last.terminated, last.truncated, last.info["success"]) == (True, False, True)
    assert last.reward == pytest.approx(0.1)


@pytest.mark.parametrize("action", ["", "jump", "LEFT", "left left", ["left"], "done"])
def test_what_is_no_action_costs_a_step_and_changes_nothing(action: str | list[str]) -> None:
    env = begun()
    key = env.state_key()
    step = env.step(action)
    assert step.info["invalid_action"] is True
    assert step.info["metrics"] == {"steps": 1.0}
    assert env.state_key() == key


def test_a_level_with_fewer_actions_refuses_the_others() -> None:
    env = begun("Dynamic-Obstacles-8x8")
    assert env.legal_actions() <= ["left", "right", "forward"]
    assert env.step("toggle").info["invalid_action"] is True


def test_legal_actions_are_those_that_would_change_the_state() -> None:
    for level in ("UnlockLocal", "PutNextLocal", "DoorKey-6x6", "GoToObj"):
        for index in range(4):
            env = begun(level, index, cap=64)
            for _ in range(15):
                legal, key, here = env.legal_actions(), env.state_key(), env.snapshot()
                changing = []
                for action in ACTIONS:
                    env.step(action)
                    if env.state_key() != key:
                        changing.append(action)
                    env.restore(here)
                assert changing == legal
                step = env.step(Random(index).choice(legal))
                if step.terminated:
                    break


@pytest.mark.parametrize("level", [*HARD, "Dynamic-Obstacles-Random-6x6", "BossLevel"])
def test_a_restored_episode_goes_on_exactly_as_before(level: str) -> None:
    """Random numbers included: obstacles move by them."""
    for index in range(3):
        env = begun(level, index, cap=40)
        wander(env, 3, seed=index)
        if env._is_over:
            continue
        saved = env.snapshot()
        expected = wander(env, 25, seed=1)
        env.reset(env.tasks("train")[index + 1])
        wander(env, 5)
        env.restore(saved)
        assert wander(env, 25, seed=1) == expected
        other = BabyAI(level=level, cap=40)
        other.restore(saved)
        assert wander(other, 25, seed=1) == expected


def test_the_expert_of_a_restored_episode_gives_the_same_advice() -> None:
    for level in ("GoToObj", "UnlockLocal", "PutNextLocal"):
        env = begun(level, cap=64)
        wander(env, 5)
        saved = env.snapshot()
        advised = []
        for _ in range(4):
            advised.append(env.expert_action())
            if env.step(advised[-1]).terminated:
                break
        other = BabyAI(level=level, cap=64)
        other.restore(saved)
        again = []
        for _ in advised:
            again.append(other.expert_action())
            other.step(again[-1])
        assert again == advised


@pytest.mark.parametrize("level", ["GoToObj", "GoToLocal", "UnlockLocal", "PutNextLocal"])
def test_the_expert_solves_a_level_from_its_start(level: str) -> None:
    assert [follow_expert(begun(level, i, cap=64)).info["success"] for i in range(20)] == [
        True
    ] * 20


def test_the_expert_recovers_from_what_was_done_before() -> None:
    """Even from an opened box, after which minigrid's bot gives up."""
    solved = []
    for index in range(20):
        env = begun("GoToLocal", index, cap=100)
        wander(env, 12, seed=index)
        if not env._is_over:
            solved.append(follow_expert(env).info["success"])
    assert len(solved) > 10
    assert all(solved)


def test_the_expert_is_asked_only_where_there_is_one() -> None:
    assert "expert_action" in abilities(BabyAI(level="GoToObj"))
    for level in ("DoorKey-6x6", "KeyInBox", "PutNextS5N2Carrying"):
        assert "expert_action" not in abilities(BabyAI(level=level))


def test_an_expert_at_a_loss_says_so() -> None:
    """A start and moves after which minigrid's bot finds no plan."""
    env = begun("PickupLoc", 13, cap=60)
    wander(env, 12, seed=2)
    with pytest.raises(EnvError, match=r"the bot has no advice after 18 actions .* with seed 32"):
        follow_expert(env)


def test_splits_share_no_start_and_repeat_none() -> None:
    env = BabyAI(level="GoToObjS4", train_tasks=100, dev_tasks=50, test_tasks=50)
    keys = []
    for split in ("train", "dev", "test"):
        for task in env.tasks(split):
            env.reset(task)
            assert env.state_key() == task.data["start"]
            keys.append(env.state_key())
    assert len(set(keys)) == len(keys) == 200


def test_tasks_are_found_one_by_one_as_asked() -> None:
    env = BabyAI(level="GoToRedBall")
    tasks = env.tasks("test")
    assert len(tasks) == 400
    assert [task.id for task in tasks[:2]] == ["GoToRedBall/test/000000", "GoToRedBall/test/000001"]
    assert max(task.seed for task in tasks[:2]) < starts(level_id("GoToRedBall")).walked < 100
    assert tasks[-1] == tasks[399]
    with pytest.raises(IndexError):
        tasks[400]


def test_a_level_with_too_few_starts_says_how_many_it_has() -> None:
    tasks = BabyAI(level="DoorKey-5x5", dev_tasks=100).tasks("dev")
    with pytest.raises(ConfigError, match=r"only 12 distinct starts for the dev split.*at most 12"):
        tasks[99]
    assert len({task.seed for task in tasks[:12]}) == 12


def test_state_keys_are_the_same_in_another_process() -> None:
    env = begun("PutNextLocal")
    wander(env, 6)
    code = (
        "from agentrl.envs.babyai import BabyAI\nfrom random import Random\n"
        "env = BabyAI(level='PutNextLocal'); env.reset(env.tasks('train')[0]); rng = Random(0)\n"
        "for _ in range(6): env.step(rng.choice(env.legal_actions()))\n"
        "print(env.state_key())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == env.state_key()
    assert done.stderr == ""


def test_the_key_knows_progress_but_not_the_clock() -> None:
    env = begun("GoToObj")
    start = env.state_key()
    for turn in ("left", "right"):
        env.step(turn)
    assert env.state_key() == start
    # A door opened and closed again leaves the grid as it was and half of the instruction done.
    env = BabyAI(level="OpenTwoDoors", cap=200)
    env.reset(env.tasks("train")[0])
    while env.expert_action() != "toggle":
        env.step(env.expert_action())
    closed = env.state_key()
    env.step("toggle")
    env.step("toggle")
    assert env.state_key() != closed


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("GoToObject", "no level is called 'GoToObject'; did you mean 'GoToObj'"),
        ("DoorKey6x6", "did you mean 'DoorKey-6x6'"),
        ("Playground", "no level is called 'Playground'"),
        ("", "no level is called ''"),
    ],
)
def test_an_unknown_level_names_the_nearest(level: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BabyAI(level=level)


def test_levels_are_found_by_short_name_newest_version_and_full_id() -> None:
    assert levels()["GoToObjS6"] == "BabyAI-GoToObjS6-v1"
    assert levels()["MultiRoom-N4-S5"] == "MiniGrid-MultiRoom-N4-S5-v1"
    assert levels()["UnlockPickup"] == "BabyAI-UnlockPickup-v0"
    assert abilities(BabyAI(level="MiniGrid-UnlockPickup-v0")).isdisjoint({"expert_action"})


@pytest.mark.slow
@pytest.mark.parametrize("level", sorted(levels()))
def test_every_level_can_be_played_saved_and_named(level: str) -> None:
    env = BabyAI(level=level, cap=8)
    split = next(s for s in ("train", "dev", "test") if _has_start(env, s))
    env.reset(env.tasks(split)[0])  # type: ignore[arg-type]
    saved, key = env.snapshot(), env.state_key()
    expected = wander(env, 8)
    env.restore(saved)
    assert env.state_key() == key
    assert wander(env, 8) == expected


def _has_start(env: BabyAI, split: str) -> bool:
    try:
        return bool(env.tasks(split)[0])  # type: ignore[arg-type]
    except ConfigError:
        return False


def test_minigrid_does_not_chatter_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BabyAI(level="PutNextLocal").tasks("train")[:300]) == 300
    assert capsys.readouterr().out == ""


def test_stepping_before_a_reset_is_a_runtime_error() -> None:
    env = BabyAI()
    for act in (lambda: env.step("left"), env.legal_actions, env.state_key, env.snapshot):
        with pytest.raises(RuntimeError, match="babyai"):
            act()
    env.close()
    env.close()
