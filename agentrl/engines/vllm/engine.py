"""The engine `vllm`: a pool of vLLM servers, which the run starts or is given the addresses of.

    engine: {name: vllm, replicas: 2, gpus: [0, 1]}         # two servers of this run
    engine: {name: vllm, urls: ["http://10.0.0.5:8000"]}    # of agentrl serve-vllm

Servers never share the trainer's module: they get its weights by a push, and what they answer is
compared with the trainer's own logprobs, at the start here and after every push in `train/sync.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from annotated_types import Ge, Gt, Lt

from agentrl.core.errors import ConfigError, EngineError
from agentrl.core.protocols import Completion, Policy, SamplingParams
from agentrl.core.registry import register
from agentrl.core.shapes import Secret
from agentrl.core.types import Image
from agentrl.engines.policy import LoadedPolicy, save_base
from agentrl.engines.support import EXACT, ROUNDED
from agentrl.engines.vllm.client import Client, Pictures
from agentrl.engines.vllm.held import Held, HeldFolder, HeldTensors
from agentrl.engines.vllm.pool import Pool
from agentrl.engines.vllm.pushing import Pusher, Way
from agentrl.engines.vllm.replica import Replica
from agentrl.engines.vllm.server import Server, ServerSettings

Seconds = Annotated[float, Gt(0)]
VENV = Path(".venv-vllm/bin/python")
"""Where the interpreter of vLLM's own environment is looked for."""
PYTHON = "AGENTRL_VLLM_PYTHON"
PROBED = 24
"""Tokens on which a server is compared with the policy when it starts."""


def interpreter(named: Path | None) -> Path:
    """The interpreter that has vLLM: the one that is named, that of the environment variable
    `AGENTRL_VLLM_PYTHON`, `.venv-vllm/bin/python`, or the one that runs."""
    if named is not None:
        return named
    if os.environ.get(PYTHON):
        return Path(os.environ[PYTHON])
    return VENV.absolute() if VENV.exists() else Path(sys.executable)


@register("engine", "vllm")
@dataclass(kw_only=True)
class Vllm:
    """Samples from vLLM servers over HTTP, token ids both ways; weights are pushed to them.

    A server that fails is started again, or dropped; the run goes on while one is left.
    """

    shares_module: ClassVar[bool] = False

    urls: tuple[str, ...] = ()
    """Addresses of servers that run already, as `agentrl serve-vllm` starts them; none starts
    servers for this run alone."""
    replicas: Annotated[int, Ge(1)] = 1
    """Servers to start (1 or more), where no `urls` are given."""
    api_key: Annotated[str, Secret()] = field(default="", repr=False, compare=False)
    """What given servers want to see; it is kept out of config.yaml. Better is the environment
    variable that `api_key_from` names."""
    api_key_from: str = "VLLM_API_KEY"
    """The environment variable that holds the key, where `api_key` is empty."""
    python: Path | None = None
    """Interpreter of the environment that holds vLLM; `none` takes `AGENTRL_VLLM_PYTHON`, then
    `.venv-vllm/bin/python`, then the one that runs."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in servers that are started; `auto` is the policy's."""
    gpus: tuple[int, ...] = ()
    """GPUs of the servers that are started, in equal shares; the GPUs of one server hold one model.
    None leaves the choice to each server, which takes the first."""
    gpu_memory: Annotated[float, Gt(0), Lt(1)] = 0.9
    """Share of a GPU's memory for a server's weights and KV (above 0, below 1). Beside a trainer on
    the same GPU it must leave room for that."""
    kv_gib: Annotated[int, Ge(1)] = 1
    """Memory for KV of a server without a GPU (GiB, 1 or more)."""
    threads: Annotated[int, Ge(1)] = 1
    """Threads of a server without a GPU (1 or more)."""
    max_seqs: Annotated[int, Ge(1)] = 64
    """Requests that a server computes at once (1 or more); more wait, early episodes first."""
    eager: bool = False
    """Start quickly and sample slowly: nothing is compiled or captured."""
    push: Literal["auto", "shm", "lora", "merged", "nccl"] = "auto"
    """How weights get to the servers: all of them through shared memory (`shm`) or from GPU to GPU
    (`nccl`, which needs vLLM beside the trainer too); of a LoRA policy the adapter alone (`lora`),
    or all with the adapter added (`merged`). `auto` takes `lora` where there is one, else `shm`."""
    keep_kv: bool = False
    """Keys and values survive a push: what older weights made of a prompt is not computed again."""
    host: str = "127.0.0.1"
    """An address of this machine that the servers reach, for `nccl`."""
    sleep: bool = False
    """Servers give their GPU's memory back while nothing is sampled: for a trainer on that GPU."""
    silence_s: Seconds = 30.0
    """Seconds without an answer, or without a new token while requests wait, after which a server
    is taken to hang (above 0)."""
    start_s: Seconds = 600.0
    """Seconds that the start of a server may take (above 0)."""
    push_s: Seconds = 600.0
    """Seconds that a push may take (above 0)."""
    restarts: Annotated[int, Ge(0)] = 3
    """How often a server that the run started is started again before it is dropped (0 or more)."""
    extra: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, for servers that are started."""

    _policy: LoadedPolicy | None = field(default=None, init=False, repr=False, compare=False)
    _pool: Pool | None = field(default=None, init=False, repr=False, compare=False)
    _home: tempfile.TemporaryDirectory[str] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    _served: str = field(default="", init=False, repr=False, compare=False)
    _live: set[int] = field(default_factory=set, init=False, repr=False, compare=False)
    _is_asleep: bool = field(default=False, init=False, repr=False, compare=False)
    _bed: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.urls and self.gpus:
            raise ConfigError("gpus: given servers (urls) have their own; leave one of them out")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"urls: expected http://HOST:PORT (got {url!r})")

    # --- start ------------------------------------------------------------------------------------

    async def start(self, policy: Policy) -> None:
        """Have servers that sample from `policy`: start them, or push to those that run.

        Raises:
            ConfigError: these settings cannot serve this policy.
            EngineError: a server does not start, or does not compute what the policy computes.
            DeadlineError: a server does not start in time.
        """
        self._policy = cast(LoadedPolicy, policy)
        self._live.clear()
        shape = _shape(self._policy)
        if self._pool is not None and self._served != shape:
            await self.close()
            self._policy = cast(LoadedPolicy, policy)
        folder = self._written()
        held = self._held(folder)
        if self._pool is None:
            self._pool, self._served = self._new_pool(folder, held), shape
            await self._open(self._pool, held)
        else:
            old, self._pool.folder = self._pool.folder, folder
            self._pool.fresh = held if isinstance(held, HeldFolder) else None
            await self._wake()
            await self._pool.load(held)
            shutil.rmtree(old, ignore_errors=True)
        await self._compare(self._pool)

    def _written(self) -> Path:
        """A folder with the policy: a new one, since servers are started again from the old."""
        assert self._policy is not None
        if self._home is None:
            self._home = tempfile.TemporaryDirectory(prefix="agentrl-vllm-")
        folder = Path(tempfile.mkdtemp(prefix="policy-", dir=self._home.name))
        if self._way == "lora":
            save_base(self._policy, folder)
        else:
            self._policy.save(folder)
        return folder

    @property
    def _way(self) -> Way:
        assert self._policy is not None
        if not hasattr(self._policy.module, "peft_config"):
            return "nccl" if self.push == "nccl" else "shm"
        if self.push == "auto":
            return "lora"
        return "merged" if self.push == "shm" else self.push

    def _held(self, folder: Path) -> Held:
        assert self._policy is not None
        if self._way == "lora":
            return HeldTensors(version=0, given=self._policy.module.state_dict())
        return HeldFolder(version=0, folder=folder)

    def _new_pool(self, folder: Path, held: Held) -> Pool:
        assert self._policy is not None
        pool = Pool(
            push=Pusher(
                way=self._way,
                alpha=_alpha(self._policy),
                keep_kv=self.keep_kv,
                host=self.host,
                push_s=self.push_s,
            ),
            folder=folder,
            fresh=held if isinstance(held, HeldFolder) else None,
            vocabulary=_vocabulary(self._policy),
            start_s=self.start_s,
            push_s=self.push_s,
            restarts=self.restarts,
            max_seqs=self.max_seqs,
        )
        rank, world = (int(os.environ.get(name, default)) for name, default in RANKS)
        key = self.api_key or os.environ.get(self.api_key_from, "")
        if self.urls:
            if len(self.urls) < world:
                raise ConfigError(
                    f"urls: {world} processes train, and each needs a server of its own to push "
                    f"to (got {len(self.urls)} urls)"
                )
            for url in self.urls[rank::world]:
                pool.replicas.append(self._replica(pool, Client(url, key), None))
        for i in range(0 if self.urls else self.replicas):
            server = Server(
                settings=self._settings(rank * self.replicas + i, world * self.replicas),
                log=Path(self._home.name if self._home else ".") / f"server-{rank}-{i}.log",
            )
            pool.replicas.append(self._replica(pool, Client("http://127.0.0.1:0"), server))
        for replica in pool.replicas:
            replica.client.vocabulary = pool.vocabulary
        return pool

    def _replica(self, pool: Pool, client: Client, server: Server | None) -> Replica:
        return Replica(client=client, server=server, on_break=pool.broke, silence_s=self.silence_s)

    def _settings(self, number: int, count: int) -> ServerSettings:
        """Of server `number` out of `count`."""
        assert self._policy is not None
        share, rest = divmod(len(self.gpus), count)
        if rest:
            raise ConfigError(f"gpus: {len(self.gpus)} GPUs cannot be shared by {count} servers")
        kind = str(next(self._policy.module.parameters()).dtype).removeprefix("torch.")
        adapter = getattr(self._policy.module, "peft_config", {}).get("default")
        return self.settings_of(
            kind if self.dtype == "auto" else self.dtype,
            self.gpus[number * share : (number + 1) * share],
            self._policy.context_length,
            adapter.r if adapter is not None and self._way == "lora" else 0,
        )

    def settings_of(
        self, dtype: str, gpus: tuple[int, ...], max_len: int | None, lora_rank: int
    ) -> ServerSettings:
        """How a server is started."""
        return ServerSettings(
            python=interpreter(self.python),
            dtype=cast("Literal['auto']", dtype),
            max_model_len=max_len,
            max_num_seqs=self.max_seqs,
            gpus=gpus,
            memory_fraction=self.gpu_memory,
            kv_gib=self.kv_gib,
            threads=self.threads,
            lora_rank=lora_rank,
            is_eager=self.eager,
            can_sleep=self.sleep,
            transfer="nccl" if self.push == "nccl" else "agentrl_shm",
            extra=self.extra,
        )

    async def _open(self, pool: Pool, held: Held) -> None:
        """Start every server, or greet it, and bring it the weights. All must come up: what fails
        at the start is a fault of the settings."""
        try:
            await pool.open(held)
        except BaseException:
            await self.close()
            raise

    async def _compare(self, pool: Pool) -> None:
        """A server that computes another function than the policy must not be sampled from."""
        assert self._policy is not None
        module = self._policy.module
        ids = random.Random(0).choices(range(pool.vocabulary), k=PROBED)
        ours = policy_logprobs(module, ids)
        for url, theirs in (await pool.probe(ids)).items():
            gap = _gap(ours, theirs, is_exact=self.is_exact)
            if gap > (EXACT if self.is_exact else ROUNDED):
                raise EngineError(
                    f"vLLM server {url} does not compute what the policy computes: logprobs of "
                    f"{PROBED} tokens differ by {gap:.2e} nats; see that engine.dtype is the "
                    "policy's, and that vLLM knows this architecture"
                )

    @property
    def is_exact(self) -> bool:
        """Servers compute in float32, as the policy does, so that logprobs agree but for a few
        roundings. Shorter types are compared by their means."""
        assert self._policy is not None
        kind = next(self._policy.module.parameters()).dtype
        return kind == torch.float32 and self.dtype in ("auto", "float32")

    # --- requests ---------------------------------------------------------------------------------

    def _open_pool(self, what: str) -> Pool:
        if self._pool is None:
            raise EngineError(f"engine 'vllm' was {what} before start(policy)")
        return self._pool

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        """Sample from the server that holds the prefix; early episodes go first.

        Images are sent if the prompt has placeholders for them, which only that of a
        vision-language model has.
        """
        pool = self._open_pool("asked")
        self._live.add(episode)
        await self._wake()
        pictures = self._pictures(prompt_ids, images or ())
        return await pool.generate(
            prompt_ids, params, episode=episode, group=group, pictures=pictures
        )

    def _pictures(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> Pictures | None:
        assert self._policy is not None
        settings = self._policy.module.config
        names = ("image_token_id", "image_token_index")
        ids = (getattr(settings, name, None) for name in names)
        placeholder = next((token for token in ids if token is not None), None)
        if placeholder is None or placeholder not in prompt_ids:
            return None
        return Pictures(images, placeholder)

    async def end(self, episode: int) -> None:
        """Nothing is kept for it; with the last one, servers that sleep go to sleep."""
        pool = self._pool
        if pool is None:
            return
        self._live.discard(episode)
        pool.end(episode)
        if self.sleep and not self._live:
            async with self._bed:
                if not self._live and not self._is_asleep:
                    self._is_asleep = True
                    await pool.sleep()

    async def _wake(self) -> None:
        if not self._is_asleep:
            return
        async with self._bed:
            if self._is_asleep:
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                await self._open_pool("woken").wake()
                self._is_asleep = False

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Push to every server; one that misses it is not sampled from before it has the weights.

        Raises:
            EngineError: no server has them in the end.
        """
        pool = self._open_pool("given weights")
        assert self._policy is not None
        await self._wake()
        given = tensors or self._policy.module.state_dict()
        await pool.load(HeldTensors(version=version, given=given))

    async def probe(self, ids: Sequence[int]) -> list[float]:
        """Untempered logprobs of `ids[1:]`: every server is asked, and they must agree.

        Raises:
            EngineError: they do not, or none answers.
        """
        pool = self._open_pool("probed")
        assert self._policy is not None
        await self._wake()
        is_exact = self.is_exact
        answers = await pool.probe(ids)
        (first, best), *others = answers.items()
        for url, theirs in others:
            gap = _gap(best, theirs, is_exact=is_exact)
            if gap > (EXACT if is_exact else ROUNDED):
                raise EngineError(
                    f"vLLM servers {first} and {url} have other weights: logprobs of {len(ids)} "
                    f"tokens differ by {gap:.2e} nats"
                )
        middle = [sum(column) / len(answers) for column in zip(*answers.values(), strict=True)]
        return max(answers.values(), key=lambda told: _gap(middle, told, is_exact=is_exact))

    async def close(self) -> None:
        """End the servers that were started; may be called twice."""
        pool, self._pool = self._pool, None
        self._policy, self._is_asleep = None, False
        self._live.clear()
        if pool is not None:
            await pool.close()
        if self._home is not None:
            self._home.cleanup()
            self._home = None


RANKS = (("RANK", "0"), ("WORLD_SIZE", "1"))
"""This process and how many train together, as launchers say it."""


def policy_logprobs(module: torch.nn.Module, ids: Sequence[int]) -> list[float]:
    """Untempered logprobs of `ids[1:]` under the policy itself."""
    with torch.no_grad():
        ids_1T = torch.tensor([list(ids)], device=next(module.parameters()).device)
        logp_TV = module(input_ids=ids_1T, use_cache=False).logits[0, :-1].float().log_softmax(-1)
    found: list[float] = logp_TV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist()
    return found


def _gap(ours: Sequence[float], theirs: Sequence[float], *, is_exact: bool) -> float:
    """The largest difference in nats in float32, the mean one in a shorter type."""
    gaps = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return max(gaps) if is_exact else sum(gaps) / len(gaps)


def _alpha(policy: LoadedPolicy) -> float:
    adapters: Mapping[str, Any] = getattr(policy.module, "peft_config", {})
    return float(adapters["default"].lora_alpha) if adapters else 0.0


def _vocabulary(policy: LoadedPolicy) -> int:
    return int(policy.module.get_input_embeddings().num_embeddings)  # type: ignore[operator]


SAVING = ("architectures", "dtype", "transformers_version")
"""What a config has only once the model was saved."""


def _shape(policy: LoadedPolicy) -> str:
    """What servers cannot change while they run."""
    settings: dict[str, object] = policy.module.config.to_dict()  # type: ignore[operator, union-attr]
    fixed = {k: settings[k] for k in sorted(settings) if k not in SAVING and not k.startswith("_")}
    adapters: Mapping[str, Any] = getattr(policy.module, "peft_config", {})
    return f"{fixed} {[(one.r, one.target_modules) for one in adapters.values()]}"
