"""A reward model learned from judged pairs, by the published worked numbers."""

import json
import random
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.explore.bonuses.motif import Judged, Motif, Preferences, ScriptedJudge, Values, loss
from support.walks import walk, walks

THINGS = [
    f"you see {a} {b}"
    for a in ("a red", "a blue", "an old", "a small")
    for b in ("key", "door", "box", "rat", "coin")
]
WORTH = {"key": 3.0, "coin": 2.0, "door": 1.0, "red": 0.4, "blue": 0.2}


def judged(quality: float, seed: int = 0) -> list[Judged]:
    judge, rng = ScriptedJudge(worth=WORTH, quality=quality), random.Random(seed)
    pairs = [rng.sample(THINGS, 2) for _ in range(500)]
    return [Judged(one, other, judge(one, other)) for one, other in pairs]


def test_the_loss_of_a_pair_and_of_a_tie() -> None:
    assert loss(0.0, 1.0, 1.0) == pytest.approx(0.3133, abs=5e-5)
    assert loss(0.0, 1.0, 0.5) == pytest.approx(0.8133, abs=5e-5)


def test_a_pair_in_the_other_order_gets_the_mirrored_label() -> None:
    judge = ScriptedJudge(worth=WORTH, quality=0.7)
    answers = [(judge(a, b), judge(b, a)) for a in THINGS for b in THINGS if a != b]
    assert all(one + other == 1.0 for one, other in answers)
    right = ScriptedJudge(worth=WORTH)
    assert right(THINGS[0], THINGS[3]) == 0.0
    assert right(THINGS[3], "a rat") == 1 - right("a rat", THINGS[3])


@pytest.mark.parametrize(("quality", "low", "high"), [(1.0, 0.95, 1.0), (0.5, 0.2, 0.8)])
def test_500_preferences_over_20_captions_are_learned(
    quality: float, low: float, high: float
) -> None:
    model, truth = Preferences(128), ScriptedJudge(worth=WORTH)
    model.learn(judged(quality))
    pairs = [(a, b, truth(a, b)) for a in THINGS for b in THINGS]
    right = [(model(b) > model(a)) == (label > 0.5) for a, b, label in pairs if label != 0.5]
    assert low <= sum(right) / len(right) <= high


def test_a_caption_fades_with_the_cube_of_its_count_in_the_episode(tmp_path: Path) -> None:
    bonus = learned(tmp_path)
    [[ratings]] = bonus.rate(
        [walks(episodes=[walk("abcde", heard=[KEY, "nothing", KEY, "nothing", KEY])])]
    )
    first, _, second, _, third = ratings
    assert (first, second, third) == pytest.approx((1.0, 0.125, 0.037), abs=5e-4)


KEY, RAT = "you found a key", "a rat runs by"


def learned(tmp_path: Path, gather: int = 2) -> Motif:
    path = tmp_path / "worth.json"
    path.write_text(json.dumps({"key": 1.0}))
    bonus = Motif(judge=path, gather=gather)
    group = walks(episodes=[walk("abc", heard=[KEY, RAT, "a door"])])
    for _ in range(gather):
        assert bonus.rate([group]) == [[[0.0, 0.0, 0.0]]]
        bonus.observe([group])
    return bonus


def test_what_the_judge_prefers_pays_and_what_it_does_not_is_cut_off(tmp_path: Path) -> None:
    [[[key, rat]]] = learned(tmp_path).rate([walks(episodes=[walk("ab", heard=[KEY, RAT])])])
    assert key == pytest.approx(1.0)
    assert rat == 0.0


def test_captions_that_are_all_alike_are_worth_nothing() -> None:
    values = Values.over(Preferences(8), ["a", "b", "c"], 0.5)
    assert values.of("a") == values.of("d") == 0.0


def test_its_state_survives_as_json(tmp_path: Path) -> None:
    bonus, twin = learned(tmp_path), Motif(judge=tmp_path / "worth.json")
    twin.restore(json.loads(json.dumps(bonus.state())))
    group = walks(episodes=[walk("ab", heard=[KEY, RAT])])
    assert twin.rate([group]) == bonus.rate([group])
    with pytest.raises(ConfigError, match="expected the state of motif"):
        twin.restore([])


def test_a_file_that_is_no_judge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worth.json"
    path.write_text('["key"]')
    with pytest.raises(ConfigError, match=r"judge: expected .* to hold an object"):
        Motif(judge=path)
