"""Write docs/doctor.md: what the doctor looks at, and how often it is right.

    python scripts/doctor_page.py            # count again and write the page
    python scripts/doctor_page.py --check    # only say whether the page is what the code gives

Twelve kinds of trouble are injected into the recorded metrics of six real runs, from two fifths of
each on and growing for five steps. Real runs that nothing was done to, and real runs that went
wrong, stand beside them (`docs/results/doctor`: metrics to four digits).
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agentrl.track.doctor import CHECKS, examine

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "doctor.md"
KEPT = ROOT / "docs" / "results" / "doctor"
INJECTED = {
    "quickstart": "BabyAI, the quickstart",
    "frozenlake": "FrozenLake in words, GRPO",
    "lake-bonus": "FrozenLake in words, a bonus for rare states",
    "click-button": "MiniWoB++ click-button",
    "game24": "game of 24",
    "textworld": "TextWorld coin, level 5",
}
SEEN = {
    "frozenlake-gigpo": "FrozenLake, GiGPO",
    "enter-text": "MiniWoB++ enter-text",
    "textworld-solved": "TextWorld coin, level 15, solved from the start",
}
HELD = {
    "held-frozenlake": "FrozenLake, GRPO, other demonstrations",
    "held-click-button": "MiniWoB++ click-button, another form",
    "held-textworld": "TextWorld coin, level 5, lr 5e-4",
}
"""Runs whose curves were not looked at before the limits stood."""
BROKEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "broken-countdown": ("Countdown, which the warm start does not solve", ("dead groups",)),
    "broken-doorkey": ("DoorKey without exploration", ("dead groups",)),
    "broken-frozenlake-cold": ("FrozenLake, which the warm start does not solve", ("dead groups",)),
    "broken-frozenlake-lr": ("FrozenLake, lr 1e-3", ("invalid actions rising",)),
}
"""Runs that went wrong by themselves, and what was wrong, as their curves say."""
PURPOSE = {
    "purpose-lr-high": ("optim.lr=1e-2", "learning rate too high"),
    "purpose-lr-low": ("optim.lr=1e-9", "learning rate too low"),
    "purpose-war": (
        "reward={name: overlong, limit: 12, buffer: 11}, where succeeding takes tokens",
        "reward parts at war",
    ),
    "purpose-cold": ("sft.demos=2 sft.max_steps=5", "dead groups"),
    "purpose-ratio": (
        "optim.epochs=12 optim.lr=3e-3 optim.grad_clip=100",
        "exploding ratio",
    ),
    "purpose-stale": ("rollout.mode=async rollout.max_staleness=8", "stale samples"),
}
"""Runs of Countdown (24 steps of 12 tasks) that were broken on purpose: how, and what the doctor
had to say."""
BLIND = (
    "As the checks stood when they ran, it was 5 of 6: `optim.lr=1e-2` ruined the policy within"
    " two steps, before the check of the learning rate had a best success to compare with; it "
    "now looks at the first two steps as well. The parts at war were named in the last step "
    "only. The other kinds that the doctor names in these runs are what followed from the "
    "fault, and are true of their curves."
)
"""What is to be said of the runs that were broken on purpose."""
Line = dict[str, object]
Change = Callable[[Line, Line, float], None]
"""Spoils a line; it also gets the run's first line, and how far the trouble has come (0..1)."""


def read(name: str) -> list[Line]:
    """A run's metrics."""
    text = (KEPT / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def number(line: Mapping[str, object], key: str, otherwise: float) -> float:
    """What a line says, or what stands in where it was not measured."""
    value = line.get(key)
    return float(value) if isinstance(value, int | float) else otherwise


def _scaled(key: str, factor: float, otherwise: float) -> Change:
    def change(line: Line, first: Line, far: float) -> None:
        line[key] = number(line, key, otherwise) * factor**far

    return change


def _set(key: str, value: float) -> Change:
    def change(line: Line, first: Line, far: float) -> None:
        line[key] = value * far + number(line, key, 0.0) * (1 - far)

    return change


def _misread(line: Line, first: Line, far: float) -> None:
    line["rollout/invalid"] = min(1.0, number(line, "rollout/invalid", 0.0) + 0.5 * far)


def _failing(line: Line, first: Line, far: float) -> None:
    line["rollout/success"] = min(number(line, "rollout/success", 0.0), 0.7)


def _longer(line: Line, first: Line, far: float) -> None:
    line["rollout/tokens"] = number(first, "rollout/tokens", 20.0) * (1 + 1.2 * far)
    line["rollout/success"] = number(first, "rollout/success", 0.0)
    line["rollout/reward"] = number(first, "rollout/reward", 0.0) + 0.3 * far


def _crash(line: Line, first: Line, far: float) -> None:
    line["rollout/success"] = number(line, "rollout/success", 0.0) * (1 - 0.9 * far)
    line["loss/grad_norm"] = number(line, "loss/grad_norm", 0.5) * (1 + 7 * far)


def _still(line: Line, first: Line, far: float) -> None:
    line["drift/old_k3"] = number(line, "drift/old_k3", 1e-3) * 1e-8
    line["rollout/success"] = number(first, "rollout/success", 0.0)


def _dead(line: Line, first: Line, far: float) -> None:
    line["groups/frac_zero_std"] = 1.0
    line["rollout/success"] = 0.0


def _apart(line: Line, first: Line, far: float) -> None:
    line["drift/old_k3"] = number(line, "drift/old_k3", 1e-3) + 0.4 * far
    line["loss/clip_high"] = 0.5 * far


def _unmasked(line: Line, first: Line, far: float) -> None:
    line["loss/trained_share"] = 0.08 * (1 - 0.9 * far)


INJECTIONS: dict[str, tuple[Change, ...]] = {
    "entropy collapse": (_scaled("loss/entropy", 0.02, 0.5), _failing),
    "dead groups": (_dead,),
    "length hacking": (_longer,),
    "stale samples": (_set("rollout/staleness", 6.0),),
    "exploding ratio": (_apart,),
    "mask share": (_unmasked,),
    "sampler mismatch": (_set("mismatch/k3", 0.02),),
    "learning rate too high": (_crash,),
    "learning rate too low": (_still,),
    "reward parts at war": (_set("reward/parts_correlation", -0.8),),
    "KL runaway": (_set("drift/ref_k3", 1.5),),
    "invalid actions rising": (_misread,),
}


def spoilt(lines: Sequence[Line], changes: Sequence[Change]) -> list[Line]:
    """The run with trouble from two fifths of it on."""
    begin = 2 * len(lines) // 5
    made = []
    for i, line in enumerate(lines):
        new, far = dict(line), min(1.0, max(0.0, (i - begin + 1) / 5))
        new.setdefault("loss/trained_share", 0.08)
        for change in changes if far > 0 else ():
            change(new, lines[0], far)
        made.append(new)
    return made


def found_in(lines: Sequence[Line]) -> set[str]:
    """The kinds that the doctor names."""
    return {finding.kind for finding in examine(lines)}


def page() -> str:
    """The Markdown of docs/doctor.md."""
    kinds = [check.kind for check in CHECKS]
    clean = {name: found_in(read(name)) for name in (*INJECTED, *SEEN, *HELD)}
    hits = {
        (name, kind): found_in(spoilt(read(name), INJECTIONS[kind]))
        for name in INJECTED
        for kind in kinds
    }
    caught = sum(kind in found for (_, kind), found in hits.items())
    beside = [(kind, found - {kind}) for (_, kind), found in hits.items()]
    false_beside = sum(len(extra) for _, extra in beside)
    false_clean = sum(len(found) for found in clean.values())
    n_clean, n_beside = len(clean) * len(kinds), len(hits) * (len(kinds) - 1)
    broken = {name: found_in(read(name)) for name in BROKEN}
    wanted = sum(len(kinds) for _, kinds in BROKEN.values())
    right = sum(len(broken[name] & set(kinds)) for name, (_, kinds) in BROKEN.items())
    purpose = {name: found_in(read(name)) for name in PURPOSE}
    named = sum(kind in purpose[name] for name, (_, kind) in PURPOSE.items())
    whole = {name: clean[name] for name in (*SEEN, *HELD)}
    false_whole = sum(len(found) for found in whole.values())
    lines = [
        "# The doctor",
        "",
        "Generated by `scripts/doctor_page.py`; do not edit. After each step the console looks at",
        "the metrics so far, says once what is wrong and what to try, and keeps its name on the",
        "live line; the report has a section of it. `agentrl/track/doctor.py` has the checks.",
        "",
        "| kind | what is looked at | what to try |",
        "| --- | --- | --- |",
        *(f"| {c.kind} | {c.watches} | {c.advice} |" for c in CHECKS),
        "",
        "A metric that a run does not measure says nothing: the learning rate is not found too low",
        "where a step has a single update, since the policy's move is measured between updates.",
        "",
        "## How often it is right",
        "",
        f"- *Injected*: {len(kinds)} kinds into the metrics of {len(INJECTED)} real runs: "
        f"{caught} of {len(hits)} found ({100 * caught / len(hits):.1f} %); of {n_beside} other "
        f"checks beside them {false_beside} spoke ({100 * false_beside / n_beside:.1f} %).",
        f"- *Real runs that nothing was done to*: {len(clean)}, {len(kinds)} checks each: "
        f"{false_clean} of {n_clean} spoke ({100 * false_clean / n_clean:.1f} %). "
        f"The limits were chosen with the curves of all but the last {len(HELD)} in sight.",
        f"- *Real runs that went wrong*: {right} of {wanted} troubles named. What went wrong in "
        "them was read from the same curves, and the check of length hacking was changed after "
        "it had spoken in one of them: these are no blind test.",
        "",
        f"- *Twelve real runs, half of them broken on purpose*: {named} of {len(PURPOSE)} troubles "
        f"named; of {len(whole) * len(kinds)} checks of the {len(whole)} whole ones {false_whole} "
        f"spoke. {BLIND}",
        "",
        "| injected kind | found in | beside it |",
        "| --- | --- | --- |",
    ]
    for kind in kinds:
        n = sum(kind in hits[name, kind] for name in INJECTED)
        extra = sorted({one for k, found in beside if k == kind for one in found})
        lines.append(f"| {kind} | {n} of {len(INJECTED)} | {', '.join(extra)} |")
    lines += [
        "",
        "| real run | steps | the doctor says | went wrong |",
        "| --- | --- | --- | --- |",
    ]
    for name, what in (INJECTED | SEEN | HELD).items():
        lines.append(f"| {what} | {len(read(name))} | {', '.join(sorted(clean[name]))} | |")
    for name, (what, kind) in PURPOSE.items():
        said = ", ".join(sorted(purpose[name]))
        lines.append(f"| Countdown, {what} | {len(read(name))} | {said} | {kind} |")
    for name, (what, truth) in BROKEN.items():
        said = ", ".join(sorted(broken[name]))
        lines.append(f"| {what} | {len(read(name))} | {said} | {', '.join(truth)} |")
    lines += [
        "",
        "Injected troubles are cleaner than real ones: each is one metric, or two, of which the",
        "check knows. Runs that went wrong are few, and most of them in one way: the numbers say",
        "that the checks do what they say, and that they are quiet in runs that learn.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write docs/doctor.md.")
    parser.add_argument("--check", action="store_true", help="only compare the page with the code")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page():
            sys.exit("docs/doctor.md is not what the code says: scripts/doctor_page.py")
        return
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
