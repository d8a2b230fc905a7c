"""Section "Overload" of docs/operations.md, measured: the best rate of completed turns of 64 tokens, then five times as many
offered. Prints both rates, how refusals were answered, and how long health calls took meanwhile.

    cargo build --workspace --release --bins && python3 bench/overload.py --bin target/release
"""

import argparse
import json
import os
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from contenders import Stage

TURN = ["turns", "--form", "sse", "--tokens", "64", "--gap-us", "1000"]
HEALTH = ["/livez", "/health", "/readyz"]


def load(stage, running, *options):
    command = [stage.programs / "load", *TURN, *options, *running.target()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


class HealthCalls(threading.Thread):
    """Asks the public listener ten times a second, on a connection of its own each time."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.took, self.over = address, [], threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            begun = time.monotonic()
            path = HEALTH[len(self.took) % len(HEALTH)]
            urllib.request.urlopen(f"http://{self.address}{path}", timeout=10).read()
            self.took.append(time.monotonic() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", default="target/bench")
    parser.add_argument("--contender", default="chat", choices=["chat", "chatbot"])
    parser.add_argument("--seconds", default="10")
    parser.add_argument("--connections", default="1000")
    options = parser.parse_args()
    out = Path(options.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    stage = Stage(Path(options.bin).resolve(), out)
    try:
        running = stage.start(options.contender)
        closed = [load(stage, running, "--connections", str(n), "--seconds", "5") for n in (32, 128, 256)]
        best = max(run["per_second"] for run in closed)
        health = HealthCalls(running.address)
        health.start()
        rate = ["--connections", options.connections, "--rate", str(best * 5), "--seconds", options.seconds]
        offered = load(stage, running, *rate)
        health.over.set()
        health.join()
        time.sleep(10)
        after = load(stage, running, "--connections", "128", "--seconds", "5")
        running.stop()
    finally:
        stage.mock.terminate()
    print(json.dumps({
        "cores": os.cpu_count(),
        "best_per_second": best,
        "at_five_times": offered["per_second"],
        "ratio": round(offered["per_second"] / best, 3),
        "refused": offered["refused"],
        "refusal": offered["refusal"],
        "failed": offered["failed"],
        "health_slowest_ms": round(max(health.took) * 1000),
        "after_10_s": after["per_second"],
        "refused_after_10_s": after["refused"],
    }, indent=1))


if __name__ == "__main__":
    main()
