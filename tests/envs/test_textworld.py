"""TextWorld's games: settings, what is shown, what a command may do; with the package, that its
games are won by its own way, that splits share none, and that a game goes on from a snapshot."""

import pickle
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from agentrl.core.errors import ConfigError, EnvError, MissingExtraError
from agentrl.core.types import Split, Task
from agentrl.envs.textworld.env import COMMAND, FORBIDDEN, TextWorld, tidy
from agentrl.envs.textworld.games import MAKER, made
from agentrl.envs.textworld.package import CHALLENGES
from agentrl.envs.textworld.plain import Scene, look
from agentrl.evaluate.check_env import Status, check_env
from support.extras import has, needs

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
KITCHEN = {"go": 6, "open": True, "cook": True, "cut": True}
needs_package = needs("textworld")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Games made for these tests."""
    yield tmp_path_factory.mktemp("games")
    MAKER.close()


def solve(env: TextWorld, task: Task) -> tuple[float, bool, int]:
    """What the expert earns, whether it wins, and in how many turns."""
    env.reset(task)
    total, turns = 0.0, 0
    while True:
        step = env.step(env.expert_action())
        total, turns = total + step.reward, turns + 1
        assert "invalid_action" not in step.info
        if step.terminated or step.truncated:
            return total, step.info["success"] is True, turns


# --- without the package --------------------------------------------------------------------------


@pytest.mark.skipif(has("textworld"), reason="textworld is installed")
def test_the_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[textworld\]'"):
        TextWorld().tasks("train")[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"game": "cooking", "level": 3}, "cooking has no levels, got 3: set env.recipe"),
        ({"game": "cooking", "take": 2}, "at most env.recipe=1 ingredients, got 2"),
        ({"game": "treasure", "level": 31}, "treasure has levels 1 to 30, got 31"),
        *(({"level": level}, f"got {level}") for level in (1, 2, 102, 151, 202, 234, 300)),
    ],
)
def test_levels_that_there_are_not_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextWorld(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [3, 100, 103, 150, 203, 220, 233])
def test_levels_that_there_are_are_taken(level: int) -> None:
    assert TextWorld(level=level).level == level


def kitchen(*facts: str) -> Scene:
    """A state as the package gives it: `at apple kitchen`."""
    kinds = {"P": "P", "I": "I", "kitchen": "r", "hall": "r", "yard": "r", "table": "s"}
    kinds |= {"fridge": "c", "door": "d"}
    words = {word for fact in facts for word in fact.split()[1:]}
    infos = {w: SimpleNamespace(name=w, type=kinds.get(w, "f")) for w in words}
    for hidden in ("P", "I"):
        infos[hidden] = SimpleNamespace(name=None, type=hidden)
    said = [
        SimpleNamespace(name=name, arguments=[SimpleNamespace(name=thing) for thing in things])
        for name, *things in map(str.split, facts)
    ]
    return Scene.of({"game": SimpleNamespace(infos=infos), "_facts": said})


def test_facts_are_told_in_few_words() -> None:
    scene = kitchen(
        *("at P kitchen", "at table kitchen", "at fridge kitchen", "at apple kitchen"),
        *("on egg table", "in milk fridge", "closed fridge", "in onion I", "fried onion"),
        *("chopped onion", "west_of hall kitchen", "south_of kitchen yard", "locked door"),
        *("link kitchen door hall", "link hall door kitchen", "at cat hall"),
    )
    assert look(scene) == (
        "kitchen | exits north , west by locked door | closed fridge | table holds egg | "
        "floor apple | you have chopped fried onion"
    )
    assert look(kitchen("at P hall")) == "hall | exits  | you have nothing"


def test_what_is_in_an_open_container_is_seen() -> None:
    assert "open fridge holds milk" in look(
        kitchen("at P kitchen", "at fridge kitchen", "in milk fridge", "open fridge")
    )


def test_banner_prompt_and_status_are_left_out() -> None:
    banner = "  ________ \n |   $$$  \\\n"
    text = f"{banner}\n\nTake  it.\n\n-= Hall =-\nA hall.\n\n\n>      -= Hall =-0/1"
    assert tidy(text) == "Take it.\n-= Hall =-\nA hall."
    end = "You won.\n\n *** The End ***\n\nWould you like to RESTART, or QUIT?\n>  -= Hall =-0/1"
    assert tidy(end) == "You won.\n*** The End ***"
    assert tidy("no prompt") == "no prompt"


@pytest.mark.parametrize(
    "command",
    [
        *("quit", "restart", "undo", "save", "tw-trace-actions", "go east then restart", "g"),
        *("go east. take coin", "go east, quit", "take\nquit", "x" * 101, "naïve", ""),
    ],
)
def test_no_command_reaches_the_interpreter_or_is_two(command: str) -> None:
    words = command.split()
    assert not COMMAND.fullmatch(command) or any(map(FORBIDDEN.fullmatch, words))


def test_the_package_is_imported_in_one_module_only() -> None:
    root = Path(__file__).parents[2]
    importing = [
        path.relative_to(root)
        for folder in ("agentrl", "envs", "rewards")
        for path in (root / folder).rglob("*.py")
        if 'f"textworld{' in path.read_text() or "import textworld" in path.read_text()
    ]
    assert set(map(str, importing)) == {"envs/textworld/package.py"}


# --- with it --------------------------------------------------------------------------------------


@needs_package
@pytest.mark.parametrize("prose", ["compiled", "plain"])
@pytest.mark.parametrize(
    "fields",
    [{"level": 5}, {"level": 105}, {"game": "treasure", "level": 12}, {"game": "cooking"}],
    ids=str,
)
def test_the_packages_own_way_wins(cache: Path, prose: str, fields: dict[str, object]) -> None:
    env = TextWorld(cache=cache, prose=prose, reward="score", **fields)  # type: ignore[arg-type]
    for task in env.tasks("test")[:2]:
        total, success, _ = solve(env, task)
        assert success
        assert total == pytest.approx(1.0)


@needs_package
def test_a_cook_reads_the_recipe_and_is_paid_on_the_way(cache: Path) -> None:
    env = TextWorld(cache=cache, game="cooking", prose="plain", reward="score", **KITCHEN)  # type: ignore[arg-type]
    for task in env.tasks("dev")[:3]:
        env.reset(task)
        commands, paid, shown = [], [], []
        is_over = False
        while not is_over:
            commands.append(env.expert_action())
            step = env.step(commands[-1])
            is_over = step.terminated
            paid.append(step.reward)
            shown.append(str(step.observation))
        assert commands.count("examine cookbook") == 1
        recipe = shown[commands.index("examine cookbook")].splitlines()[0]
        assert recipe.endswith("prepare meal")
        assert "Directions:" in recipe
        assert sum(map(bool, paid)) >= 4


@needs_package
@pytest.mark.parametrize("level", [4, 105])
def test_splits_share_no_maze_even_under_other_names(cache: Path, level: int) -> None:
    env = TextWorld(cache=cache, level=level, prose="plain")
    mazes: dict[Split, set[str]] = {}
    for split in SPLITS:
        found = [made(env._source(""), task.seed) for task in env.tasks(split)[:20]]
        mazes[split] = {one.world for one in found if one}
        assert len({one.start for one in found if one}) == 20
    assert all(mazes.values())
    assert not mazes["train"] & mazes["dev"]
    assert not (mazes["train"] | mazes["dev"]) & mazes["test"]


@needs_package
def test_the_packages_own_cooking_splits_are_kept(cache: Path) -> None:
    env = TextWorld(cache=cache, game="cooking", prose="plain")
    challenge = import_module(f"textworld.challenges.{CHALLENGES['cooking']}")
    starts: set[str] = set()
    for split, named in {"train": "train", "dev": "valid", "test": "test"}.items():
        foods = set(challenge.FOODS_SPLITS["train"])
        foods |= set() if split == "train" else set(challenge.FOODS_SPLITS[named])
        for task in env.tasks(split)[:5]:  # type: ignore[arg-type]
            assert task.data["split"] == named
            env.reset(task)
            starts.add(env.state_key())
            known = {f.things[0] for f in env._scene.facts if f.name.startswith("ingredient_")}
            assert known
            assert known <= foods
    assert len(starts) == 15


@needs_package
def test_the_objective_names_the_whole_way_only_if_asked_to(cache: Path) -> None:
    texts = []
    for objective in ("last", "full"):
        env = TextWorld(cache=cache, level=8, objective=objective, prose="plain")
        texts.append(env.reset(env.tasks("train")[0]).partition("\n")[0])
    assert "coin" in texts[0]
    assert "coin" in texts[1]
    assert len(texts[1]) > 2 * len(texts[0])


@needs_package
def test_the_story_understands_more_than_is_legal_and_no_cheats(cache: Path) -> None:
    env = TextWorld(cache=cache, level=5)
    task = env.tasks("train")[0]
    env.reset(task)
    start, way = env.state_key(), env.expert_action()
    for bad in ("restart", "quit", "tw-trace-actions", f"{way}. {way}", "dance", "x" * 5_000):
        step = env.step(bad)
        assert step.info["invalid_action"] is True, bad
        assert env.state_key() == start, bad
    step = env.step(way.removeprefix("go ")[0])
    assert "invalid_action" not in step.info
    assert env.state_key() != start


@needs_package
@pytest.mark.parametrize("prose", ["compiled", "plain"])
def test_a_snapshot_goes_on_in_another_copy_and_one_that_lies_is_refused(
    cache: Path, prose: str
) -> None:
    env, other = (TextWorld(cache=cache, level=8, prose=prose) for _ in range(2))  # type: ignore[arg-type]
    env.reset(env.tasks("train")[1])
    for _ in range(3):
        env.step(env.expert_action())
    saved = pickle.loads(pickle.dumps(env.snapshot()))
    other.restore(saved)
    assert other.state_key() == env.state_key()
    way = env.expert_action()
    assert other.expert_action() == way
    assert other.step(way) == env.step(way)
    with pytest.raises(EnvError, match=r"3 commands in the game of seed .* lead elsewhere"):
        other.restore(saved._replace(key="0"))


@needs_package
def test_taking_the_wrong_thing_is_the_end_of_a_treasure_hunt(cache: Path) -> None:
    env, rng = TextWorld(cache=cache, game="treasure", level=5, prose="plain", turns=60), Random(0)
    ends: dict[bool, str] = {}
    for task in [*env.tasks("train")[:8], *env.tasks("test")[:8]]:
        env.reset(task)
        while True:
            step = env.step(rng.choice(env.legal_actions()))
            if step.terminated:
                ends[bool(step.info["success"])] = str(step.observation)
                assert step.reward == step.info["success"]
            if step.terminated or step.truncated:
                break
    assert ends[False].endswith("you lost")
    assert ends[True].endswith("you won")


@needs_package
def test_turns_are_three_times_the_games_own_way(cache: Path) -> None:
    for fields, limit in (({}, 24), ({"turns": 25}, 25)):
        env = TextWorld(cache=cache, level=8, prose="plain", **fields)  # type: ignore[arg-type]
        env.reset(env.tasks("train")[0])
        steps = [env.step("look") for _ in range(limit)]
        assert [step.truncated for step in steps] == [False] * (limit - 1) + [True]
        assert steps[-1].info["success"] is False
        with pytest.raises(RuntimeError, match="the episode is over"):
            env.step("look")


@needs_package
def test_goals_are_checked_against_the_facts(cache: Path) -> None:
    env = TextWorld(cache=cache, level=3, prose="plain")
    env.reset(env.tasks("train")[0])
    room = env._scene.room
    assert env.check(f"at {room}") is True
    assert env.check("have coin") is False
    assert env.check("be happy") is None
    while not env.step(env.expert_action()).terminated:
        continue
    assert env.check(f"at {room}") is False
    assert env.check("have coin") is True


@needs_package
@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [{"level": 105}, {"game": "treasure", "level": 15}, {"game": "cooking", **KITCHEN}],
    ids=str,
)
def test_other_games_keep_the_promises_too(cache: Path, fields: dict[str, object]) -> None:
    env = TextWorld(cache=cache, prose="plain", turns=15, **fields)  # type: ignore[arg-type]
    report = check_env(env, tasks=2)
    assert not report.of(Status.FAIL)
    assert len(report.of(Status.PASS)) >= 35
