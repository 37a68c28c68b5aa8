"""Run the quickstart once per seed and collect the summaries:

    python scripts/quickstart_seeds.py 1 2 3
    python scripts/quickstart_seeds.py 1 2 3 engine=vllm engine.eager=true

Each run is a process of its own in `runs/quickstart/seed-N`; `runs/quickstart/summary.json` lists
one entry per seed and is written after every run, so that an interrupted call loses nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parent / "quickstart.yaml"
FOLDER = Path("runs/quickstart")


def main(words: list[str]) -> None:
    """Train, collect, print the table; what is no seed is a setting."""
    seeds = [word for word in words if word.isdigit()]
    settings = [word for word in words if not word.isdigit()]
    entries = []
    for seed in seeds:
        keys = [f"run.seed={seed}", f"run.folder={FOLDER}", f"run.name=seed-{seed}"]
        keys += settings
        subprocess.run([sys.executable, "-m", "agentrl", "train", str(RECIPE), *keys], check=True)
        entries += json.loads((FOLDER / f"seed-{seed}" / "summary.json").read_text())
        (FOLDER / "summary.json").write_text(json.dumps(entries, indent=1) + "\n")
    print("\nseed  random   bot   SFT  SFT x2  GRPO  seconds  CPU-s")
    for entry in entries:
        shares = (
            entry[f"success_{name}"]
            for name in ("random", "expert", "sft", "sft_double_demos", "final")
        )
        numbers = "  ".join(f"{share:.3f}" for share in shares)
        print(
            f"{entry['seed']:4d}   {numbers}  {entry['seconds']:7.1f}  {entry['cpu_seconds']:5.0f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
