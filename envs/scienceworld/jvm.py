"""Java processes that hold simulated worlds, and what is said to them.

One process holds any number of worlds, which know nothing of each other, so that a few processes do
for all episodes (8 worlds: 0.3 GB; as many processes: 5 GB). Calls of one process come one after
another. Each has a deadline; a process that misses one is killed, and its worlds are gone.

What is said is the text protocol of Py4J, whose server the package brings; its own client writes to
the log whenever a process has gone, and its objects call when they are collected.
"""

from __future__ import annotations

import atexit
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from agentrl.core.errors import EnvError, MissingDataError, MissingExtraError

START_S = 60.0
"""Seconds that a process may take to begin."""
TURNS = 4
"""So many deadlines of a call are others waited for, which ask the same process."""
RETIRE = 300
"""Worlds loaded, after which a process takes no more and ends with its last."""
INTERFACE = "scienceworld.runtime.pythonapi.PythonInterface"
OPTIONS = (
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
    *("-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2"),
)
"""One thread for each; what is compiled is little; without memory it ends. The simulator lists what
is seen in the order of sets of objects without a hash of their own: with one and the same hash for
all it is the same order in every process, and whatever was loaded before."""
SERVER = ("py4j.GatewayServer", "--enable-auth", "--die-on-broken-pipe", "0")
"""It ends with whoever started it, takes any free port of this machine, and obeys whoever knows a
token that it prints."""


class JvmError(EnvError):
    """A Java process died, hung, or did not begin."""


class GoneError(JvmError):
    """A Java process had gone before it was asked: whoever asks is not the cause."""


class Reference(str):
    """The name of an object that a process holds until it is let go."""


Value = str | int | float | bool | None


class Jvm:
    """One Java process."""

    def __init__(self, heap_mib: int) -> None:
        self.worlds = 0
        self.loads = 0
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._rest = b""
        command = [java(), f"-Xmx{heap_mib}m", *OPTIONS, "-cp", classpath(), *SERVER]
        self._folder = tempfile.TemporaryDirectory()  # the simulator writes where it begins
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
        )
        assert self._process.stdout is not None
        try:
            self._connect(self._process.stdout)
        except BaseException:
            self.kill()
            self._process.stdout.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._socket is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def rss_mib(self) -> float:
        """Memory that it has, 0 if it has gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def world(self, limit: float) -> str:
        """The name of a new world."""
        self.worlds += 1
        return str(self.ask(f"i\n{INTERFACE}\ne\n", limit))

    def call(self, world: str, method: str, limit: float, *arguments: Value) -> Value:
        """What a world's method returns; a list is returned by name.

        Raises:
            JvmError: the process is dead, or dies of this.
            EnvError: the simulator raised.
        """
        said = "".join(f"{_spelt(one)}\n" for one in arguments)
        return self.ask(f"c\n{world}\n{method}\n{said}e\n", limit)

    def strings(self, name: str, limit: float) -> list[str]:
        """The strings of a list, which is then forgotten."""
        count = int(self.call(name, "size", limit) or 0)
        found = [str(self.call(name, "get", limit, index)) for index in range(count)]
        self.let_go(name, limit)
        return found

    def let_go(self, name: str, limit: float) -> None:
        """Forget an object that was returned by name. Raises as `call`."""
        self.ask(f"m\nd\n{name}\ne\n", limit)

    def forget(self, world: str, limit: float) -> None:
        """Let go of a world."""
        self.worlds -= 1
        if self.is_alive:
            with suppress(JvmError):
                self.let_go(world, limit)

    def ask(self, command: str, limit: float) -> Value:
        """Send a command and read the answer. Raises as `call`."""
        if not self._lock.acquire(timeout=TURNS * limit):
            raise JvmError(f"scienceworld: its Java process was busy for {TURNS * limit:g} s")
        try:
            if self._socket is None or self._process.poll() is not None:
                raise GoneError("scienceworld: its Java process has gone")
            try:
                self._socket.settimeout(limit)
                self._socket.sendall(command.encode())
                answer = self._line(time.monotonic() + limit)
            except OSError as error:  # TimeoutError too
                self.kill()
                what = "hung" if isinstance(error, TimeoutError) else "died"
                raise JvmError(
                    f"scienceworld: its Java process {what} within {limit:g} s, and was ended"
                ) from error
        finally:
            self._lock.release()
        return _read(answer)

    def kill(self) -> None:
        """End it, at once."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._folder.cleanup()

    def _connect(self, stdout: IO[bytes]) -> None:
        until = time.monotonic() + START_S
        port, token = _printed(stdout, until), _printed(stdout, until)
        self._socket = socket.create_connection(("127.0.0.1", int(port)), timeout=START_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask(f"A\n{token}\n", START_S)
        # The simulator prints, and would wait for ever for a reader.
        threading.Thread(target=_drain, args=(stdout,), daemon=True).start()

    def _line(self, until: float) -> str:
        assert self._socket is not None
        read = [self._rest]
        while b"\n" not in read[-1]:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            read.append(self._socket.recv(65536))
            if not read[-1]:
                raise ConnectionResetError
        line, _, self._rest = b"".join(read).partition(b"\n")
        return line.decode(errors="replace")


def _printed(stdout: IO[bytes], until: float) -> str:
    """The next line that Java prints."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stdout], [], [], max(0.0, until - time.monotonic()))
        byte = os.read(stdout.fileno(), 1) if ready else b""
        if not byte:
            raise JvmError(f"scienceworld: java did not begin within {START_S:g} s")
        line += byte
    return line.decode().strip()


def _drain(stdout: IO[bytes]) -> None:
    with stdout:
        while os.read(stdout.fileno(), 65536):
            continue


def java() -> str:
    """The Java runtime of JAVA_HOME, or of the PATH. Raises `MissingDataError` if there is none."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        raise MissingDataError(
            "env: scienceworld needs java, and there is none in JAVA_HOME or on the PATH: "
            "apt install default-jre-headless"
        )
    return found


def classpath() -> str:
    """Py4J's and the simulator's archives. Raises `MissingExtraError` without the packages."""
    jars = []
    for package, pattern in (("py4j", "share/py4j/py4j*.jar"), ("scienceworld", "*.jar")):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise MissingExtraError(package, "scienceworld")
        folder = Path(spec.origin).parent
        places = [folder, *list(folder.parents)[:4]]  # py4j's lies in sys.prefix/share
        found = [jar for place in places for jar in sorted(place.glob(pattern))]
        if not found:
            raise MissingExtraError(f"{package}'s jar", "scienceworld")
        jars.append(str(found[0]))
    return os.pathsep.join(jars)


def _spelt(value: Value) -> str:
    if isinstance(value, bool):
        return f"b{str(value).lower()}"
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, Reference):
        return f"r{value}"
    text = str(value).replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
    return f"s{text}"


def _read(answer: str) -> Value:
    """The value of an answer such as `!ysHello`."""
    if not answer.startswith("!y"):
        raise EnvError(f"scienceworld: its simulator raised: {_unescaped(answer[3:])[:500]}")
    kind, text = answer[2:3], answer[3:]
    if kind == "s":
        return _unescaped(text)
    if kind in ("i", "L"):
        return int(text)
    if kind == "d":
        return float(text)
    if kind == "b":
        return text == "true"
    return text or None


def _unescaped(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)


@dataclass
class Pool:
    """The Java processes of this process: started when they are needed, ended with it."""

    jvms: list[Jvm] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lend(self, most: int, heap_mib: int) -> Jvm:
        """A process for another world: a new one while there are fewer than `most`."""
        with self.lock:
            self._sweep()
            open_ones = [jvm for jvm in self.jvms if not self.is_retired(jvm)]
            free = [jvm for jvm in open_ones if not jvm.worlds]
            if free or len(open_ones) >= most:
                return min(free or open_ones, key=lambda jvm: jvm.worlds)
            self.jvms.append(Jvm(heap_mib))
            return self.jvms[-1]

    def is_retired(self, jvm: Jvm) -> bool:
        """Whether it takes no further world."""
        return jvm.loads >= RETIRE

    def tidy(self) -> None:
        """End what is retired and empty."""
        with self.lock:
            self._sweep()

    def close(self) -> None:
        """End all of them."""
        with self.lock:
            for jvm in self.jvms:
                jvm.kill()
            self.jvms.clear()

    def _sweep(self) -> None:
        for jvm in list(self.jvms):
            if not jvm.is_alive or (self.is_retired(jvm) and not jvm.worlds):
                jvm.kill()
                self.jvms.remove(jvm)


POOL = Pool()
atexit.register(POOL.close)
