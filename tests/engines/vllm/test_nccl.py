"""What a push by NCCL says over HTTP, and in which order tensors are sent. No GPU takes part."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from agentrl.core.errors import EngineError
from agentrl.engines.vllm.client import Client
from agentrl.engines.vllm.nccl import NcclLink
from agentrl.engines.vllm.weights import Holds, PushError
from support.models import tiny_policy

SOON_S = 10.0
WORKERS = 2


class Recorder:
    """A server of two GPUs that says yes to everything but `refuses`, and writes it down."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.refuses = ""


@contextmanager
def recording() -> Iterator[tuple[Recorder, str]]:
    recorder = Recorder()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"world_size": WORKERS})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            recorder.heard.append((self.path, json.loads(body) if body else None))
            is_refused = bool(recorder.refuses) and self.path.startswith(recorder.refuses)
            self._answer({"success": True}, 500 if is_refused else 200)

        def _answer(self, told: object, status: int = 200) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield recorder, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Cable:
    """In the place of vLLM's communicator."""

    def __init__(self) -> None:
        self.met: dict[str, object] = {}
        self.sent: list[torch.Tensor] = []

    def broadcast(self, tensor: torch.Tensor, src: int, stream: object = None) -> None:
        assert src == 0
        assert tensor.is_contiguous()
        self.sent.append(tensor)


@pytest.fixture
def cable(monkeypatch: pytest.MonkeyPatch) -> Cable:
    """vLLM's module of that name, as much as the trainer uses of it."""
    found = Cable()
    module = ModuleType("vllm.distributed.weight_transfer.nccl_common")

    def trainer_init(init_info: dict[str, object]) -> Cable:
        found.met = init_info
        return found

    module.trainer_init = trainer_init  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.distributed", "vllm.distributed.weight_transfer"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def linked(urls: list[str], verb: Callable[[NcclLink], Awaitable[None]]) -> None:
    """Connect, do something, close."""

    async def run() -> None:
        clients = [Client(url) for url in urls]
        link = NcclLink(clients=clients, host="10.0.0.1", port=29600, device=torch.device("cpu"))
        try:
            await link.connect(timeout_s=SOON_S)
            await verb(link)
        finally:
            for client in clients:
                await client.close()

    asyncio.run(run())


def test_all_workers_of_all_servers_get_a_rank_and_every_tensor_once(cable: Cable) -> None:
    state = tiny_policy().module.state_dict()
    with recording() as (one, first), recording() as (two, second):
        linked([first, second], lambda link: link.push(state, 3, timeout_s=SOON_S))
    meeting = {"master_address": "10.0.0.1", "master_port": 29600, "world_size": 5}
    assert cable.met == meeting
    assert one.heard[0][1] == {"init_info": {**meeting, "rank_offset": 1, "packed": False}}
    assert two.heard[0][1] == {"init_info": {**meeting, "rank_offset": 3, "packed": False}}
    paths = [
        "/init_weight_transfer_engine",
        "/pause?mode=keep&clear_cache=true",
        "/reset_prefix_cache?reset_running_requests=true",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/resume",
    ]
    told = []
    for server in (one, two):
        assert [path for path, _ in server.heard] == paths
        told.append(server.heard[4][1]["update_info"])
        assert server.heard[5][1] == {"weight_version": "3"}
    assert told[0] == told[1]
    assert "lm_head.weight" not in told[0]["names"]  # it is tied
    assert told[0]["dtype_names"] == ["float32"] * len(cable.sent)
    assert told[0]["shapes"] == [list(tensor.shape) for tensor in cable.sent]
    for name, tensor in zip(told[0]["names"], cable.sent, strict=True):
        assert torch.equal(tensor, state[name])


def test_a_broadcast_that_fails_spoils_every_server_and_the_link(cable: Cable) -> None:
    state = tiny_policy().module.state_dict()

    async def twice(link: NcclLink) -> None:
        with pytest.raises(PushError) as caught:
            await link.push(state, 1, timeout_s=SOON_S)
        assert [f.holds for f in caught.value.failures.values()] == [Holds.MIXED] * 2
        with pytest.raises(EngineError, match="before connect"):
            await link.push(state, 2, timeout_s=SOON_S)

    with recording() as (_, first), recording() as (bad, second):
        bad.refuses = "/finish_weight_update"
        linked([first, second], twice)


@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_vllm_understands_what_is_said(cable: Cable, vllm_python: Path) -> None:
    with recording() as (server, url):
        linked([url], lambda link: link.push({"a": torch.ones(2, 3)}, 1, timeout_s=SOON_S))
    heard = {path: body for path, body in server.heard if body}
    script = (
        "import json, sys\n"
        "from vllm.distributed.weight_transfer import nccl_common, nccl_engine\n"
        "init, update = json.loads(sys.argv[1])\n"
        "print(nccl_engine.NCCLWeightTransferInitInfo(**init))\n"
        "print(nccl_engine.NCCLWeightTransferUpdateInfo(**update))\n"
        "import inspect; inspect.signature(nccl_common.trainer_init).bind({})\n"
    )
    said = json.dumps(
        [
            heard["/init_weight_transfer_engine"]["init_info"],
            heard["/update_weights"]["update_info"],
        ]
    )
    found = subprocess.run(
        [vllm_python, "-c", script, said], capture_output=True, text=True, timeout=250, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "world_size=3" in found.stdout
    assert "shapes=[[2, 3]]" in found.stdout
