"""Benchmarks that are known by name and cannot be played here: their data must be fetched.

    agentrl play alfworld
    env alfworld: ... pip install alfworld, then alfworld-download ...

ALFWorld, WebShop, AppWorld and tau2-bench keep their tasks in archives of their own sites. Without
them no code of ours could be tried, so none is here: the names say what to fetch, where it
belongs, and whether it is there already. `docs/add-an-env.md` shows what is left to write.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agentrl.core import registry
from agentrl.core.errors import MissingDataError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.types import Action, Observation, Split, Step, Task


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a benchmark asks for before it can be played."""

    module: str
    """Importable once its code is installed."""
    steps: tuple[str, ...]
    """Commands, in their order."""
    variable: str = ""
    """The environment variable that names the folder of its data."""
    folder: str
    """Where its data lies otherwise."""
    beside: str
    """What stands in the way of one environment for both."""

    @property
    def place(self) -> Path:
        """The folder of its data, whether or not it is there."""
        named = os.environ.get(self.variable) if self.variable else None
        return Path(named or self.folder).expanduser()

    def told(self, name: str) -> str:
        """What to fetch, what of it is there, and what to do then."""
        has_code = importlib.util.find_spec(self.module) is not None
        named = f" (or where {self.variable} says)" if self.variable else ""
        return (
            f"env {name}: its data is no part of agentrl, and neither is code that plays it. "
            f"Fetch it by {' , then '.join(self.steps)} ; it belongs in {self.folder}{named}. "
            f"Here: package {self.module} {'found' if has_code else 'not found'}, folder "
            f"{self.place} {'found' if self.place.is_dir() else 'not found'}. {self.beside} "
            "Then wrap it as docs/add-an-env.md shows, under a name of your own"
        )


class Elsewhere(Env):
    """An environment of which there is the name alone."""

    runs_in: ClassVar[RunsIn] = "process"
    needs: ClassVar[Needs]

    def tasks(self, split: Split) -> Sequence[Task]:
        """None. Raises `MissingDataError`."""
        raise self._missing()

    def reset(self, task: Task) -> Observation:
        """Never begins. Raises `MissingDataError`."""
        raise self._missing()

    def step(self, action: Action) -> Step:
        """Never steps. Raises `MissingDataError`."""
        raise self._missing()

    def _missing(self) -> MissingDataError:
        _, name = registry.slot_of(type(self)) or ("env", type(self).__name__)
        return MissingDataError(self.needs.told(name))


@register("env", "alfworld")
@dataclass(kw_only=True)
class AlfWorld(Elsewhere):
    """ALFWorld's household games in text. Needs data: only its name is known here."""

    needs = Needs(
        module="alfworld",
        steps=("pip install alfworld", "alfworld-download"),
        variable="ALFWORLD_DATA",
        folder="~/.cache/alfworld",
        beside="It may share an environment with agentrl: its text version needs TextWorld.",
    )
    licence: ClassVar[str] = "MIT"
    cite: ClassVar[str] = "Shridhar et al. 2021, arXiv 2010.03768"


@register("env", "webshop")
@dataclass(kw_only=True)
class WebShop(Elsewhere):
    """WebShop, a shop of 1.18 million goods. Needs data: only its name is known here."""

    needs = Needs(
        module="web_agent_site",
        steps=(
            "git clone https://github.com/princeton-nlp/webshop.git",
            "cd webshop && ./setup.sh -d small",
        ),
        folder="webshop/data",
        beside="That is 1,000 goods, -d all fetches all. It needs Python 3.8 and Java: a service.",
    )
    licence: ClassVar[str] = "Princeton's own: see its LICENSE.md"
    cite: ClassVar[str] = "Yao et al. 2022, arXiv 2207.01206"


@register("env", "appworld")
@dataclass(kw_only=True)
class AppWorld(Elsewhere):
    """AppWorld's coding tasks over nine apps. Needs data: only its name is known here."""

    needs = Needs(
        module="appworld",
        steps=("pip install appworld", "appworld install", "appworld download data"),
        variable="APPWORLD_ROOT",
        folder="data",
        beside="It needs pydantic 1 and agentrl pydantic 2, so it has to run as a service.",
    )
    licence: ClassVar[str] = "Apache-2.0"
    cite: ClassVar[str] = "Trivedi et al. 2024, arXiv 2407.18901"


@register("env", "tau2")
@dataclass(kw_only=True)
class Tau2(Elsewhere):
    """tau2-bench, customers and rules of service. Needs data: only its name is known here."""

    needs = Needs(
        module="tau2",
        steps=(
            "git clone https://github.com/sierra-research/tau2-bench",
            "cd tau2-bench && uv sync --extra gym",
        ),
        variable="TAU2_DATA_DIR",
        folder="tau2-bench/data",
        beside="It needs Python 3.12 and a language model that plays the customer.",
    )
    licence: ClassVar[str] = "MIT"
    cite: ClassVar[str] = "Barres et al. 2025, arXiv 2506.07982"
