"""Each distinct start once, in the split that its own hash decides, found when asked for."""

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.starts import PATIENCE, Beginning, Seeded, Starts, Tasks, digest, split_of
from agentrl.core.types import Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def world(size: int) -> Starts:
    """A world with `size` starts, which repeat; every third seed begins nothing."""

    def begin(seed: int) -> Beginning | None:
        place = seed % size
        return None if seed % 3 == 2 else Beginning(digest(str(place)), f"go to {place}")

    return Starts(begin, place="env.size", what=f"a world of {size}")


def test_splits_share_no_start_and_repeat_none() -> None:
    starts = world(4000)
    tasks = [task for split in SPLITS for task in Tasks("w", split, 200, starts)]
    assert len({task.instruction for task in tasks}) == len({task.id for task in tasks}) == 600
    assert all(
        split_of(digest(str(task.seed % 4000))) == task.id.split("/")[1] and task.seed % 3 != 2
        for task in tasks
    )


def test_a_start_is_found_when_asked_for() -> None:
    starts = world(4000)
    tasks = Tasks("w", "train", 1000, starts)
    assert (len(tasks), starts.walked) == (1000, 0)
    assert tasks[:2] == [tasks[0], tasks[1]]
    assert 0 < starts.walked < 40
    assert tasks[-1] == tasks[999]
    with pytest.raises(IndexError):
        tasks[1000]


def test_a_world_that_has_no_more_starts_says_how_many_it_has() -> None:
    starts = world(8)
    found = sum(split_of(digest(str(place))) == "test" for place in range(8))
    with pytest.raises(
        ConfigError,
        match=rf"^env.size: a world of 8 has only {found} distinct starts for the test split "
        rf"\(seeds 0 to \d+ brought no more\): set env.test_tasks to at most {found}$",
    ):
        Tasks("w", "test", 50, starts)[49]
    assert starts.walked > PATIENCE


def test_where_only_seeds_are_known_splits_share_none_and_names_take_turns() -> None:
    found = {split: Seeded(("a", "b"), split, 40, key="id", before="w/") for split in SPLITS}
    seeds = [{task.seed for task in tasks} for tasks in found.values()]
    assert len(set.union(*seeds)) == sum(map(len, seeds)) == 60
    assert len({task.id for tasks in found.values() for task in tasks}) == 120
    first = [(task.data["id"], task.seed) for task in found["train"][:6]]
    assert first == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 4), ("b", 4)]
    assert found["test"][3].id == "w/b/test/000001"
