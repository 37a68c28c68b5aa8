"""A run as one page: `report.html`, which opens from disk with no network and no server.

This file gathers what the run folder holds; `report_episodes.py` chooses the episodes,
`report_failures.py` counts what broke and `report_archive.py` tells what exploring found. The page
itself is `report.html.tmpl` with `report.css`, `report.js`, `report_archive.js` and
`report_episodes.js`, which draw the data by `textContent` alone. Whatever the folder lacks is named
in a sentence instead.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import cast

import yaml

from agentrl.core.errors import DataError
from agentrl.core.types import Json
from agentrl.evaluate.report_archive import pack_archive
from agentrl.evaluate.report_episodes import choose_episodes, find_episodes, pack_episodes
from agentrl.evaluate.report_failures import failures
from agentrl.evaluate.statistics import EVALS_FILE, EvalResult, read_evals
from agentrl.track.doctor import examine
from agentrl.track.jsonl import METRICS_FILE, finite, read_metrics

POINTS_PER_CURVE = 300
CONFIG_LENGTH = 100_000
TABLE_ORDER = ("random", "sft", "sft_double", "final", "expert")
LINKED = ("config.yaml", METRICS_FILE, EVALS_FILE, "summary.json", "versions.json", "trajectories")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A chart: the metrics whose keys match, together in one frame."""

    title: str
    keys: tuple[str, ...]
    """Patterns as in `fnmatch`."""
    percent: bool = False
    stacked: bool = False
    """Counts of one kind of thing each, drawn on top of each other."""
    note: str = ""
    group: str = ""
    """What a metric without a chart of its own stands under: what precedes its first slash."""


PANELS = (
    Panel(title="Success", keys=("rollout/success",), percent=True),
    Panel(title="Reward", keys=("rollout/reward",)),
    Panel(
        title="Solved by one of a group",
        keys=("groups/pass_at_k",),
        percent=True,
        note="pass@k, k the group's size",
    ),
    Panel(
        title="What the policy would choose itself",
        keys=("verify/gap", "verify/pairs"),
        percent=True,
        note="gain by its likeliest reply; pairs ranked right",
    ),
    Panel(title="Behaviours", keys=("style/*",), note="shares, success of each, their entropy"),
    Panel(
        title="Groups without signal",
        keys=("*/frac_zero_std*",),
        percent=True,
        note="all rewards equal",
    ),
    Panel(title="Entropy", keys=("loss/entropy",), note="nats per sampled token"),
    Panel(title="KL", keys=("loss/kl", "reward/kl"), note="nats per sampled token"),
    Panel(title="Loss", keys=("loss/policy", "loss/total")),
    Panel(title="Probability ratio", keys=("loss/ratio*",), note="new over old policy, mean"),
    Panel(
        title="Clipped tokens",
        keys=("loss/clip_*",),
        percent=True,
        note="share of sampled tokens",
    ),
    Panel(title="Gradient norm", keys=("*/grad_norm",), note="before clipping"),
    Panel(title="Learning rate", keys=("*/lr",)),
    Panel(
        title="Sampler mismatch",
        keys=("mismatch/gap*", "sync/probe_gap"),
        note="mean gap of logprobs",
    ),
    Panel(title="Effective sample size", keys=("mismatch/ess*",), percent=True),
    Panel(
        title="Corrected tokens",
        keys=("mismatch/capped*", "mismatch/rejected*"),
        percent=True,
        note="share of sampled tokens",
    ),
    Panel(title="Drift of the policy", keys=("drift/*",), note="KL, nats per sampled token"),
    Panel(
        title="Second channel",
        keys=("bonus/mean", "bonus/paid"),
        note="bonus of an episode, task reward paid for it",
    ),
    Panel(title="Second channel's share", keys=("bonus/coef", "bonus/need", "bonus/help")),
    Panel(
        title="Subgoals",
        keys=("bonus/goals_named", "bonus/goals_reached", "bonus/goals_paid"),
        note="of an episode",
    ),
    Panel(
        title="Cut off and invalid",
        keys=("rollout/truncated", "rollout/invalid*"),
        percent=True,
        note="share of episodes, of turns",
    ),
    Panel(
        title="Failed episodes",
        keys=("episodes/failed_*", "episodes/unscored"),
        stacked=True,
        note="each step, by what broke",
    ),
    Panel(title="Turns per episode", keys=("rollout/turns",)),
    Panel(title="Tokens per episode", keys=("rollout/tokens",)),
    Panel(title="Tokens per second", keys=("time/tokens_per_s",)),
    Panel(title="Seconds per step", keys=("time/*_s",)),
)
"""The charts shown at once; every other metric gets a chart under "all other metrics"."""
CURVES_PER_PANEL = 5


def write_report(run_folder: Path, episodes: int = 10) -> Path:
    """Make `run_folder/report.html` from what the folder holds, and return its path.

    `episodes` is how many of them the page shows.

    Raises:
        DataError: the folder does not exist, or one of its files cannot be read.
    """
    if not run_folder.is_dir():
        raise DataError(f"{run_folder} is no folder: give the folder that `agentrl train` wrote")
    path = run_folder / "report.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(_page(_gather(run_folder, episodes)), encoding="utf-8")
    temporary.replace(path)
    return path


def headline(evals: Sequence[EvalResult], method: str) -> str:
    """What the run did to success, in one sentence that claims no more than its intervals."""
    latest = latest_by_name(evals)
    after = latest.get("final")
    before = latest.get("sft") or next((e for e in evals if e.name == "step" and e.step == 0), None)
    if after is None:
        return "No final evaluation yet: this is a run in progress, or one that was stopped."
    if after.counted == 0:
        return f"All {after.episodes} episodes of the final evaluation broke: see its failures."
    where = f"on {after.tasks} {'held-out ' if after.split != 'train' else ''}{after.split} tasks"
    if before is None or before.split != after.split or before.counted == 0:
        return f"{method} ended at {_share(after.success)} success ({_interval(after)}) {where}."
    change = f"from {_share(before.success)} to {_share(after.success)} {where}"
    if after.low > before.high:
        return f"{method} raised sampled success {change}."
    if after.high < before.low:
        return f"{method} lowered sampled success {change}."
    return f"{method} moved sampled success {change}; the 95 % intervals overlap."


def latest_by_name(evals: Iterable[EvalResult]) -> dict[str, EvalResult]:
    """The newest result of each name, evaluations during training (`step`) left out."""
    return {result.name: result for result in evals if result.name != "step"}


def curves(metrics: Sequence[Mapping[str, Json]]) -> dict[str, dict[str, list[float | None]]]:
    """Metric -> its steps `x` and values `y` (None where it was not finite).

    Curves longer than `POINTS_PER_CURVE` are means over equal stretches of steps.
    """
    found: dict[str, dict[str, list[float | None]]] = {}
    for line in metrics:
        step = line.get("step")
        for key, value in line.items():
            if key in ("step", "seconds") or isinstance(value, str | bool | Sequence | Mapping):
                continue
            curve = found.setdefault(key, {"x": [], "y": []})
            curve["x"].append(cast("float", step))
            curve["y"].append(finite(value))
    return {key: _thin(curve) for key, curve in found.items()}


def panels(keys: Iterable[str]) -> tuple[list[Panel], list[Panel]]:
    """The charts to show at once, and those of every other key, one each, by group."""
    left = list(keys)
    shown = []
    for panel in PANELS:
        matched = [key for key in left if _belongs(key, panel)]
        shown += [
            replace(panel, keys=tuple(matched[start : start + CURVES_PER_PANEL]))
            for start in range(0, len(matched), CURVES_PER_PANEL)
        ]
        left = [key for key in left if key not in matched]
    others = [Panel(title=key, keys=(key,), group=key.rpartition("/")[0]) for key in left]
    return shown, sorted(others, key=lambda panel: (panel.group, panel.title))


def _belongs(key: str, panel: Panel) -> bool:
    if key.startswith("sft/"):  # counted in steps of its own
        return False
    return any(fnmatch(key, pattern) for pattern in panel.keys)


def _gather(folder: Path, episodes: int) -> dict[str, Json]:
    """All that the page shows, as JSON."""
    config_text, config = _config(folder / "config.yaml")
    evals = read_evals(folder)
    lines = read_metrics(folder)
    found = curves(lines)
    shown, others = panels(found)
    latest = latest_by_name(evals)
    ordered = [name for name in TABLE_ORDER if name in latest]
    ordered += [name for name in latest if name not in TABLE_ORDER]
    name = _at(config, "run", "name")
    data: dict[str, Json] = {
        "name": name if isinstance(name, str) else folder.resolve().name,
        "method": _method(config),
        "headline": headline(evals, _method(config)),
        "facts": _facts(config, found),
        "links": [link for link in LINKED if (folder / link).exists()],
        "doctor": [finding.plain() for finding in examine(lines)],
        "curves": cast("Json", found),
        "panels": [asdict(panel) for panel in shown],
        "other_panels": [asdict(panel) for panel in others],
        "evals": [latest[name].to_json() for name in ordered],
        "dev_evals": [result.to_json() for result in evals if result.name == "step"],
        "config": config_text,
        "versions": _json_file(folder / "versions.json"),
        "summary": _json_file(folder / "summary.json"),
    }
    places = list(find_episodes(folder))
    data["failures"] = cast("Json", [asdict(failure) for failure in failures(places)])
    data["n_episodes"] = len(places)
    data["archive"] = pack_archive(folder)
    return data | pack_episodes(choose_episodes(places, episodes))


def _config(path: Path) -> tuple[str, Json]:
    if not path.exists():
        return "", None
    text = path.read_text(encoding="utf-8")
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {error}") from error
    return text[:CONFIG_LENGTH], parsed


def _json_file(path: Path) -> Json:
    if not path.exists():
        return None
    try:
        return cast("Json", json.loads(path.read_text(encoding="utf-8"), parse_constant=str))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def _at(config: Json, *keys: str) -> Json:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _part(config: Json, slot: str) -> str:
    """The name of the part in a slot, `none` or `grpo` or `{name: grpo, ...}`; empty if unknown."""
    value = _at(config, slot)
    name = _at(value, "name") if isinstance(value, Mapping) else value
    return name if isinstance(name, str) else ""


def _method(config: Json) -> str:
    name = _part(config, "advantage")
    return (name.upper() if len(name) <= 5 else name) or "Training"


def _facts(config: Json, found: Mapping[str, Mapping[str, Sequence[float | None]]]) -> list[Json]:
    """Pairs for the line under the headline: what is known, in the order of interest."""
    steps = [int(x) for curve in found.values() for x in curve["x"][-1:] if x is not None]
    level, seed, model = (
        _at(config, *keys) for keys in (("env", "level"), ("run", "seed"), ("model",))
    )
    facts = {
        "environment": " ".join(
            part for part in (_part(config, "env"), level) if isinstance(part, str) and part
        ),
        "model": model if isinstance(model, str) else "built from the config" if model else "",
        "advantage": _part(config, "advantage"),
        "loss": _part(config, "loss"),
        "steps": str(max(steps)) if steps else "",
        "seed": "" if seed is None else str(seed),
    }
    return [[key, value] for key, value in facts.items() if value]


def _thin(curve: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    x, y = curve["x"], curve["y"]
    stride = math.ceil(len(x) / POINTS_PER_CURVE)
    thin: dict[str, list[float | None]] = {"x": [], "y": []}
    for start in range(0, len(x), stride):
        known = [value for value in y[start : start + stride] if value is not None]
        mean = math.fsum(known) / len(known) if known else None
        thin["x"].append(x[start : start + stride][-1])
        thin["y"].append(None if mean is None else float(f"{mean:.5g}"))
    return thin


def _share(success: float) -> str:
    return f"{100 * success:.1f}".removesuffix(".0") + " %"


def _interval(result: EvalResult) -> str:
    return f"95 % interval {_share(result.low)} to {_share(result.high)}"


def _page(data: Mapping[str, Json]) -> str:
    """The template with style, script and data in it; only that script may run."""
    here = files("agentrl.evaluate")
    style, charts, explored, episodes, template = (
        here.joinpath(name).read_text(encoding="utf-8")
        for name in (
            "report.css",
            "report.js",
            "report_archive.js",
            "report_episodes.js",
            "report.html.tmpl",
        )
    )
    script = f"{charts}\n{explored}\n{episodes}"
    values = {
        "TITLE": html.escape(f"{data['name']} - agentrl report"),
        "NAME": html.escape(str(data["name"])),
        "HEADLINE": html.escape(str(data["headline"]).replace(" %", "\N{NO-BREAK SPACE}%")),
        "STYLE": style,
        "STYLE_HASH": _csp_hash(style),
        "SCRIPT": script,
        "SCRIPT_HASH": _csp_hash(script),
        "DATA": _embed(data),
    }
    return re.sub(r"@@([A-Z_]+)@@", lambda match: values[match[1]], template)


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embed(data: Mapping[str, Json]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
