"""Which states are one cell."""

from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.explore.cells import Bucket, Exact, Text, Tree
from agentrl.explore.embedding import cosine, embed
from agentrl.explore.go_explore import GoExplore
from support.locks import Lock, found

INBOX = """[1] h1 Inbox
[2] button Compose (focused)
  [3] p from gina 10:32
  [4] p from bob 11:05 am"""


def test_exact_cells_are_the_envs_own_keys() -> None:
    name = Exact().namer()
    assert name("k", "any text") == name("k", "another") == "k"


def test_texts_that_are_alike_are_one_cell_and_keep_their_name() -> None:
    name = Text(least=0.9).namer()
    first = name("", "you are in the kitchen; it is 9 o'clock")
    assert name("other key", "you are in the kitchen; it is 8 o'clock") == first
    assert name("", "you are in the garden, under a tree") != first
    assert name("", "you are in the kitchen; it is 9 o'clock") == first
    strict = Text(least=1.0).namer()
    assert strict("", "a1") != strict("", "a2")


def test_trees_are_told_apart_by_roles_names_states_and_depth_alone() -> None:
    name = Tree().namer()
    key = name("", INBOX)
    moved = INBOX.replace("[2]", "[22]").replace(" (focused)", " ()").replace("10:32", "10:33")
    assert name("", moved) == key
    assert name("", INBOX.replace("gina", "carl")) != key
    assert name("", INBOX.replace("  [3]", "[3]")) != key
    assert name("", INBOX.replace("Compose", "Compose (checked)")) != key


def test_long_lists_count_by_powers_of_two() -> None:
    def page(n: int) -> str:
        return "\n".join(["[1] h1 All", *(f"[{i + 2}] li item {i}" for i in range(n))])

    name = Tree(most=3).namer()
    assert name("", page(4)) == name("", page(7))
    assert name("", page(7)) != name("", page(9))
    assert name("", page(3)) != name("", page(4))


def test_near_embeddings_fall_into_one_bucket() -> None:
    name = Bucket(least=0.7).namer()
    first = name("", "a red key lies before a blue door")
    assert name("", "a red key lies before a blue door .") == first
    assert name("", "nothing but walls") != first
    assert float((embed("a red key") ** 2).sum()) == pytest.approx(1.0)
    assert cosine(embed(""), embed("a red key")) == 0.0


@pytest.mark.parametrize("cells", [Text(least=1.0), Bucket(), Tree()])
def test_an_env_is_explored_by_what_it_shows(cells: Text | Bucket | Tree, tmp_path: Path) -> None:
    class Told(Lock):
        state_key = None  # type: ignore[assignment]

        def step(self, action):  # type: ignore[no-untyped-def]
            step = super().step(action)
            names = ["a hall", "stairs", "one attic room", "under the roof", "out in the sun"]
            return type(step)(
                observation=names[self._at],
                reward=step.reward,
                terminated=step.terminated,
                info=step.info,
            )

    with pytest.raises(ConfigError, match=r"no state_key\(\).*explore.cells=text"):
        GoExplore().check(Told())
    how = GoExplore(budget=2_000, steps=3, cells=cells)
    how.check(Told(length=4))
    results = found(how, Told(length=4), tmp_path)
    assert all(result.ways and result.diverged == 0 for result in results)
