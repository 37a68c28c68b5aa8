"""A server that speaks vLLM's fields, with a real small model behind it and faults on demand.

It is no mock: requests are checked as vLLM checks them, tokens are sampled from the model's own
tempered distribution, weights arrive by the weight-transfer API from a safetensors file and change
what is sampled, a pause holds requests in mid-reply, and every token is noted with the weights that
made it. Fields and behaviour are those of vLLM 0.32; `speaks` turns on what 0.31 and 0.33 differ
in. It runs in a thread of the test (`FakeVllm(...)`), or in a process of its own (`serve_fake.py`).
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file

from support.fake_http import Answer, Broken, FakeHttp

if TYPE_CHECKING:
    from agentrl.engines.policy import LoadedPolicy

Fault = Literal[
    "killed",  # every connection breaks, and nobody listens any more
    "hung",  # nothing is answered any more
    "stuck",  # tokens no longer come, all else is answered
    "memory",  # out of memory: 500, and from then on unwell
    "500",
    "dropped",  # the connection breaks in the middle of the answer
    "nan",
    "short",  # fewer logprobs than tokens
    "long",  # more tokens than were asked for
    "foreign",  # a token that the model does not have
    "strange",  # tokens of weights that nobody pushed
    "garbage",
    "aborted",
    "push fails",  # half of the weights are loaded
    "push hangs",
    "push silent",  # from the push on nothing is answered any more
    "push lost",  # said to have arrived, and not loaded
]
OF_PUSHES = ("push fails", "push hangs", "push silent", "push lost")
PARAMS = {
    *("temperature", "seed", "max_tokens", "stop_token_ids", "ignore_eos", "logprobs"),
    *("prompt_logprobs", "detokenize"),
}
REQUEST = {
    "token_ids": {
        *("request_id", "token_ids", "sampling_params", "model", "priority"),
        *("content_parts", "return_token_ids"),
    },
    "prompt": {
        *("request_id", "prompt", "model", "priority"),
        *("return_token_ids", "return_tokens_as_token_ids", *PARAMS),
    },
}


def refused(words: str, status: int = 400) -> Answer:
    """An error as vLLM words it."""
    kind = HTTPStatus(status).phrase
    return Answer(
        status, {"error": {"message": words, "type": kind, "param": None, "code": status}}
    )


@dataclass(kw_only=True, eq=False)
class FakeVllm(FakeHttp):
    """One server. `hit(fault)` makes the next request that it fits fail."""

    module: Any
    """A causal language model of its own: pushes change it."""
    folder: str = "policy"
    guarded: tuple[str, ...] = ("/v1", "/inference")
    speaks: Literal["0.31.0", "0.32.0", "0.33.0"] = "0.32.0"
    scale_out: bool = True
    """Started with --enable-scale-out."""
    schedules: bool = True
    """Started with --scheduling-policy priority."""
    logprobs_mode: Literal["processed_logprobs", "raw_logprobs"] = "processed_logprobs"
    max_model_len: int = 256
    token_s: float = 0.0
    """How long a token takes at least."""
    push_s: float = 0.0
    """How long weights take to arrive."""
    image: tuple[int, int] = (-1, 1)
    """The placeholder of an image, and how many tokens an image takes."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all requests for tokens."""
    weights: str = "default"
    pushes: int = 0
    _faults: list[tuple[Fault, int]] = field(default_factory=list)
    _goes: asyncio.Event = field(default_factory=asyncio.Event)
    _is_hung: bool = False
    _is_stuck: bool = False
    _is_well: bool = True
    _is_broken: bool = False
    """A push failed half way."""
    _update: dict[str, torch.Tensor] | None = None
    _base: dict[str, torch.Tensor] | None = None
    """The weights without the adapter, once there is one."""
    _tokens: int = 0
    is_asleep: bool = False
    failed_at: float = 0.0
    """When a fault last happened, by `time.time()`."""

    # --- life -------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Accept connections."""
        self._goes.set()
        await super().listen()

    async def before(self) -> None:
        """One that hangs answers nothing."""
        while self._is_hung:
            await asyncio.sleep(0.05)

    def revive(self) -> None:
        """Its operator starts it again, with the weights it was first started with."""
        self._is_hung = self._is_stuck = self._is_broken = False
        self._is_well, self.weights = True, "default"
        asyncio.run_coroutine_threadsafe(self.listen(), self._loop).result(10)

    def hit(self, fault: Fault, *, after: int = 0) -> None:
        """Fail the next request (or push) that comes after so many others."""
        self._faults.append((fault, after))

    def _due(self, *, push: bool) -> Fault | None:
        for i, (fault, after) in enumerate(self._faults):
            if (fault in OF_PUSHES) is push:
                if after == 0:
                    del self._faults[i]
                    self.failed_at = time.time()
                    return fault
                self._faults[i] = (fault, after - 1)
                return None
        return None

    async def route(
        self, method: str, path: str, query: Mapping[str, list[str]], body: dict[str, Any]
    ) -> object:
        if method == "GET":
            return self._get(path)
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "/inference/v1/generate": lambda: self._generate(body, "token_ids"),
            "/v1/completions": lambda: self._generate(body, "prompt"),
            "/pause": lambda: self._pause(query.get("mode", ["abort"])[0]),
            "/resume": self._resume,
            "/reset_prefix_cache": self._succeed,
            "/start_weight_update": self._start_update,
            "/update_weights": lambda: self._receive(body["update_info"]["path"]),
            "/finish_weight_update": lambda: self._finish(body["weight_version"]),
            "/update_weight_version": lambda: self._name(body["new_version"]),
            "/v1/load_lora_adapter": lambda: self._adapt(body["lora_path"]),
            "/collective_rpc": lambda: self._adapt(body["args"][0]),
            "/sleep": lambda: self._sleep(True),
            "/wake_up": lambda: self._sleep(False),
        }
        if path not in verbs:
            raise Answer(404, {"detail": "Not Found"})
        return await verbs[path]()

    def _get(self, path: str) -> object:
        if path == "/version":
            return {"version": self.speaks}
        if path == "/health":
            raise Answer(200 if self._is_well else 503)
        if path == "/weight_info":
            return {"weight_version": self.weights}
        if path == "/v1/models":
            card = {"id": "policy", "root": self.folder, "max_model_len": self.max_model_len}
            adapters = [{"id": "adapter", "parent": "policy"}] if self._base is not None else []
            return {"object": "list", "data": [card, *adapters]}
        if path == "/metrics":
            labels = '{engine="0",model_name="policy"}'
            return (
                "# TYPE vllm:generation_tokens_total counter\n"
                f"vllm:generation_tokens_total{labels} {float(self._tokens)}\n"
                f"vllm:prompt_tokens_total{labels} 0.0\n"
                f'vllm:prompt_tokens_by_source_total{{engine="0",source="local"}} 7.0\n'
            )
        raise Answer(404, {"detail": "Not Found"})

    # --- weights ----------------------------------------------------------------------------------

    async def _pause(self, mode: str) -> object:
        if mode not in ("abort", "wait", "keep"):
            raise refused(f"no mode {mode!r}")
        self._goes.clear()
        return {"status": "paused"}

    async def _resume(self) -> object:
        self._goes.set()
        return {"status": "resumed"}

    async def _succeed(self) -> object:
        return {"success": True}

    async def _sleep(self, is_asleep: bool) -> object:
        self.is_asleep = is_asleep
        return {"status": "sleeping" if is_asleep else "awake"}

    async def _start_update(self) -> object:
        if self._is_broken:
            raise refused("an earlier push failed half way, start anew", 500)
        self._update = {}
        return {"message": "Weight update started"}

    async def _receive(self, path: str) -> object:
        if self._update is None:
            raise refused("start_weight_update must be called before", 500)
        if not Path(path).exists():
            raise refused(f"{path}: trainer and server do not share their memory", 500)
        self._update |= load_file(path)
        await asyncio.sleep(self.push_s)
        fault = self._due(push=True)
        self._is_hung |= fault == "push silent"
        if fault in ("push hangs", "push silent"):
            await asyncio.sleep(3600)
        if fault == "push fails":
            self._is_broken = True
            self._load(dict(list(self._update.items())[::2]))
            raise refused("CUDA out of memory. Tried to allocate 2.00 GiB", 500)
        if fault == "push lost":
            self._update = {}
        return {"message": "Weights updated"}

    async def _finish(self, version: str) -> object:
        assert self._update is not None
        if self._update:
            self._load(self._update)
        self._update, self.weights = None, version
        self.pushes += 1
        return {"message": "Weight update finished"}

    async def _name(self, version: str) -> object:
        self.weights = version
        return {"success": True, "new_version": version}

    async def _adapt(self, path: str) -> object:
        """Load an adapter; from then on requests have to ask for it by name."""
        if self._base is None:
            self._base = {k: v.clone() for k, v in self.module.state_dict().items()}
        told = json.loads((Path(path) / "adapter_config.json").read_text())
        pairs = load_file(Path(path) / "adapter_model.safetensors")
        whole = dict(self._base)
        for name, low in pairs.items():
            if ".lora_A." in name:
                high = pairs[name.replace("lora_A", "lora_B")]
                layer = name.partition(".lora_A.")[0].removeprefix("base_model.model.")
                delta = high @ low * (told["lora_alpha"] / told["r"])
                whole[f"{layer}.weight"] = self._base[f"{layer}.weight"] + delta
        self._load(whole)
        self.pushes += 1
        return "Success"

    def _load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        unknown = self.module.load_state_dict(tensors, strict=False).unexpected_keys
        if unknown:
            raise refused(f"no weights are called {unknown[:3]}", 500)

    # --- tokens -----------------------------------------------------------------------------------

    async def _generate(
        self, body: dict[str, Any], ids_in: Literal["token_ids", "prompt"]
    ) -> object:
        is_tokens = ids_in == "token_ids"
        if is_tokens and not self.scale_out:
            words = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out"
            raise refused(words, 404 if self.speaks == "0.31.0" else 403)
        params = body.get("sampling_params", {}) if is_tokens else body
        self._check(body, params, ids_in)
        self.asked.append(body)
        is_probe = params.get("prompt_logprobs") is not None
        fault = None if is_probe or body.get("priority") == 1 else self._due(push=False)
        await self._break(fault)
        prompt: list[int] = self._expanded(body[ids_in], body.get("content_parts", []))
        if is_probe:
            told = self._scored(prompt)
        ids, logprobs, labels, reason = await self._sampled(prompt, params)
        choice = self._choice(ids, logprobs, labels, reason, is_tokens=is_tokens)
        spoil(choice, fault, is_tokens=is_tokens)
        answer: dict[str, Any] = {"request_id": "r", "choices": [choice]}
        if body.get("return_token_ids") and is_tokens:
            answer["prompt_token_ids"] = prompt
        if is_probe:
            (answer if is_tokens else choice)["prompt_logprobs"] = told
        if fault == "garbage":
            return {"choices": "none"}
        return Broken(answer) if fault == "dropped" else answer

    def _check(self, body: dict[str, Any], params: dict[str, Any], ids_in: str) -> None:
        if unknown := body.keys() - REQUEST[ids_in]:
            raise refused(f"fields that agentrl should not send: {sorted(unknown)}")
        if ids_in == "token_ids" and (unknown := params.keys() - PARAMS):
            raise refused(f"sampling parameters: {sorted(unknown)}")
        if body.get("priority", 0) != 0 and not self.schedules:
            raise refused("Got priority 1 but priority scheduling is not enabled.")
        wanted = "adapter" if self._base is not None else None
        if body.get("model") != wanted:
            raise refused(f"asked for {body.get('model')}, and {wanted} was pushed last", 404)
        prompt, size = body[ids_in], int(self.module.config.vocab_size)
        if not prompt or not all(type(i) is int and 0 <= i < size for i in prompt):
            raise refused(f"token ids out of vocabulary: {prompt}")
        if len(prompt) + params["max_tokens"] > self.max_model_len:
            raise refused("This model's maximum context length is exceeded")
        if not 0 <= params["temperature"] <= 2:
            raise refused("temperature must be in [0, 2]")
        if not 0 <= params.get("seed", 0) < 2**63:
            raise refused("seed out of range")

    def _expanded(self, prompt: list[int], parts: list[dict[str, str]]) -> list[int]:
        """As vLLM's processor does with prompts of tokens: each placeholder stands for an image."""
        mark, size = self.image
        if not parts:
            return prompt
        if prompt.count(mark) != len(parts):
            raise refused(f"Failed to apply prompt replacement for mm_items['image'][{len(parts)}]")
        for part in parts:
            assert b64decode(part["url"].partition("base64,")[2]).startswith(b"\x89PNG")
        return [token for one in prompt for token in [one] * (size if one == mark else 1)]

    async def _break(self, fault: Fault | None) -> None:
        """Faults that come before any token."""
        if fault == "killed":
            self.die()
        self._is_hung |= fault == "hung"
        self._is_stuck |= fault == "stuck"
        while self._is_hung or self._is_stuck or fault == "killed":
            await asyncio.sleep(0.05)
        if fault == "memory":
            self._is_well = False
        if not self._is_well:
            raise refused("CUDA out of memory. Tried to allocate 2.00 GiB", 500)
        if fault == "500":
            raise refused("Internal server error", 500)

    async def _sampled(
        self, prompt: list[int], params: dict[str, Any]
    ) -> tuple[list[int], list[float], list[str], str]:
        """Tokens, logprobs, the weights of each, and why it ended."""
        draws = np.random.default_rng(params.get("seed"))
        ids: list[int] = []
        logprobs: list[float] = []
        labels: list[str] = []
        while len(ids) < params["max_tokens"]:
            await self._goes.wait()
            await asyncio.sleep(self.token_s)
            await self._goes.wait()
            logits_V = self._logits([*prompt, *ids])[-1]
            heat = params["temperature"]
            logp_V = (logits_V / (heat or 1.0)).log_softmax(-1)
            token = int(logits_V.argmax())
            if heat:
                share_V = logp_V.double().exp().cumsum(-1)
                token = int(torch.searchsorted(share_V, draws.random() * float(share_V[-1])))
            if self.logprobs_mode == "raw_logprobs":
                logp_V = logits_V.log_softmax(-1)
            ids.append(token)
            logprobs.append(float(logp_V[token]))
            labels.append(self.weights)
            self._tokens += 1
            if token in params.get("stop_token_ids", ()):
                return ids, logprobs, labels, "stop"
        return ids, logprobs, labels, "length"

    def _logits(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits_TV: torch.Tensor = self.module(input_ids=torch.tensor([ids])).logits[0].float()
        return logits_TV

    def _scored(self, prompt: list[int]) -> list[object]:
        logp_TV = self._logits(prompt).log_softmax(-1)
        told: list[object] = [None]
        for t, token in enumerate(prompt[1:]):
            told.append({str(token): {"logprob": float(logp_TV[t, token]), "rank": 1}})
        return told

    def _choice(
        self,
        ids: list[int],
        logprobs: list[float],
        labels: list[str],
        reason: str,
        *,
        is_tokens: bool,
    ) -> dict[str, Any]:
        stopped = ids[-1] if reason == "stop" else None
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": reason,
            "stop_reason": stopped,
            "token_ids": ids,
        }
        names = [f"token_id:{token}" for token in ids]
        if not is_tokens:
            told: dict[str, Any] = {"tokens": names, "token_logprobs": logprobs}
            return {**choice, "text": "", "logprobs": told}
        old = self.speaks == "0.31.0"
        content = [
            {**({"token": name} if old else {"token_id": token}), "logprob": logprob}
            for token, name, logprob in zip(ids, names, logprobs, strict=True)
        ]
        choice["logprobs"] = {"content": content}
        if not old:
            choice["weight_versions"] = spans(labels)
        return choice


def fake(policy: LoadedPolicy, **changes: Any) -> FakeVllm:
    """A server that was started with this policy's weights of now."""
    return FakeVllm(module=copy.deepcopy(policy.module).eval(), **changes)


def spans(labels: list[str]) -> list[dict[str, Any]]:
    """Runs of equal labels."""
    found: list[dict[str, Any]] = []
    for t, name in enumerate(labels):
        if not found or found[-1]["version"] != name:
            found.append({"version": name, "start": t, "end": t})
        found[-1]["end"] = t + 1
    return found


def spoil(choice: dict[str, Any], fault: Fault | None, *, is_tokens: bool) -> None:
    """Faults in an answer that is whole otherwise."""
    told = choice["logprobs"]
    columns = [told["content"]] if is_tokens else [told["tokens"], told["token_logprobs"]]
    if fault == "nan" and is_tokens:
        told["content"][0]["logprob"] = -9999.0
    if fault == "nan" and not is_tokens:
        told["token_logprobs"][0] = -9999.0
    if fault == "short":
        for column in columns:
            column.pop()
    if fault == "long":
        for column in (choice["token_ids"], *columns):
            column.extend(column[:1] * 300)
    if fault == "foreign":
        choice["token_ids"][0] = 10**6
        columns[0][0] = {"token_id": 10**6, "logprob": -1.0} if is_tokens else "token_id:1000000"
    if fault == "strange":
        choice["weight_versions"] = spans(["77"] * len(choice["token_ids"]))
    if fault == "aborted":
        choice["finish_reason"] = "abort"


def interpreter(folder: Path) -> Path:
    """What `engine.python` names so that fakes are served in vLLM's place (`serve_fake.py`)."""
    path = folder / "python"
    path.write_text(
        '#!/bin/sh\nif [ "$2" = -c ]; then echo 0.32.0+cpu; exit; fi\n'
        f'exec {sys.executable} {Path(__file__).absolute().with_name("serve_fake.py")} "$@"\n'
    )
    path.chmod(0o755)
    return path
