"""The package's own answers as calls, and calls as the package's checkers want them."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agentrl.core.types import Json
from agentrl.envs.bfcl.package import Row
from agentrl.text.calls import Call


def answer(entry: Mapping[str, Mapping[str, Any]], functions: Sequence[Row]) -> Call:
    """One of the calls that `{name: {argument: [admissible values]}}` admits: the first value of
    each argument, save where the empty string says that it may be left out."""
    [(name, options)] = entry.items()
    required = [f["parameters"]["required"] for f in functions if f["name"] == name]
    return Call(name, _chosen(options, {key for keys in required for key in keys}))


def _chosen(options: Mapping[str, Any], required: Collection[str] = ()) -> dict[str, Json]:
    values = {key: v if isinstance(v, list) else [v] for key, v in options.items()}
    return {
        key: _plain(next((v for v in found if v != ""), ""))
        for key, found in values.items()
        if found and ("" not in found or key in required)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _chosen(value)
    return [_plain(one) for one in value] if isinstance(value, list) else value


def parsed(text: str, functions: Sequence[Row]) -> Call:
    """The call that `cd(folder='x')` spells; only literals are read, nothing is evaluated."""
    spelt = ast.parse(text.strip(), mode="eval").body
    assert isinstance(spelt, ast.Call)
    assert isinstance(spelt.func, ast.Name)
    name = spelt.func.id
    [keys] = [list(f["parameters"]["properties"]) for f in functions if f["name"] == name]
    values = {key: ast.literal_eval(one) for key, one in zip(keys, spelt.args, strict=False)}
    values |= {str(one.arg): ast.literal_eval(one.value) for one in spelt.keywords}
    return Call(name, values)


def spelt(call: Call, functions: Sequence[Row]) -> str | None:
    """`cd(folder='x')`, of known names and literals only; None where a name is not known."""
    keys = {f["name"]: f["parameters"]["properties"] for f in functions}.get(call.name)
    if keys is None or not set(call.arguments) <= set(keys):
        return None
    try:
        return f"{call.name}({','.join(f'{key}={v!r}' for key, v in call.arguments.items())})"
    except RecursionError:
        return None


def schema(function: Row, types: Mapping[str, str]) -> dict[str, Json]:
    """A function of the package as a JSON schema."""
    return {
        "name": function["name"],
        "description": f"{function['description']} Note that the provided function is in Python 3 "
        "syntax.",
        "parameters": _typed(function["parameters"], types),
    }


def _typed(value: Any, types: Mapping[str, str]) -> Any:
    """The package's names of types in JSON schema's words, all the way down."""
    if isinstance(value, list):
        return [_typed(one, types) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: types.get(one, one) if key == "type" and isinstance(one, str) else _typed(one, types)
        for key, one in value.items()
    }
