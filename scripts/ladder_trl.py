"""An arm of the ladder: TRL's own GRPOTrainer on a task, by `rollout_func` (docs/trl.md).

    python scripts/ladder_trl.py scripts/ladder/doorkey.yaml --seed 1

Model, tokenizer, warm start of form, batches, learning rate and budget of env steps are the
recipe's; trainer, loss and advantages are TRL's. TRL trains one row an episode, so the policy sees
its whole history (`context=full`). What TRL saved is played by our evaluator. The last line of the
output is what scripts/ladder.py keeps.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from agentrl.core.config import Config, load_config
from agentrl.core.types import Split
from agentrl.evaluate.runner import build_stage, evaluate
from agentrl.evaluate.statistics import EvalResult
from agentrl.train.trl import env_score, rollout_func, task_dataset

KEYS = ["explore=none", "context=full"]
"""What the recipe has otherwise."""
FORM = [
    "sft.source=random",
    "sft.demos=8",
    "sft.max_steps=25",
    "model.max_position_embeddings=4096",
]
"""The warm start of the ladder's plain arms, and room for a whole episode (no more weights)."""


class Counted:
    """Our rollouts, and what TRL asked of them so far."""

    def __init__(self, rollouts: Any, spent: int) -> None:
        self.rollouts, self.steps, self.tokens = rollouts, spent, 0
        self.first: int | None = None

    def __call__(self, prompts: Sequence[object], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        """The episodes; each run of sampled tokens is one env step."""
        found: dict[str, list[Any]] = self.rollouts(prompts, trainer)
        for mask in found["env_mask"]:
            self.steps += sum(is_own > was for was, is_own in pairwise([0, *mask]))
            self.tokens += sum(mask)
        if self.first is None and any(found["success"]):
            self.first = self.steps
        return found


class Budget(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends training once the env steps are spent, after all updates of a batch; saves at times."""

    def __init__(self, counted: Counted, config: Config) -> None:
        self.counted, self.config = counted, config
        self.batches = 0
        self.saved: dict[int, int] = {}
        """Env steps by the update after which weights were saved."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by TRL after each update."""
        if state.global_step % self.config.optim.updates_per_batch:
            return
        self.batches += 1
        most = self.config.run.env_steps
        control.should_training_stop = most is not None and self.counted.steps >= most
        if control.should_training_stop or self.batches % self.config.eval.every == 0:
            control.should_save = True
            self.saved[state.global_step] = self.counted.steps


def warm(recipe: Path, folder: Path, seed: int) -> int:
    """Teach a new model the form of actions; the env steps that it took."""
    command = [sys.executable, "-m", "agentrl", "train", str(recipe), *KEYS, *FORM]
    command += [f"run.folder={folder}", f"run.seed={seed}", "run.name=warm", "run.steps=0"]
    subprocess.run(
        [*command, "eval.final_tasks=0"], check=True, stdout=sys.stderr, timeout=900, cwd=folder
    )
    [summary] = json.loads((folder / "warm" / "summary.json").read_text())
    return int(summary["env_steps"])


def train(config: Config, start: Path, folder: Path, counted: Counted) -> Budget:
    """TRL's part."""
    optim, rollout, loss = config.optim, config.rollout, config.loss
    episodes, updates = rollout.tasks_per_step * rollout.group_size, optim.updates_per_batch
    settings = GRPOConfig(
        output_dir=str(folder),
        max_steps=config.run.steps * updates,
        per_device_train_batch_size=episodes // updates,
        steps_per_generation=updates,
        num_generations=rollout.group_size,
        learning_rate=optim.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=optim.warmup * updates,
        epsilon=loss.low,  # type: ignore[attr-defined]
        epsilon_high=loss.high,  # type: ignore[attr-defined]
        temperature=config.sampling.temperature,
        max_completion_length=4096,
        save_strategy="no",
        save_only_model=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=config.run.seed,
    )
    budget = Budget(counted, config)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(start),
        processing_class=AutoTokenizer.from_pretrained(start),
        train_dataset=task_dataset(config.env, "train"),
        rollout_func=counted,
        reward_funcs=env_score,
        args=settings,
        callbacks=[budget],
    )
    trainer.train()
    return budget


def played(config: Config, split: Split, tasks: int, name: str) -> EvalResult:
    """Success of the config's model, by our evaluator."""

    async def play() -> EvalResult:
        stage = await build_stage(config)
        await config.engine.start(stage.policy)
        try:
            agent = stage.engine_agent()
            return (await evaluate(stage, agent, name=name, split=split, tasks=tasks))[0]
        finally:
            await stage.worker.close()
            await config.engine.close()

    return asyncio.run(play())


def run(recipe: Path, seed: int, folder: Path, extra: list[str]) -> dict[str, object]:
    """Warm start, TRL, evaluations; what is kept of it."""
    began = time.perf_counter()
    spent = warm(recipe, folder, seed)
    start = folder / "warm" / "checkpoints" / "step-000000"
    keys = [*KEYS, "sft=none", f"run.seed={seed}", *extra]
    config = load_config(recipe, [*keys, f"model={start}"])
    with rollout_func(config) as rollouts:
        counted = Counted(rollouts, spent)
        budget = train(config, start, folder / "trl", counted)
    settings, curve = config.eval, []
    for step, at in {0: spent, **budget.saved}.items():
        saved = folder / "trl" / f"checkpoint-{step}" if step else start
        config = load_config(recipe, [*keys, f"model={saved}"])
        curve.append([at, played(config, settings.split, settings.tasks, "step").success])
    final = played(config, settings.final_split, settings.final_tasks, "final")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "successes": final.successes,
        "episodes": final.episodes,
        "env_steps": counted.steps,
        "steps": budget.batches,
        "first": counted.first,
        "explored": None,
        "curve": curve,
        "tokens": counted.tokens,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in usage), 1),
        "versions": json.loads((folder / "warm" / "versions.json").read_text()),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("keys", nargs="*", help="changes of the recipe, as for agentrl train")
    args = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(args.recipe.resolve(), args.seed, Path(folder), args.keys)))


if __name__ == "__main__":
    main()
