"""Checkpoints are whole or not there, and the best is never dropped."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from agentrl.train.checkpoint import Checkpoints
from agentrl.train.parallel.single import Single
from support.models import tiny_policy
from support.steps import step, train_rows, weights


def write(folder: Path) -> None:
    (folder / "weights").write_text("w" * 10)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoints.complete()]


def test_a_saved_checkpoint_is_offered_with_its_manifest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path / "checkpoints")
    path = checkpoints.save(7, write, dev_success=0.5)
    assert checkpoints.complete() == [path]
    assert checkpoints.best() == path
    manifest = json.loads((path / "manifest.json").read_text())
    digest = hashlib.sha256(b"w" * 10).hexdigest()
    assert manifest == {
        "schema": 2,
        "step": 7,
        "dev_success": 0.5,
        "files": {"weights": {"bytes": 10, "sha256": digest}},
    }
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-000007\n"


def test_a_checkpoint_that_was_not_finished_is_never_offered(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    kept = checkpoints.save(1, write)

    def fail(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(2, fail)
    assert checkpoints.complete() == [kept]
    (tmp_path / "step-000003").mkdir()
    write(tmp_path / "step-000003")
    assert checkpoints.complete() == [kept], "a folder without a manifest is torn"
    whole = checkpoints.save(2, write)
    assert checkpoints.complete() == [kept, whole]
    assert not list(tmp_path.glob("partial-*")), "what was torn is cleared away"


def test_saving_a_step_again_replaces_it_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    checkpoints.save(1, write)
    path = checkpoints.save(1, lambda folder: (folder / "other").touch())
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "other"]


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path, keep=2)
    for number, success in enumerate([0.1, 0.9, None, 0.9, 0.3], start=1):
        checkpoints.save(number, write, dev_success=success)
    assert steps(checkpoints) == [2, 4, 5]
    best = checkpoints.best()
    assert best is not None
    assert best.name == "step-000002", "an equal success does not replace the earlier one"


def test_a_new_best_frees_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path, keep=1)
    for number, success in enumerate([0.5, 0.6, 0.2, 0.1], start=1):
        checkpoints.save(number, write, dev_success=success)
    assert steps(checkpoints) == [2, 4]


def test_without_a_measurement_there_is_no_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    checkpoints.save(1, write)
    checkpoints.save(2, write, dev_success=float("nan"))
    assert checkpoints.best() is None
    checkpoints.save(3, write, dev_success=0.0)
    best = checkpoints.best()
    assert best is not None
    assert best.name == "step-000003"


def test_checkpoints_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path, keep=5)
    for number in (999_999, 1_000_000, 2):
        checkpoints.save(number, write)
    assert steps(checkpoints) == [2, 999_999, 1_000_000]


def test_a_restored_optimiser_takes_the_same_next_step(tmp_path: Path) -> None:
    straight, resumed = tiny_policy().module, tiny_policy().module
    backend = Single()
    optimiser = torch.optim.AdamW(straight.parameters(), lr=1e-2)
    backend.wrap(straight, lambda _: optimiser)
    step(straight, train_rows(), optimiser=optimiser)
    backend.save(tmp_path)
    resumed.load_state_dict(straight.state_dict())
    fresh = torch.optim.AdamW(resumed.parameters(), lr=1e-2)
    other = Single()
    other.wrap(resumed, lambda _: fresh)
    other.load(tmp_path)
    step(straight, train_rows(seed=1), optimiser=optimiser)
    step(resumed, train_rows(seed=1), optimiser=fresh)
    for name, weight in weights(straight).items():
        assert torch.equal(weights(resumed)[name], weight)
