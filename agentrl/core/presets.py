"""Presets: fragments of a config that say a whole method, laid over a recipe.

`agentrl train scripts/countdown.yaml --preset dr_grpo` reads `presets/dr_grpo.yaml` beside the
recipe. Each key of the preset takes the place of the recipe's whole key; overrides come last.
"""

from __future__ import annotations

from pathlib import Path

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.yaml_text import parse_file


def with_preset(recipe: Path, preset: str) -> dict[str, object]:
    """The recipe's settings with those of a preset in their place.

    Args:
        preset: a name in the folder `presets` beside the recipe, or the path of a YAML file.

    Raises:
        ConfigError: there is no such preset, or a file is no YAML mapping.
    """
    return {**parse_file(recipe), **parse_file(find_preset(recipe.parent / "presets", preset))}


def find_preset(folder: Path, preset: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if preset.endswith((".yaml", ".yml")):
        if not Path(preset).is_file():
            raise ConfigError(f"--preset {preset}: there is no such file")
        return Path(preset)
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if preset not in known:
        raise ConfigError(
            f"--preset: no preset in {folder} is called {preset!r}{did_you_mean(preset, known)} "
            f"(known: {', '.join(known) or 'none'}); or give the path of a YAML file"
        )
    return known[preset]
