"""A small HTTP server to be started, waited for and ended: what a model server does to whoever keeps it, good or bad.

    python serving_child.py [serve MODEL] --port PORT --facts FILE [--sick TIMES] [--deaf] [--dies CODE]

It starts a worker, writes its own and the worker's process id to FILE, and answers /health: first 503 `TIMES` times (-1: always),
then 200. Told to end by SIGTERM it says so in its log. `--deaf`: it and its worker ignore SIGTERM. `--dies`: it prints a reason
and exits. What else it is given it writes down.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

WORKER = "import signal, sys, time; sys.argv[1:] and signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--sick", type=int, default=0)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--dies", type=int)
    given, others = parser.parse_known_args()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if given.deaf else _farewell)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *["deaf"][: given.deaf]])
    facts = {"pids": [os.getpid(), worker.pid], "keeper": os.getppid(), "port": given.port, "others": others}
    facts["variable"] = os.environ.get("CHILD_VARIABLE")
    given.facts.with_suffix(".new").write_text(json.dumps(facts))
    given.facts.with_suffix(".new").rename(given.facts)
    if given.dies is not None:
        print("loading the weights\nno such file: model-00001.safetensors")
        sys.exit(given.dies)
    HTTPServer(("127.0.0.1", given.port), _handler(given.sick)).serve_forever()


def _farewell(*_: object) -> None:
    print("ending in order", flush=True)
    sys.exit(0)


def _handler(sick: int) -> type[BaseHTTPRequestHandler]:
    answers = [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            healthy = self.path == "/health" and 0 <= sick <= answers[0]
            answers[0] += 1
            self.send_response(200 if healthy else 503)
            self.end_headers()

    return Handler


if __name__ == "__main__":
    main()
