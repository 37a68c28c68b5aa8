"""What an env's own expert does on its train tasks, as a table that a proposer answers from.

    python scripts/oracle_table.py scripts/ladder/unlock.yaml --out oracle.jsonl
    agentrl train scripts/ladder/unlock.yaml explore.guide={name: table, path: oracle.jsonl}

One line for each state on the expert's way from the start of a task; a `noisy` proposer makes it
worse.
"""

import argparse
import asyncio
from pathlib import Path

from agentrl.core.config import load_config
from agentrl.core.graph import as_text
from agentrl.core.protocols import Env, Runner
from agentrl.core.types import Task
from agentrl.explore.ground import Ground
from agentrl.explore.tables import append_entry
from agentrl.rollout.runners import runner_for


async def told(env: Env, runner: Runner, tasks: list[Task], most: int, out: Path) -> int:
    """Write the table; how many lines it has."""
    handle, count = await runner.open(env), 0
    try:
        for task in tasks:
            ground = Ground(task=task, env=handle, runner=runner)
            key, is_over = await ground.begin(), False
            while not is_over and ground.steps < most:
                action = await ground.expert_action()
                entry = {"kind": "action", "task": task.id, "key": key, "answer": as_text(action)}
                append_entry(out, entry, {"by": "oracle"})
                landed = await ground.take(action)
                key, is_over, count = landed.key, landed.is_terminal, count + 1
    finally:
        await runner.close(handle)
    return count


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = load_config(given.recipe, [])
    runner = runner_for(config.env, config.rollout.runner)
    tasks = list(config.env.tasks("train"))
    given.out.unlink(missing_ok=True)
    count = asyncio.run(told(config.env, runner, tasks, config.rollout.max_turns, given.out))
    print(f"{given.out}: {len(tasks)} tasks, {count} answers")


if __name__ == "__main__":
    main()
