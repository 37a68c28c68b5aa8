"""What `scripts/results-program.yaml` needs, in the folder where it is started.

    python scripts/agents/prepare_babyai.py SEED

Writes `rows.jsonl`, tasks of BabyAI as rows of a file, no start twice, and trains the warm start of
the quickstart into `warm/run`. The agent itself has no expert to learn from.
"""

import json
import subprocess
import sys
from pathlib import Path

from babyai_agent import GAME

from agentrl.envs.babyai import BabyAI

QUICKSTART = Path(__file__).parents[1] / "quickstart.yaml"


def rows() -> list[dict[str, object]]:
    """Tasks of all splits; the file's rows are split anew, so no two may share their start."""
    game = BabyAI(**GAME)
    starts: dict[str, dict[str, object]] = {}
    for split in ("train", "dev", "test"):
        for task in game.tasks(split):
            game.reset(task)
            starts.setdefault(game.state_key(), {"id": task.id, "seed": task.seed})
    return list(starts.values())


def main() -> None:
    """Write both into the working directory."""
    lines = [json.dumps(row) + "\n" for row in rows()]
    Path("rows.jsonl").write_text("".join(lines))
    train = [sys.executable, "-m", "agentrl", "train", str(QUICKSTART), "run.steps=0"]
    own = ["run.folder=warm", "run.name=run", f"run.seed={sys.argv[1]}"]
    subprocess.run([*train, *own], check=True, timeout=600)


if __name__ == "__main__":
    main()
