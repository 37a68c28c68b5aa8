"""Settings of every test: one thread, no network, no hub, reproducible hypothesis."""

import os

# Before torch is imported: it reads the thread count once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import ipaddress
import socket
import sys
from pathlib import Path

import hypothesis
import pytest

from support.fault_log import FaultLog

hypothesis.settings.register_profile(
    "agentrl",
    deadline=None,  # a busy machine is no failure
    derandomize=True,
    database=None,
)
hypothesis.settings.load_profile("agentrl")


class NetworkBlockedError(RuntimeError):
    """A test spoke to something beyond this machine; no OSError, so that no retry swallows it."""


def _refuse_beyond_loopback(host: object) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return
    try:
        is_here = ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise NetworkBlockedError(f"tests may reach loopback and unix sockets only, not {host!r}")


@pytest.fixture(autouse=True)
def network_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting or resolving a name beyond loopback raises `NetworkBlockedError`."""
    connect, connect_ex, resolve = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def guarded_connect(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple):
            _refuse_beyond_loopback(address[0])
        connect(self, address)  # type: ignore[arg-type]

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        if isinstance(address, tuple):
            _refuse_beyond_loopback(address[0])
        return connect_ex(self, address)  # type: ignore[arg-type]

    def guarded_resolve(host: object, *args: object, **kwargs: object) -> object:
        _refuse_beyond_loopback(host)
        return resolve(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A test that raised torch's thread count does not slow the next ones."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


_faults = pytest.StashKey[FaultLog]()

# --- --must-run=trl,...: a skip of such a test fails the run ------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--must-run",
        default="",
        metavar="MARKERS",
        help="comma-separated markers whose tests may not be skipped",
    )
    parser.addoption(
        "--record-faults",
        type=Path,
        metavar="FILE",
        help="run only the tests that use `fault_log`, and write what they measured",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(MustRun(config.option.must_run))
    config.stash[_faults] = FaultLog()


class MustRun:
    """Collects the skips that `--must-run` forbids, of worker processes too."""

    def __init__(self, markers: str) -> None:
        self.wanted = [name for name in markers.split(",") if name]
        self.skips: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            marked = [name for name in self.wanted if name in report.keywords]
            self.skips += [f"{report.nodeid} ({name})" for name in marked]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skips and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for skip in self.skips:
            terminalreporter.write_line(f"SKIPPED BUT MUST RUN: {skip}", red=True)


# --- --record-faults=FILE: what tests that inject faults measured ---------------------------------


@pytest.fixture
def fault_log(request: pytest.FixtureRequest) -> FaultLog:
    """Takes the rows of the fault matrix; see `support/fault_log.py`."""
    log = request.config.stash[_faults]
    log.test = request.node.nodeid.partition("[")[0]
    return log


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.record_faults is not None:
        needless = [item for item in items if "fault_log" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=needless)
        items[:] = [item for item in items if item not in needless]


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.option.record_faults
    if file is not None and session.exitstatus == pytest.ExitCode.OK:
        session.config.stash[_faults].write(file)
