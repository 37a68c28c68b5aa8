"""Tasks as a dataset for TRL: each row's prompt carries its task, as JSON beside the content.

TRL hands a `rollout_func` nothing but the prompts, and `reset` of an environment the whole row, so
the prompt is the one place that both see. Chat templates do not look at the extra key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from agentrl.core.errors import ConfigError, DataError
from agentrl.core.protocols import Env
from agentrl.core.types import Split, Task

if TYPE_CHECKING:
    from datasets import Dataset

KEY = "task"
"""Where a message of a prompt holds its task."""


def task_dataset(
    env: Env,
    split: Split = "train",
    count: int | None = None,
    *,
    prompt: str = "",
    system: str = "",
) -> Dataset:
    """The first `count` tasks of a split (all without it) as a `train_dataset` of TRL.

    `environment_factory` shows `system`, `prompt` and then what the env shows first. `rollout_func`
    shows what the env shows, and ignores both.

    Raises:
        ConfigError: the split has fewer tasks, or datasets is not installed.
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise ConfigError(
            f"task_dataset needs datasets, and it is missing ({error}): pip install datasets"
        ) from error
    tasks = env.tasks(split)
    if count is not None and count > len(tasks):
        raise ConfigError(
            f"asked for {count} tasks of split {split!r}, and {type(env).__name__} has {len(tasks)}"
        )
    opening = [{"role": "system", "content": system}] if system else []
    return Dataset.from_list(
        [
            {
                "prompt": [
                    *opening,
                    {"role": "user", "content": prompt, KEY: json.dumps(asdict(task))},
                ],
                "task_id": task.id,
            }
            for task in (tasks[i] for i in range(len(tasks) if count is None else count))
        ]
    )


def task_of(prompt: object) -> Task:
    """The task that a prompt of `task_dataset` carries. Raises `DataError`."""
    messages = prompt if isinstance(prompt, Sequence) else ()
    last = messages[-1] if messages else None
    text = last.get(KEY) if isinstance(last, Mapping) else None
    if not isinstance(text, str):
        raise DataError(
            f"expected a prompt that carries its task, got {prompt!r:.200}: make the train_dataset "
            "with agentrl.train.trl.task_dataset(env)"
        )
    return Task(**cast("dict[str, str]", json.loads(text)))  # type: ignore[arg-type]
