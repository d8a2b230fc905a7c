"""Runs every contender through every scenario in turn and prints the table; see run.sh, which calls it."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import table
from contenders import Stage

STREAMS = os.environ.get("STREAMS", "1000")
MANY_STREAMS = os.environ.get("MANY_STREAMS", "5000")


def scenarios(contender, seconds):
    """What `load` is told, by the name of the figure. The mock and nginx speak the model server's words."""
    long = str(seconds)
    every = {
        "one": ["turns", "--connections", "1", "--seconds", long],
        "many": ["turns", "--connections", "64", "--seconds", long],
        "constant": ["turns", "--connections", "32", "--rate", "200", "--seconds", long],
        "first_token": ["turns", "--form", "sse", "--tokens", "4", "--gap-us", "2000", "--seconds", long],
        "relay": ["turns", "--form", "sse", "--connections", "32", "--tokens", "2000", "--seconds", long],
        "streams": ["streams", "--count", STREAMS, "--rate", "20", "--ramp", "2", "--seconds", str(seconds + 1)],
    }
    if contender == "chats":
        return {name: every[name] for name in ("one", "many", "first_token", "streams")}
    # Before what only some are asked: whatever came before is the same for all.
    if contender != "fastapi":
        ramp = ["--ramp", "5", "--seconds", str(seconds + 1)]
        every["many_streams"] = ["streams", "--count", MANY_STREAMS, "--rate", "5", *ramp]
    if contender in ("chat", "chatbot", "fastapi"):
        every["sockets"] = ["sockets", "--count", "1000", "--seconds", "2"]
    if contender in ("chat", "chatbot"):
        every["socket_streams"] = ["streams", "--form", "ws", "--count", STREAMS, "--rate", "20", "--ramp", "2"]
        every["session_length"] = ["growth", "--turns", "1000"]
        every["session_count"] = ["growth", "--turns", "1000", "--sessions"]
    return every


def command(programs, running, arguments):
    return [programs / "load", *arguments, *running.target()]


def measure(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        return json.loads(done.stdout)
    return {"error": done.stderr.strip()[-500:]}


def idle_memory(running):
    """Resident KiB of each process group before anybody asks it anything."""
    found = {}
    for option in running.target()[1::2]:
        name, _, pids = option.partition("=")
        if pids:
            found[name] = sum(resident(pid) for pid in pids.split(","))
    return found


def resident(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def contest(stage, name, seconds):
    print(f"  {name}", file=sys.stderr, flush=True)
    running = stage.start(name)
    figures = {"ready_ms": running.ready_ms, "idle_kib": idle_memory(running)}
    try:
        for scenario, arguments in scenarios(name, seconds).items():
            figures[scenario] = measure(command(stage.programs, running, arguments))
            # What has just ended is stored and let go before the next begins.
            time.sleep(0.5)
            note = figures[scenario].get("error", "")
            print(f"    {scenario} {note}", file=sys.stderr, flush=True)
        if name == "chat":
            figures |= logins(stage, running, seconds)
    finally:
        if name != "mock":
            running.stop()
    return figures


def logins(stage, running, seconds):
    """Logins alone, and while streams run; beside them the bare rate of the hash on every core."""
    load = stage.programs / "load"
    cores = os.cpu_count() or 1
    bare = measure([load, "hashes", "--threads", str(cores), "--seconds", "2"])
    ask = command(stage.programs, running, ["logins", "--seconds", str(seconds)])
    alone = measure(ask)
    streams = ["streams", "--count", STREAMS, "--rate", "20", "--ramp", "2", "--seconds", str(seconds)]
    beside = subprocess.Popen(command(stage.programs, running, streams), stdout=subprocess.PIPE, text=True)
    time.sleep(3)
    with_streams = measure(ask)
    out, _ = beside.communicate(timeout=120)
    return {"hashes": bare, "logins": alone, "logins_beside": with_streams, "streams_beside_logins": json.loads(out)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--contenders", default="mock,nginx,chat,chats,chatbot,fastapi")
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    out = Path(options.out).resolve()
    stage = Stage(Path(options.bin).resolve(), out)
    load_before = os.getloadavg()[0]
    begun = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    results = {}
    try:
        for name in options.contenders.split(","):
            results[name] = contest(stage, name, options.seconds)
    finally:
        stage.mock.terminate()
        machine = {"begun": begun, "load_before": load_before, "cores": os.cpu_count()}
        (out / "figures.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    print(table.render(machine, results))


if __name__ == "__main__":
    main()
