"""Measures `auth` as a guesser and a crowd see it, and prints what it saw; `bench/run.sh passwords` calls it.

An unknown user against a wrong password: pairs in random order, each user and each address tried too seldom to be
limited. Then 64 logins at once: the most memory that `auth` had, and the slowest `/livez` meanwhile."""

import argparse
import http.client
import json
import math
import multiprocessing
import os
import random
import statistics
import threading
import time
from pathlib import Path

from contenders import AUTH, REDIS, Stage

CROWD = 64
# Failures of one account before the first wait, less one.
TRIES = 4
MIB = 1024


class Caller:
    """A connection to `auth` that calls from whatever address it names; `auth` trusts it as its proxy."""

    def __init__(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", AUTH, timeout=60)
        self.connection.connect()

    def post(self, path, body, number):
        """The status, and how long it took in microseconds."""
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        headers = {"content-type": "application/json", "x-forwarded-for": address}
        text = json.dumps(body)
        begun = time.perf_counter_ns()
        self.connection.request("POST", path, text, headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status, (time.perf_counter_ns() - begun) / 1000

    def get(self, path):
        begun = time.perf_counter_ns()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status, (time.perf_counter_ns() - begun) / 1000


def account(number):
    return {"user_id": f"user{number}", "password": f"quiet-harbour-{number}"}


def expect(status, wanted, what):
    if status not in wanted:
        raise SystemExit(f"{what}: {status}")


def register(caller, count):
    for number in range(count):
        status, _ = caller.post("/auth/register", account(number), number)
        expect(status, [201], "register")


def guesses(caller, pairs):
    """Times of a wrong password and of an unknown user, pair by pair."""
    wrong, unknown = [], []
    for number in range(pairs):
        body = {"user_id": f"user{number // TRIES}", "password": "loud-harbour-0"}
        nobody = {"user_id": f"nobody{number // TRIES}", "password": "loud-harbour-0"}
        both = [(body, wrong), (nobody, unknown)]
        random.shuffle(both)
        for body, times in both:
            status, took = caller.post("/auth/login", body, 100_000 + number)
            expect(status, [401], "guess")
            times.append(took)
    return wrong, unknown


def compared(wrong, unknown):
    """Medians, their ratio, and how often the unknown user's answer was the slower one of its pair: half the time, if
    the two cannot be told apart. The interval is the 95 % one of a fair coin's experiment."""
    pairs = len(wrong)
    slower = sum(u > w for w, u in zip(wrong, unknown)) / pairs
    margin = 1.96 * math.sqrt(0.25 / pairs)
    medians = statistics.median(wrong), statistics.median(unknown)
    return {
        "pairs": pairs,
        "wrong_password_p50_us": round(medians[0], 1),
        "unknown_user_p50_us": round(medians[1], 1),
        "ratio": round(medians[1] / medians[0], 4),
        "wrong_password_sd_us": round(statistics.stdev(wrong), 1),
        "unknown_slower": round(slower, 4),
        "margin": round(margin, 4),
        "told_apart": abs(slower - 0.5) > margin,
    }


def memory(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def look(over, times):
    caller = Caller()
    while not over.is_set():
        status, took = caller.get("/livez")
        expect(status, [200], "livez")
        times.append(took)
        time.sleep(0.005)


def crowd(pid):
    """64 right passwords at once."""
    base = memory(pid, "VmRSS:")
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    with multiprocessing.Manager() as manager:
        over, times = manager.Event(), manager.list()
        # A process of its own: threads would wait for each other, not for `auth`.
        looker = multiprocessing.Process(target=look, args=(over, times))
        looker.start()
        statuses, callers = [], [Caller() for _ in range(CROWD)]

        def log_in(number):
            statuses.append(callers[number].post("/auth/login", account(number), number)[0])

        begun = time.monotonic()
        threads = [threading.Thread(target=log_in, args=(number,)) for number in range(CROWD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        over.set()
        looker.join()
        looks = sorted(times)
    permits = os.cpu_count() or 1
    return {
        "logins": CROWD,
        "ok": statuses.count(200),
        "put_off": statuses.count(503),
        "seconds": round(took, 2),
        "base_mib": round(base / MIB, 1),
        "peak_mib": round(memory(pid, "VmHWM:") / MIB, 1),
        "bound_mib": round(base / MIB + 19 * permits + 64, 1),
        "livez_looks": len(looks),
        "livez_p50_ms": round(statistics.median(looks) / 1000, 2),
        "livez_slowest_ms": round(looks[-1] / 1000, 2),
    }


def say(seen, many):
    apart = "can be told apart" if seen["told_apart"] else "cannot be told apart"
    print(f"{seen['pairs']} pairs, in random order")
    print(f"wrong password: median {seen['wrong_password_p50_us']:,} µs (standard deviation {seen['wrong_password_sd_us']:,})")
    print(f"unknown user:   median {seen['unknown_user_p50_us']:,} µs; ratio of the medians {seen['ratio']}")
    print(f"the unknown user was the slower of its pair in {seen['unknown_slower']:.1%}; a fair coin gives 50 ± {seen['margin']:.1%}: they {apart}")
    print(f"{many['logins']} logins at once: {many['ok']} ok, {many['put_off']} put off, in {many['seconds']} s")
    print(f"memory: {many['base_mib']} MiB before, {many['peak_mib']} at most; bound {many['bound_mib']}")
    print(f"/livez meanwhile: {many['livez_looks']} looks, median {many['livez_p50_ms']} ms, slowest {many['livez_slowest_ms']} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--pairs", type=int, default=2000)
    options = parser.parse_args()
    out = Path(options.out).resolve()
    stage = Stage(Path(options.bin).resolve(), out)
    redis = stage.redis()
    settings = stage.settings(f"redis://127.0.0.1:{REDIS}/0")
    settings["CHATBOT__SERVER__TRUSTED_PROXIES"] = "127.0.0.1"
    auth = stage.spawn("auth", [stage.programs / "auth"], **settings)
    try:
        stage.wait(f"127.0.0.1:{AUTH}", "/readyz")
        caller = Caller()
        register(caller, max(CROWD, math.ceil(options.pairs / TRIES)))
        # The crowd first: a wrong guess makes the right password wait.
        many = crowd(auth.pid)
        seen = compared(*guesses(caller, options.pairs))
    finally:
        for process in (auth, redis, stage.mock):
            process.terminate()
            process.wait()
    (out / "passwords.json").write_text(json.dumps({"guesses": seen, "crowd": many}, indent=1))
    say(seen, many)


if __name__ == "__main__":
    main()
