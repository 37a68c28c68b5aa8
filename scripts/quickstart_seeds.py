"""Run the quickstart once per seed and collect the summaries:

    python scripts/quickstart_seeds.py 1 2 3

Each run gets `runs/quickstart/seed-N`; `runs/quickstart/summary.json` lists one entry per seed.
"""

import json
import sys
from pathlib import Path

from agentrl.core.config import load_config
from agentrl.train.loop import train

RECIPE = Path(__file__).parent / "quickstart.yaml"


def main(seeds: list[str]) -> None:
    """Train, then write the list after every seed, so that an interrupted call loses nothing."""
    entries = []
    for seed in seeds:
        name = load_config(RECIPE).run.name
        overrides = [f"run.seed={seed}", f"run.folder=runs/{name}", f"run.name=seed-{seed}"]
        folder = train(load_config(RECIPE, overrides))
        entries += json.loads((folder / "summary.json").read_text())
        (folder.parent / "summary.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
