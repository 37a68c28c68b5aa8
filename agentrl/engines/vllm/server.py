"""One `vllm serve` process: its command, its start, its log, its end.

The server is found by its interpreter, since it usually has a virtual environment of its own, and
nothing of vLLM is imported here. `guard.py` stands between the run and the server, so that no
server outlives its run. Whoever can reach the port can change the weights: the server listens on
this machine's loopback unless `ServerSettings.host` says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.engines.vllm import guard

logger = logging.getLogger(__name__)

EXTENSION = Path(__file__).parent / "extension"
"""The folder of the module that runs inside the server."""
MODEL = "policy"
"""The name under which requests ask for the model."""
POLL_S = 0.1
ANSWER_S = 5.0
TAIL_LINES = 20
PORTS = 3
"""How many free ports are tried before one that was free is taken by somebody else each time."""
TAKEN = "Address already in use"
FAULT = re.compile(r"^(?!.*\b(?:INFO|WARNING)\b).*?(\b[\w.]*(?:Error|Exception): .+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server is started."""

    python: Path
    """The interpreter of the environment that holds vLLM."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 0
    """Port to listen on; 0 takes one that is free."""
    api_key: str = ""
    """Who asks for tokens must send it; empty makes one up."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; `auto` takes the checkpoint's."""
    max_model_len: int | None = None
    """Longest prompt with its reply, in tokens; None takes the model's."""
    max_num_seqs: int = 64
    """Requests computed at once."""
    gpus: tuple[int, ...] = ()
    """The GPUs of this server, all of which hold a part of the model (tensor parallel); empty
    takes the first that it sees."""
    memory_fraction: float = 0.9
    """Share of a GPU's memory for weights and KV."""
    kv_gib: int = 1
    """Memory for KV without a GPU."""
    threads: int = 1
    """Threads of a server without a GPU."""
    lora_rank: int = 0
    """Largest rank of a pushed adapter; 0 serves none."""
    is_eager: bool = False
    """Compile and capture nothing: a quicker start and slower tokens."""
    can_sleep: bool = False
    """Give the GPU's memory back between rollouts, for a trainer on the same GPU."""
    transfer: str = "agentrl_shm"
    """vLLM's weight-transfer backend: ours through shared memory, or its own (`nccl`)."""
    extension: str = "agentrl_vllm.Extension"
    """Worker extension class; importing its module registers `agentrl_shm`."""
    extra: tuple[str, ...] = ()
    """Further arguments of `vllm serve`; they come last, so they win."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables; a PYTHONPATH is put before the extension's."""


class Launch(NamedTuple):
    """What is executed, and in which environment."""

    command: tuple[str, ...]
    environment: dict[str, str]


class Dialect(NamedTuple):
    """What differs between versions of vLLM, and between its builds for CPU and GPU."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def dialect(version: str, settings: ServerSettings) -> Dialect:
    """Arguments and variables that only this version or build of vLLM takes.

    Raises:
        EngineError: the version is older than 0.31; newer ones than 0.33 are tried with a warning.
    """
    number, _, build = version.partition("+")
    release = tuple(int(part) for part in number.split(".")[:2] if part.isdigit())
    if release < (0, 31):
        raise EngineError(
            f"{settings.python} has vLLM {version}, and agentrl drives 0.31 to 0.33; "
            "pip install 'vllm>=0.31,<0.34' there"
        )
    if release > (0, 33):
        logger.warning("agentrl was written for vLLM 0.31 to 0.33; %s is tried", version)
    if build == "cpu":
        if settings.can_sleep or settings.gpus:
            raise EngineError(
                f"{settings.python} has vLLM {version} for the CPU, which has no GPUs and cannot "
                "sleep: leave both out, or name the interpreter of a CUDA build"
            )
        return Dialect(
            # A request with a seed whose prompt is computed in pieces ends the CPU worker
            # ("CPU Generator does not use offset"), so prompts are computed whole.
            ("--no-enable-chunked-prefill",),
            {
                # Binding threads to cores puts all of them on one core of a small machine.
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_gib),
                "VLLM_CPU_CI_ENV": "1",  # no warm-up of kernels
                "OMP_NUM_THREADS": str(settings.threads),
                "KMP_BLOCKTIME": "0",
                # An eager model still compiles the sampler, at the first request: 17 s.
                **({"TORCHDYNAMO_DISABLE": "1"} if settings.is_eager else {}),
            },
        )
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, settings.gpus))} if settings.gpus else {}
    return Dialect(
        (
            *("--gpu-memory-utilization", str(settings.memory_fraction)),
            *("--tensor-parallel-size", str(max(1, len(settings.gpus)))),
            *(("--enable-sleep-mode",) if settings.can_sleep else ()),
        ),
        devices,
    )


def launch(settings: ServerSettings, version: str, folder: Path, port: int, key: str) -> Launch:
    """Command and environment of a server for the model in `folder`."""
    special = dialect(version, settings)
    command = [
        *(str(settings.python), "-m", "vllm.entrypoints.cli.main", "serve", str(folder)),
        *("--served-model-name", MODEL),
        *("--host", settings.host, "--port", str(port)),
        *("--dtype", settings.dtype),
        *("--max-num-seqs", str(settings.max_num_seqs)),
        # Logprobs are those of the distribution that tokens were drawn from.
        *("--logprobs-mode", "processed_logprobs"),
        *("--scheduling-policy", "priority"),
        # The endpoint that takes and gives token ids, and says which weights made them.
        "--enable-scale-out",
        # A model's generation_config must not change what is sampled.
        *("--generation-config", "vllm"),
        *("--weight-transfer-config", json.dumps({"backend": settings.transfer})),
        *("--worker-extension-cls", settings.extension),
        *special.arguments,
    ]
    if settings.max_model_len is not None:
        command += ["--max-model-len", str(settings.max_model_len)]
    if settings.is_eager:
        command += ["--enforce-eager"]
    if settings.lora_rank:
        command += ["--enable-lora", "--max-lora-rank", str(settings.lora_rank)]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VLLM_"))}
    paths = [settings.environment.get("PYTHONPATH", ""), str(EXTENSION)]
    environment = {
        **inherited,
        **special.environment,
        "VLLM_SERVER_DEV_MODE": "1",  # pause, resume, weights
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        **settings.environment,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return Launch((*command, *settings.extra), environment)


@dataclass(kw_only=True)
class Server:
    """A server that this run starts and ends."""

    settings: ServerSettings
    log: Path
    """Where its output is appended."""
    grace_s: float = 10.0
    """How long it may take to end by itself."""
    port: int = field(default=0, init=False)
    """The port it listens on, once started."""
    api_key: str = field(default="", init=False, repr=False)
    """What requests carry, once started."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        """Where requests go."""
        host = self.settings.host
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}"

    @property
    def is_alive(self) -> bool:
        """Its process runs. Says nothing of whether it answers."""
        return self._process is not None and self._process.poll() is None

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    async def start(self, folder: Path, deadline_s: float) -> None:
        """Serve the model in `folder`; returns once the server answers.

        Raises:
            DeadlineError: it did not answer within `deadline_s` seconds; it is ended.
            EngineError: it died, its port is taken, or its interpreter has no usable vLLM.
        """
        await self.stop()
        deadline = time.monotonic() + deadline_s
        version = await installed(self.settings.python, deadline_s)
        self.api_key = self.settings.api_key or secrets.token_urlsafe(16)
        for attempt in range(PORTS):
            self.port = await asyncio.to_thread(_usable, self.settings.host, self.settings.port)
            self._spawn(launch(self.settings, version, folder, self.port, self.api_key))
            try:
                await self._ready(deadline, deadline_s)
            except EngineError:
                is_lost = not self.settings.port and TAKEN in self.tail(200)
                if not is_lost or attempt == PORTS - 1:
                    raise
            else:
                await self._check_model(folder)
                return

    def _spawn(self, launch: Launch) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, str(self.grace_s), *launch.command],
                env=launch.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run, which then ends its servers
            )

    async def _ready(self, deadline: float, deadline_s: float) -> None:
        """Wait until it answers."""
        try:
            while time.monotonic() < deadline:
                if not self.is_alive:
                    raise EngineError(self.obituary())
                try:
                    if await self._get("/health") is not None:
                        return
                except OSError:  # nobody listens yet
                    await asyncio.sleep(POLL_S)
        except BaseException:
            await self.stop()
            raise
        tail = self.tail()
        await self.stop()
        raise DeadlineError(
            f"the vLLM server of {self.url} did not answer within {deadline_s:g} s; its log, "
            f"{self.log}, ends:\n{tail}"
        )

    def obituary(self) -> str:
        """How a server that is not alive ended, for an error."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return f"no vLLM server was started for {self.url}"
        if code > 128:
            how = f"was killed by signal {code - 128}"
            how += " (out of memory?)" if code == 137 else ""
        else:
            how = f"exited with {code}"
        # The last error is seldom the first one, which says what is the matter.
        cause = FAULT.search(self.tail(1000))
        first = f" ({cause[1]})" if cause else ""
        return (
            f"the vLLM server of {self.url} {how}{first}; its log, {self.log}, ends:\n{self.tail()}"
        )

    async def _check_model(self, folder: Path) -> None:
        """It is our server that answers. Raises `EngineError`."""
        answer = await self._get("/v1/models")
        roots = [card.get("root") for card in answer["data"]] if answer else []
        if str(folder) not in roots:
            await self.stop()
            raise EngineError(
                f"{self.url} is answered by another server (of {roots}), not by the one that was "
                "started; give engine.port another value, or leave it out"
            )

    async def _get(self, path: str) -> dict[str, list[dict[str, str]]] | None:
        """The JSON that a path answers with (`{}` for none), or None if it is not 200."""
        async with asyncio.timeout(ANSWER_S):
            host = self.url.removeprefix("http://").rpartition(":")[0]
            reader, writer = await asyncio.open_connection(host, self.port)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
                    f"Authorization: Bearer {self.api_key}\r\n\r\n".encode()
                )
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            return None
        return json.loads(body) if body else {}

    async def stop(self) -> None:
        """End the server with all of its processes; may be called twice."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the guard does the rest, even if nobody waits for it
        deadline = time.monotonic() + self.grace_s + ANSWER_S
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S / 4)
        if process.poll() is None:
            process.kill()
            process.wait()


async def installed(python: Path, timeout_s: float = 60.0) -> str:
    """The version of vLLM that an interpreter sees.

    Raises:
        EngineError: there is none, or no such interpreter.
    """
    ask = "from importlib.metadata import version; print(version('vllm'))"
    try:
        found = await asyncio.to_thread(
            subprocess.run,
            [str(python), "-I", "-c", ask],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"engine.python: {python} cannot be run: {error}") from error
    if found.returncode:
        raise EngineError(
            f"engine.python: {python} has no vLLM (pip install 'agentrl[vllm]', or name the "
            f"interpreter of the environment that has it): {found.stderr.strip()[-300:]}"
        )
    return found.stdout.strip()


def _usable(host: str, port: int) -> int:
    """A port that can be listened on. Raises `EngineError` if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EngineError(
                f"engine.port: {host}:{port} is taken ({error.strerror}); end what listens there, "
                "name another port, or leave the port out to have a free one chosen"
            ) from error
        return int(probe.getsockname()[1])
