"""Write the table of docs/scale.md from what the parity tests measured.

AGENTRL_PARITY=docs/results/parity make test-distributed    # measure
python scripts/scale_page.py                                # write the table
python scripts/scale_page.py --check                        # only say whether it is up to date
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "scale.md"
MEASURED = ROOT / "docs" / "results" / "parity"
BACKENDS = ("ddp", "fsdp", "deepspeed-2", "deepspeed-3")
BEGIN, END = "<!-- parity: begin -->\n", "<!-- parity: end -->\n"


def table() -> str:
    """One line for each case: the largest differences of loss, norm and weights, by backend."""
    found = {name: json.loads((MEASURED / f"{name}.json").read_text()) for name in BACKENDS}
    heads = [name.replace("deepspeed-", "ZeRO-") for name in BACKENDS]
    lines = [f"| case | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    for case in found["ddp"]:
        cells = [
            f"{gaps['loss/policy']:.0e} / {gaps['loss/grad_norm']:.0e} / {gaps['weights']:.0e}"
            if (gaps := found[name].get(case))
            else "refused"
            for name in BACKENDS
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(*arguments: str) -> int:
    """The exit status: 1 if the page is not up to date."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if arguments == ("--check",):
        if text != wanted:
            print("docs/scale.md is not what was measured: run make docs", file=sys.stderr)
        return int(text != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
