"""What a run owns and does round its loop: folder, parts, warm start, evaluations, summary."""

from __future__ import annotations

import copy
import json
import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import torch

from agentrl.core.config import Config
from agentrl.core.errors import CheckpointError, TrainingError
from agentrl.core.protocols import Agent, abilities
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Json, Sum, Task
from agentrl.engines.policy import load_policy
from agentrl.evaluate.checkpoints import resolve_checkpoint
from agentrl.evaluate.report import write_report
from agentrl.evaluate.runner import Stage, evaluate
from agentrl.evaluate.statistics import EvalResult, append_eval, read_evals
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.background import Loop
from agentrl.rollout.group import commonest_failure
from agentrl.track.jsonl import finite
from agentrl.track.trajectories import EpisodeRecord, record, write_episodes
from agentrl.train.checkpoint import Checkpoints
from agentrl.train.critic import Critic, build_critic
from agentrl.train.objective import Objective
from agentrl.train.optim import build_optimiser, learning_rate, set_learning_rate
from agentrl.train.outbox import Outbox
from agentrl.train.prepare import TrainRow, turn_advantages
from agentrl.train.resume import TRAINER, Progress, part_states, restore_parts
from agentrl.train.sources import Source, build_source, record_step
from agentrl.train.sync import push
from agentrl.train.trainable import load_trainable, save_trainable
from agentrl.train.trie.sharing import Sharing


@dataclass(kw_only=True)
class Run:
    """An open run. `loop.py` calls its verbs in order."""

    config: Config
    folder: Path
    stage: Stage
    agent: EngineAgent
    loop: Loop
    tasks: Sequence[Task]
    objective: Objective
    checkpoints: Checkpoints
    resumed: Path | None = None
    """The checkpoint that the run goes on from."""
    first_step: int = 0
    """Training steps that were done before."""
    done: int = 0
    """Training steps that are done."""
    reference: torch.nn.Module | None = None
    trained: torch.nn.Module | None = None
    """The module as the backend wrapped it."""
    critic: Critic | None = None
    """What values are learned by."""
    version: int = 0
    told: set[str] = field(default_factory=set)
    """What was said once and is not said again."""
    probe_ids: tuple[int, ...] = ()
    results: dict[str, EvalResult] = field(default_factory=dict)
    sft_steps: dict[str, int] = field(default_factory=dict)
    began: float
    """`time.perf_counter()` when the run was opened, less the time it ran before."""
    cpu_before: float = 0.0
    """CPU seconds of the run before it was resumed."""
    env_steps: int = 0
    """Env steps so far, of exploring, demonstrations and training; evaluations cost none."""
    outbox: Outbox = field(init=False)
    sharing: Sharing = field(default_factory=Sharing)
    source: Source | None = None
    """Where groups come from, once training has started."""

    def __post_init__(self) -> None:
        self.outbox = Outbox(say=self.say)

    @property
    def module(self) -> torch.nn.Module:
        """The module that is trained."""
        return self.stage.policy.module if self.trained is None else self.trained

    @property
    def is_first(self) -> bool:
        """This is rank 0, which speaks and writes."""
        return self.config.parallel.rank == 0

    def say(self, text: str) -> None:
        """One line on every sink."""
        for sink in self.config.track if self.is_first else ():
            sink.say(text)

    # --- over a resume -----------------------------------------------------------------------

    def progress(self, step: int) -> Progress:
        """What the run remembers after `step` steps, besides weights and optimiser."""
        return Progress(
            step=step,
            version=self.version,
            probe_ids=self.probe_ids,
            told=tuple(sorted(self.told)),
            sft_steps=self.sft_steps,
            seconds=time.perf_counter() - self.began,
            cpu_seconds=self.cpu_before + time.process_time(),
            env_steps=self.env_steps,
            parts=part_states(self.config),
        )

    def remember(self, progress: Progress) -> None:
        """Be again what the run was when it wrote `progress`."""
        self.first_step = self.done = progress.step
        self.version = progress.version
        self.probe_ids = progress.probe_ids
        self.told = set(progress.told)
        self.sft_steps = dict(progress.sft_steps)
        self.began -= progress.seconds
        self.cpu_before = progress.cpu_seconds
        self.env_steps = progress.env_steps
        self.results = {r.name: r for r in read_evals(self.folder) if r.name != "step"}
        restore_parts(self.config, progress.parts)

    # --- before the loop ---------------------------------------------------------------------

    def baselines(self) -> None:
        """The random floor and the expert's ceiling on the final tasks; once in a run's life."""
        if self.resumed is not None:
            return
        able = abilities(self.config.env)
        if self.config.eval.baselines and "legal_actions" in able:
            self.final_evaluation("random", self.stage.random())
        if self.config.eval.baselines and "expert_action" in able:
            self.final_evaluation("expert", self.stage.expert())

    def start_training(self) -> None:
        """Reference and optimiser: what needs the weights as the warm start left them, or, in a
        resumed run, as the checkpoint holds them."""
        config, policy = self.config, self.stage.policy
        # Without its adapter, a policy that was warmed up is not what it was when RL began.
        is_kept = config.needs_reference and (config.lora is None or config.sft is not None)
        if is_kept or config.optim.restart:
            self.reference = copy.deepcopy(policy.module).requires_grad_(False)
            self._keep_reference(self.reference)
        module = policy.module
        if not self._samples_trained and self._needs_copy:
            policy.module = copy.deepcopy(module)
            self.loop.run(config.engine.start(policy))
        self.trained = config.parallel.wrap(module, partial(build_optimiser, settings=config.optim))
        self.critic = build_critic(config, module)
        for line in config.scorer.check(self.module):
            self.say(line)
        self.source = build_source(
            config,
            self.stage,
            self.agent,
            self.loop,
            lambda step, seed: config.curriculum.next(
                self.tasks, config.rollout.tasks_per_step, step, seed
            ),
        )
        if self.resumed is not None:
            config.parallel.load(self.resumed / TRAINER)
            if self.critic is not None:
                self.critic.load(self.resumed / TRAINER)
            self.loop.run(config.engine.load_weights(self._pushed(), self.version))
            self.source.restore(self.resumed, self.version)
            return
        if config.sft is None:
            self.final_evaluation("start", self.agent)
        if config.checkpoint.every or config.sft is not None:
            self._save(0)

    @property
    def _samples_trained(self) -> bool:
        """The engine samples from the very module that is trained."""
        config = self.config
        return (
            config.engine.shares_module
            and config.parallel.shares_module
            and config.rollout.mode == "sync"
        )

    @property
    def _needs_copy(self) -> bool:
        """A whole module beside the trained one: to sample from, or to save sharded weights."""
        return self.config.engine.shares_module or not self.config.parallel.shares_module

    def _keep_reference(self, reference: torch.nn.Module) -> None:
        """The reference's weights, written when training starts and read back by a resumed run."""
        path = self.folder / "reference.safetensors"
        if self.resumed is not None:
            load_trainable(reference, path, like=self.stage.policy.module)
        elif self.is_first:
            save_trainable(self.stage.policy.module, path)

    def _pushed(self) -> Mapping[str, torch.Tensor]:
        """What an engine gets of the trained weights: nothing where it samples from them."""
        if self._samples_trained:
            return {}
        tensors = self.config.parallel.gather()
        if self._needs_copy and not self.config.engine.shares_module:
            self.stage.policy.module.load_state_dict(tensors)
        return tensors

    @property
    def is_over(self) -> bool:
        """All training steps are done, or the env steps are spent."""
        settings, most = self.config.run, self.config.run.env_steps
        return self.done >= settings.steps or (most is not None and self.env_steps >= most)

    @property
    def share_done(self) -> float:
        """The share of training that is behind (0..1), by steps or by env steps."""
        settings = self.config.run
        spent = self.env_steps / settings.env_steps if settings.env_steps else 0.0
        return min(1.0, max(self.done / max(settings.steps, 1), spent))

    def steps(self) -> Iterator[int]:
        """The training steps that are left, counted from 0."""
        while not self.is_over:
            yield self.done

    def set_step(self, step: int) -> float:
        """Set the learning rate of this step, which is returned, and the state of torch's own
        random numbers: functions of seed and step, so that a resumed step draws as it would have.
        """
        torch.manual_seed(derive_seed(self.config.run.seed, "step", step))
        rate = learning_rate(self.config.optim, self.config.run.steps)(step)
        set_learning_rate(self.config.parallel.optimiser, rate)
        return rate

    def restart(self) -> None:
        """Under `optim.restart`, go back to the weights that training began with."""
        if not self.config.optim.restart:
            return
        assert self.reference is not None
        with torch.no_grad():
            pairs = zip(self.module.parameters(), self.reference.parameters(), strict=True)
            for weight, first in pairs:
                weight.copy_(first)
        self.config.parallel.optimiser.state.clear()

    # --- inside the loop ---------------------------------------------------------------------

    def collect(self, step: int) -> list[Group]:
        """The step's groups, scored."""
        assert self.source is not None
        groups = self.source.groups(step)
        if self.config.rollout.record:
            rank = self.config.parallel.rank
            write = record_step(self.folder / "schedule", step, rank, groups)
            self.outbox.write(f"the schedule of step {step + 1}", write)
        stops = [t.stop for group in groups for t in group.trajectories]
        if stops and all(stop.is_failure for stop in stops):
            self.write_episodes(f"train-{step + 1:06d}", "train", "step", step + 1, groups)
            raise TrainingError(
                f"step {step + 1}: every episode failed, so there is nothing to learn from; "
                f"{commonest_failure(groups)}"
            )
        return groups

    def push(self, rows: Sequence[TrainRow]) -> float:
        """Give the engine the new weights and prove it on the tokens of the first row."""
        self.version += 1
        firsts = self.config.parallel.exchange(rows[0].row.ids[:64] if rows else ())
        self.probe_ids = next((ids for ids in firsts if len(ids) > 1), self.probe_ids)
        gap = 0.0
        if self.probe_ids:
            gap = self.loop.run(
                push(
                    self.config.engine,
                    self.module,
                    self.version,
                    self.probe_ids,
                    tensors=self._pushed(),
                )
            )
        assert self.source is not None
        self.source.advance(self.version)
        return gap

    def record(
        self, step: int, groups: Sequence[Group], rows: Sequence[TrainRow], parts: dict[str, Sum]
    ) -> None:
        """Metrics to the sinks, episodes to the run folder."""
        assert self.source is not None
        metrics = {key: value.mean for key, value in (parts | self.source.metrics()).items()}
        episodes = self.write_episodes(f"train-{step:06d}", "train", "step", step, groups, rows)
        for sink in self.config.track if self.is_first else ():
            sink.episodes(step, episodes)
            sink.log(step, metrics)
        self._warn_once(step, groups, parts.get("episodes/unscored", Sum(0.0)).total)
        if drop := self.sharing.drop(parts):
            self._say_once("sharing", f"step {step}: {drop}")

    def _warn_once(self, step: int, groups: Sequence[Group], unscored: float) -> None:
        """Say what is easily overlooked, the first time that it happens."""
        if unscored:
            self._say_once(
                "unscored",
                f"step {step}: the reward gave {unscored:.0f} episode(s) no score (None or NaN); "
                "they are not trained on. Metric episodes/unscored counts them from now on",
            )
        episodes = [t for group in groups for t in group.trajectories]
        rewrite = self.stage.first_rewrite(episodes)
        if rewrite is not None:
            self._say_once(
                "rows", f"step {step}: {rewrite}. Metric rollout/rows counts rows per episode"
            )
        if any(episode.pixels for episode in episodes):
            self._say_once(
                "pixels",
                "the env shows pictures: they are recorded for the report, and this model reads "
                "the text only",
            )

    def _say_once(self, key: str, text: str) -> None:
        if key not in self.told:
            self.told.add(key)
            self.say(text)

    def evaluate_and_save(self, step: int) -> None:
        """After step `step` (1-based): dev evaluation and checkpoint where they are due."""
        self.done = step
        settings, is_last = self.config.eval, self.is_over
        dev: float | None = None
        if settings.every and (step % settings.every == 0 or is_last):
            result, _ = self.loop.run(
                evaluate(
                    self.stage,
                    self.agent,
                    name="step",
                    split=settings.split,
                    tasks=settings.tasks,
                    samples=settings.samples,
                    step=step,
                )
            )
            self._keep_eval(result, step, settings.split)
            dev = None if math.isnan(result.success) else result.success
            self.say(f"step {step}: {settings.split} success {result.success:.3f}")
        every = self.config.checkpoint.every
        if dev is not None or is_last or (every and step % every == 0):
            self._save(step, dev_success=dev)

    def _keep_eval(self, result: EvalResult, step: int, name: str) -> None:
        """Into evals.jsonl, and to the sinks as what was known after step `step`."""
        if self.is_first:
            self.outbox.write("evals.jsonl", partial(append_eval, self.folder, result))
            for sink in self.config.track:
                sink.evaluation(step, name, result.numbers())

    def _save(self, step: int, *, dev_success: float | None = None) -> None:
        """A checkpoint. One that cannot be written is said and tried at its next turn; the last
        one must succeed."""

        def write(folder: Path) -> None:
            (folder / TRAINER).mkdir(exist_ok=True)
            if self.is_first:
                self.stage.policy.save(folder)
                self.progress(step).write(folder)
            if self.trained is not None:
                self.config.parallel.save(folder / TRAINER)
            if self.critic is not None:
                self.critic.save(folder / TRAINER)
            if self.source is not None:
                self.source.save(folder)

        try:
            self.checkpoints.save(step, write, dev_success=dev_success)
        except CheckpointError as error:
            if self.is_over:
                raise
            self.say(str(error))

    # --- after the loop ----------------------------------------------------------------------

    def finish(self) -> None:
        """Evaluate the best checkpoint on the final tasks, write summary and report."""
        self.close()
        if not self.done:
            if self.checkpoints.newest() is None:  # a warm start keeps its own
                self._save(0)
        else:
            best = resolve_checkpoint(self.folder)
            self.say(f"final evaluation of {best.name}, the best by dev success")
            policy = load_policy(
                str(best), seed=self.config.run.seed, device=self.config.run.device
            )
            self.loop.run(self.config.engine.start(policy))
            step = int(best.name.removeprefix("step-"))
            self.final_evaluation("final", self.agent, step=step)
        self.outbox.flush()
        if self.is_first:
            self._write_summary()
            report = write_report(self.folder)
            self.say(f"report: {report}")
        self.config.parallel.exchange(None)  # nobody leaves while rank 0 still works

    def close(self) -> None:
        """Give up the rollouts that are in flight; may be called twice."""
        if self.source is not None:
            self.source.close()

    def final_evaluation(self, name: str, agent: Agent, *, step: int = 0) -> None:
        """Play the final tasks and keep result and episodes; `step` is that of the weights."""
        settings = self.config.eval
        if not settings.final_tasks:
            return
        result, groups = self.loop.run(
            evaluate(
                self.stage,
                agent,
                name=name,
                split=settings.final_split,
                tasks=settings.final_tasks,
                samples=settings.samples,
                step=self.done if name == "final" else 0,
            )
        )
        result = replace(result, step=step)
        self.results[name] = result
        self._keep_eval(result, self.done if name == "final" else step, name)
        self.write_episodes(f"eval-{name}", "eval", name, result.step, groups[:20])
        self.say(
            f"{name}: success {result.success:.3f} ({result.low:.3f}-{result.high:.3f}) on "
            f"{result.episodes} episodes of {settings.final_split}"
        )

    def _write_summary(self) -> None:
        names = {"sft_double": "sft_double_demos"}
        entry: dict[str, Json] = {
            f"success_{names.get(name, name)}": finite(result.success)
            for name, result in self.results.items()
        }
        entry |= {
            "tasks": self.config.eval.final_tasks,
            "seconds": round(time.perf_counter() - self.began, 1),
            "cpu_seconds": round(self.cpu_before + time.process_time(), 1),
            "seed": self.config.run.seed,
            "parameters": self.stage.policy.parameter_count(),
            "steps": self.done,
            "env_steps": self.env_steps,
        }
        for name, steps in self.sft_steps.items():
            entry[f"{name}_steps"] = steps
        (self.folder / "summary.json").write_text(json.dumps([entry], indent=1) + "\n")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.say(
            f"{entry['seconds']} s wall, {entry['cpu_seconds']} CPU-s, peak {peak:.0f} MiB, "
            f"{entry['parameters']:,} parameters"
        )

    def write_episodes(
        self,
        name: str,
        phase: str,
        label: str,
        step: int,
        groups: Sequence[Group],
        rows: Sequence[TrainRow] = (),
    ) -> list[EpisodeRecord]:
        """This rank's episodes into `trajectories/NAME.parquet`; how they are recorded."""
        tokenizer = self.stage.policy.tokenizer

        @lru_cache(maxsize=65536)
        def piece(token: int) -> str:
            return str(tokenizer.decode([token]))

        advantages = turn_advantages(groups, rows)
        episodes = [
            record(
                trajectory,
                phase=phase,  # type: ignore[arg-type]
                label=label,
                step=step,
                group=g,
                sibling=i,
                piece=piece,
                advantages=advantages.get((g, i)),
            )
            for g, group in enumerate(groups)
            if not group.is_remote
            for i, trajectory in enumerate(group.trajectories)
        ]
        name += "" if self.is_first else f".rank{self.config.parallel.rank}"
        path = self.folder / "trajectories" / f"{name}.parquet"
        self.outbox.write(path.name, partial(write_episodes, path, episodes))
        return episodes
