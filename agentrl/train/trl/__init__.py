"""Everything that speaks with TRL: its `SFTTrainer` for the warm start, and our environments under
its `GRPOTrainer`.

| TRL's argument | ours | what plays |
|---|---|---|
| `environment_factory` | `environment_factory(env)` | TRL: the env's actions are tools |
| `rollout_func` | `rollout_func(config)` | our worker and engine: ids, logprobs, mask |
| `train_dataset` | `task_dataset(env, split, count)` | either of them |
| `reward_funcs` | `env_score` (`rollout_func` only) | |

TRL calls both hooks experimental. No module here imports TRL before it is needed.
"""

from agentrl.train.trl.dataset import task_dataset
from agentrl.train.trl.environments import environment_factory
from agentrl.train.trl.rollouts import env_score, rollout_func
from agentrl.train.trl.warm_start import SftResult, sft

__all__ = [
    "SftResult",
    "env_score",
    "environment_factory",
    "rollout_func",
    "sft",
    "task_dataset",
]
