"""Opening a run: who takes part, what is refused, its folder and lock, and where it goes on."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TextIO, TypeVar, cast

from agentrl.algo.aggregate import SequenceMeanTokenMean
from agentrl.algo.entropy import is_tempering
from agentrl.core.config import Config
from agentrl.core.errors import AgentRLError, ConfigError, TrackError
from agentrl.core.exploring import Bonus, Opens
from agentrl.core.loading import to_yaml
from agentrl.core.protocols import GroupLoss, Share, Sink, abilities
from agentrl.evaluate.runner import build_stage, enough_tasks
from agentrl.rollout.background import Loop
from agentrl.train.checkpoint import Checkpoints, step_of, write_whole
from agentrl.train.critic import check_critic
from agentrl.train.lora import add_lora
from agentrl.train.objective import Objective
from agentrl.train.resume import Resume, find_point, read_progress, take_back
from agentrl.train.run import Run

T = TypeVar("T")
logger = logging.getLogger(__name__)


@contextmanager
def open_run(config: Config, loop: Loop, resume: Resume = "never") -> Iterator[Run]:
    """Check, load and open everything; close it whatever happens.

    Raises:
        ConfigError: something that was asked for cannot be had.
        CheckpointError: the run cannot go on from any of its checkpoints.
    """
    began = time.perf_counter()
    check_needs(config)
    share = config.parallel
    with ExitStack() as closing:
        closing.callback(share.close)
        share.start()
        check_alike(config)
        closing.enter_context(_locked_by_first(config))
        point, told = _from_first(
            share, lambda: find_point(config, resume, _checkpoints(config, config.run_folder))
        )
        stage = loop.run(build_stage(config, share=share, resumed=point))
        closing.callback(lambda: loop.run(stage.worker.close()))
        if config.lora is not None:
            stage.policy.module = add_lora(stage.policy.module, config.lora, config.run.seed)
        tasks = enough_tasks(config.env, "train", 1)
        folder = _from_first(share, lambda: _prepare(config, point))
        run = Run(
            config=config,
            folder=folder,
            stage=stage,
            agent=stage.engine_agent(),
            loop=loop,
            began=began,
            tasks=tasks,
            objective=Objective(
                loss=config.loss,
                aggregate=config.aggregate,
                kl=config.kl,
                mismatch=config.mismatch,
                entropy=config.entropy,
            ),
            checkpoints=_checkpoints(config, folder),
            resumed=point,
        )
        if share.rank == 0:
            for sink in config.track:
                closing.push(partial(_close_sink, sink))
        if point is not None:
            run.remember(read_progress(point))
        if share.rank == 0:
            for sink in config.track:
                sink.open(folder, config.run.name, config.run.steps, resumed=run.first_step)
        if point is not None:
            told.append(
                f"resume: going on after step {run.first_step}, from {point}; what was written "
                "after it is taken back"
            )
        for line in told:
            run.say(line)
        closing.callback(lambda: loop.run(config.engine.close()))
        loop.run(config.engine.start(stage.policy))
        bonus: object = config.bonus
        if isinstance(bonus, Opens) and config.channel.coef:
            own = folder if share.rank == 0 else folder / f"rank{share.rank}"
            closing.callback(lambda opened: loop.run(opened.close()), bonus)
            loop.run(bonus.start(own, stage.voice))
        closing.callback(run.close)
        yield run


def _close_sink(
    sink: Sink, kind: type[BaseException] | None, error: BaseException | None, _: object
) -> None:
    """Close it; what it could not write must not hide the error that ended the run."""
    try:
        sink.close()
    except TrackError as lost:
        if kind is None:
            raise
        logger.warning("%s", lost)


def _checkpoints(config: Config, folder: Path) -> Checkpoints:
    return Checkpoints(
        folder=folder / "checkpoints", keep=config.checkpoint.keep, share=config.parallel
    )


def _from_first(share: Share, find: Callable[[], T]) -> T:
    """What rank 0 finds, or fails with, on every rank."""
    found: T | None = None
    error: Exception | None = None
    if share.rank == 0:
        try:
            found = find()
        except (AgentRLError, OSError) as failed:
            error = failed
    found, error = share.exchange((found, error))[0]
    if error is not None:
        raise error
    return cast("T", found)


@contextmanager
def _locked_by_first(config: Config) -> Iterator[None]:
    with ExitStack() as held:
        _from_first(config.parallel, lambda: held.enter_context(locked(config.run_folder)))
        yield


def _prepare(config: Config, point: Path | None) -> Path:
    """The run's folder: a new one, or the old one without what came after the checkpoint.

    Raises:
        ConfigError: it cannot be written; what it held is whole.
    """
    folder = config.run_folder
    try:
        if point is None:
            folder = make_folder(folder)
        else:
            _checkpoints(config, folder).drop_after(step_of(point))
            take_back(folder, step_of(point))
        # Whole or not at all: a resumed run is compared with the config that lies there.
        write_whole(folder / "config.yaml", to_yaml(config))
        write_whole(folder / "versions.json", json.dumps(versions(), indent=1) + "\n")
    except OSError as error:
        if isinstance(error, AgentRLError):
            raise
        raise ConfigError(
            f"run.folder: {folder} cannot be written ({error}): free some space, or choose another"
        ) from error
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run's name for this process; the lock goes with the process, however it ends.

    Raises:
        ConfigError: another process holds it, or its folder cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"run.folder: {folder.parent} is not a folder and cannot be made one ({error}): "
            "choose another"
        ) from error
    path = folder.parent / f".{folder.name}.lock"
    with _lock_file(path, folder) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _lock_file(path: Path, folder: Path) -> Iterator[TextIO]:
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise ConfigError(
                    f"run.name: a run is going on in {folder} ({holder}), and two runs in one "
                    "folder would overwrite each other: wait for it, or choose another run.name. "
                    "Processes that are to train together need parallel=ddp, fsdp or deepspeed"
                ) from error
            # Whoever held it before may have removed the file after it was opened here.
            if _inode(path) == os.fstat(file.fileno()).st_ino:
                yield file
                return


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def check_alike(config: Config) -> None:
    """Refuse ranks that were started with different configs, or that cannot share a batch.

    Raises:
        ConfigError: on every rank.
    """
    configs = config.parallel.exchange(to_yaml(config))
    other = next((rank for rank, text in enumerate(configs) if text != configs[0]), None)
    if other is not None:
        raise ConfigError(
            f"rank {other} was started with another config than rank 0: all processes of a run "
            "need the same file and overrides"
        )
    world, sft = config.parallel.world, config.sft
    if sft is not None and sft.batch_rows % world:
        raise ConfigError(
            f"sft.batch_rows: {sft.batch_rows} rows cannot be shared evenly by {world} processes; "
            f"choose a multiple of {world}"
        )


def check_needs(config: Config) -> None:
    """Refuse what this run cannot have: an estimator's needs, an expert to learn from, tasks."""
    available = {"entropies", "greedy"}
    check_critic(config)
    if config.critic is not None:
        available.add("values")
    if config.needs_reference:
        available.add("ref_logprobs")
    if "state_key" in abilities(config.env):
        available.add("state_keys")
    check_bonus(config.bonus, abilities(config.env), type(config.env).__name__)
    unmet = sorted(config.advantage.needs - available)
    if unmet:
        raise ConfigError(
            f"advantage: {type(config.advantage).__name__} needs {', '.join(unmet)}, which this "
            "run does not compute; choose another (agentrl list advantage)"
        )
    check_comparing(config)
    check_begins(config)
    lacking = sorted(getattr(config.strategy, "abilities", frozenset()) - abilities(config.env))
    if lacking:
        raise ConfigError(
            f"strategy: env {type(config.env).__name__} has no {'() and no '.join(lacking)}(), by "
            "which this strategy branches; entropy_tree branches by replay"
        )
    if config.sft_source == "expert" and "expert_action" not in abilities(config.env):
        raise ConfigError(
            f"sft: env {type(config.env).__name__} has no expert_action() to learn from; use "
            "explore=go_explore, sft.source=random, or sft=none with a model that knows the action "
            "format"
        )
    if config.explore is not None:
        config.explore.check(config.env)
        enough_tasks(config.env, "train", config.explore.tasks)
    if config.env.takes_text and config.rollout.on_invalid == "tell":
        raise ConfigError(
            f"rollout.on_invalid: env {type(config.env).__name__} answers every reply itself, and "
            "under 'tell' it would not get those without an action; use pass"
        )
    if config.eval.every and config.run.steps:
        enough_tasks(config.env, config.eval.split, config.eval.tasks)
    enough_tasks(config.env, config.eval.final_split, config.eval.final_tasks)


def check_comparing(config: Config) -> None:
    """Refuse what a loss that compares siblings cannot do with.

    Raises:
        ConfigError: groups would be parted, or a trajectory would count by its length.
    """
    if not isinstance(config.loss, GroupLoss):
        return
    name = type(config.loss).__name__
    groups, updates = config.rollout.tasks_per_step, config.optim.updates_per_batch
    if updates > groups:
        raise ConfigError(
            f"optim.updates_per_batch: {name} compares whole groups, so it must be at most the "
            f"{groups} groups of a step, rollout.tasks_per_step (got {updates})"
        )
    if getattr(config.strategy, "branches", False) and config.rollout.shared == "once":
        raise ConfigError(
            f"rollout.shared: {name} compares whole trajectories, and a branch would lack the "
            "tokens that it shares: set rollout.shared=each"
        )
    if not isinstance(config.aggregate, SequenceMeanTokenMean):
        raise ConfigError(
            f"aggregate: {name} has one number for a trajectory, whatever its length: set "
            f"aggregate=seq_mean_token_mean (got {type(config.aggregate).__name__})"
        )


def check_begins(config: Config) -> None:
    """Refuse what takes groups or weights to be of one moment, where they are not.

    Raises:
        ConfigError: weights are in pieces and are to be set back, or the temperature is to change
            while episodes go on, or were recorded without it.
    """
    rollout = config.rollout
    if config.optim.restart and not config.parallel.shares_module:
        raise ConfigError(
            "optim.restart: the weights of this backend are in pieces; use parallel=single or ddp"
        )
    is_recorded = rollout.record or rollout.replay is not None
    if is_tempering(config.entropy) and (rollout.mode != "sync" or is_recorded):
        raise ConfigError(
            f"entropy: {type(config.entropy).__name__} changes the temperature of each step, which "
            "needs rollout.mode=sync without record or replay: a schedule does not keep it"
        )


def check_bonus(bonus: Bonus | None, able: frozenset[str], env: str) -> None:
    """Refuse a bonus for what the env cannot tell. Raises `ConfigError`."""
    needs = frozenset[str]() if bonus is None else bonus.needs
    if "state_keys" in needs and "state_key" not in able:
        raise ConfigError(
            f"bonus: env {env} has no state_key(), by which this bonus tells states apart; choose "
            "another (agentrl list bonus)"
        )
    if "goals" in needs and "check" not in able:
        raise ConfigError(
            f"bonus: env {env} has no check(), by which goals are known to be reached; choose "
            "another (agentrl list bonus)"
        )


def make_folder(folder: Path) -> Path:
    """An empty folder for the run; an older run of that name is moved aside, never overwritten."""
    if (folder / "config.yaml").exists():
        n = 1
        while (aside := folder.with_name(f"{folder.name}.{n}")).exists():
            n += 1
        shutil.move(folder, aside)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def versions() -> dict[str, str]:
    """Versions of what the numbers of a run depend on."""
    names = ("agentrl", "torch", "transformers", "trl", "peft", "datasets", "minigrid", "numpy")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
