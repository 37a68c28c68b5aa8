"""Stands in for `vllm serve` where only its start and its end matter: no model, no vLLM.

    python stand_in.py -m vllm.entrypoints.cli.main serve FOLDER ... --port PORT ...

The variable STAND_IN says how it behaves; its process ids go, one a line, to the file PIDS.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

MODE = os.environ["STAND_IN"]
FOLDER = sys.argv[sys.argv.index("serve") + 1]
PORT = int(sys.argv[sys.argv.index("--port") + 1])


class Answers(BaseHTTPRequestHandler):
    """What the start of a server asks for."""

    def do_GET(self) -> None:
        root = "/elsewhere" if MODE == "foreign" else FOLDER
        body = json.dumps({"data": [{"id": "policy", "root": root}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body if self.path == "/v1/models" else b"")

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


def note(pid: int) -> None:
    """Add a line to PIDS."""
    with Path(os.environ["PIDS"]).open("a") as file:
        file.write(f"{pid}\n")


def main() -> None:
    """Behave as MODE says."""
    note(os.getpid())
    if MODE == "dies":
        faults = "KeyError: 'first fault'\nRuntimeError: engine core failed"
        sys.exit(f"a WARNING of OSError: too many files\n{faults}")
    lost = Path(os.environ["PIDS"]).with_name("lost")
    if MODE == "loses its port" and not lost.exists():
        lost.touch()
        sys.exit("OSError: [Errno 98] Address already in use")
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        script = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
        note(child.pid)
    if MODE == "silent":
        time.sleep(600)
    HTTPServer(("127.0.0.1", PORT), Answers).serve_forever()


if __name__ == "__main__":
    main()
