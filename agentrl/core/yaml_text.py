"""YAML in and out: a safe loader that refuses duplicate keys and reads `1e-4` as a number.

YAML 1.1 also reads dates and `12:30` as something else than text; those are text here. Whatever
`write` says, `parse_file` reads back as the same values.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from agentrl.core.errors import ConfigError, did_you_mean

_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_REPLACED = ("timestamp", "float", "int")


class _Loader(yaml.SafeLoader):
    """Plain data only."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.value in lines:
                problem = f"key {key.value!r} is given twice (first in line {lines[key.value]})"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            lines[str(key.value)] = key.start_mark.line + 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` would not read back as text."""

    def ignore_aliases(self, data: object) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag.rsplit(":", 1)[1] not in _REPLACED]
        for first, rules in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


def parse_file(path: Path) -> dict[str, object]:
    """The mapping that a YAML file holds; an empty file is an empty mapping.

    Raises:
        ConfigError: no such file, not YAML (with line and column), or not a mapping.
    """
    if not path.is_file():
        raise ConfigError(_missing(path))
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # bad characters, bad encoding
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got a {type(content).__name__}")
    return content


def parse_value(text: str) -> object:
    """One value, as it stands after the `=` of an override. Raises `ConfigError`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{text!r} is not YAML: {problem}") from None


def write(content: object) -> str:
    """Plain data as block YAML, in the order given."""
    return yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder: name a YAML file in it"
    if not path.parent.is_dir():
        return f"no config file {str(path)!r}: there is no folder {str(path.parent)!r}"
    known = sorted(p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"})
    return (
        f"no config file {str(path)!r}{did_you_mean(path.name, known)} "
        f"(known in {path.parent}: {', '.join(known) or 'none'})"
    )
