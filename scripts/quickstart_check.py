"""The quickstart cut to a few updates: exits with 1 unless GRPO beats its own warm start."""

import json
import sys
import tempfile
from pathlib import Path

from agentrl.core.config import load_config
from agentrl.train.loop import train

RECIPE = Path(__file__).parent / "quickstart.yaml"
CUT = [
    "run.name=quickstart-check",
    "run.steps=8",
    "sft.double=false",
    "eval.baselines=false",
    "eval.every=4",
    "eval.tasks=60",
    "eval.final_tasks=100",
]


def main() -> int:
    """Train, compare, say which won."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(load_config(RECIPE, [*CUT, f"run.folder={folder}"]))
        [entry] = json.loads((run / "summary.json").read_text())
    before, after = entry["success_sft"], entry["success_final"]
    is_better = after > before
    print(
        f"success on {entry['tasks']} held-out tasks: {before:.2f} after SFT, {after:.2f} after "
        f"{entry['steps']} GRPO steps: {'better' if is_better else 'NOT better'}"
    )
    return 0 if is_better else 1


if __name__ == "__main__":
    sys.exit(main())
