"""What the store's part of a turn costs on one Redis and on a Redis Cluster of 1, 2 and 3 masters: turns a second, CPU of `chat`
and of each master for a turn, and how evenly users spread over the masters. Everything on loopback; compare the rows of one run.

    cargo build --workspace --release --bins && python3 bench/masters.py --bin target/release
"""

import argparse
import http.client
import json
import os
import subprocess
import threading
import time
from pathlib import Path

AUTH, CHAT, REDIS = 18001, 18002, 18379
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait(check):
    for _ in range(600):
        if check():
            return
        time.sleep(0.1)
    raise SystemExit("it does not start")


def cli(port, *words):
    return subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True).stdout


def masters(count, out, clustered, started):
    ports = [REDIS + n for n in range(count)]
    for port in ports:
        folder = out / f"redis-{port}"
        subprocess.run(["rm", "-rf", folder], check=True)
        folder.mkdir(parents=True)
        options = ["--cluster-enabled", "yes"] if clustered else []
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *options]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for port in ports:
        wait(lambda: cli(port, "ping").startswith("PONG"))
    if clustered:
        share = 16384 // count
        for n, port in enumerate(ports):
            last = 16383 if n == count - 1 else (n + 1) * share - 1
            cli(port, "cluster", "addslotsrange", str(n * share), str(last))
            cli(port, "cluster", "meet", "127.0.0.1", str(ports[0]))
        for port in ports:
            wait(lambda: "cluster_state:ok" in cli(port, "cluster", "info"))


def services(binaries, out, url, started, **others):
    settings = {
        "ENVIRONMENT": "dev",
        "CHATBOT__STORE__URL": url,
        "CHATBOT__AUTH__LISTEN": f"127.0.0.1:{AUTH}",
        "CHATBOT__AUTH__ADMIN_LISTEN": f"127.0.0.1:{AUTH + 100}",
        "CHATBOT__AUTH__KEYS_DIR": str(out / "keys"),
        "CHATBOT__CHAT__LISTEN": f"127.0.0.1:{CHAT}",
        "CHATBOT__CHAT__ADMIN_LISTEN": f"127.0.0.1:{CHAT + 100}",
        "CHATBOT__CHAT__AUTH_URL": f"http://127.0.0.1:{AUTH}",
        "CHATBOT__LLM__PROVIDERS": "demo",
        "CHATBOT__RATE_LIMIT__REQUESTS": "1000000",
        "CHATBOT__TELEMETRY__LOG_FILTER": "warn",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHATBOT__")}
    for name, port in (("auth", AUTH), ("chat", CHAT)):
        log = (out / f"{name}.log").open("wb")
        started.append(subprocess.Popen([binaries / name], env=clean | settings | others, stdout=log, stderr=log, cwd=out))
        wait(lambda: call(port, "GET", "/readyz")[0] == 200)


def call(port, method, path, body=None, token=None, connection=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""


def user(number, until, done):
    _, answer = call(AUTH, "POST", "/auth/login", {"user_id": f"user-{number}"})
    token = json.loads(answer)["access_token"]
    connection = http.client.HTTPConnection("127.0.0.1", CHAT, timeout=10)
    while time.monotonic() < until:
        status, answer = call(CHAT, "POST", "/chat/message", {"message": "x" * 200}, token, connection)
        if status != 200:
            raise SystemExit(f"{status}: {answer}")
        done.append(number)


def stop(processes):
    for process in processes:
        process.terminate()
        process.wait()


def options_of(doc, **numbers):
    """The options of the command line, and the folder for logs; `numbers` are further options with their defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path)
    parser.add_argument("--out", default="target/bench", type=Path)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    return options, out


def measure(options, out, count, clustered):
    url = f"redis+cluster://127.0.0.1:{REDIS}" if clustered else f"redis://127.0.0.1:{REDIS}"
    running, started = [], []
    try:
        masters(count, out, clustered, running)
        services(options.bin.resolve(), out, url, started)
        done, until = [], time.monotonic() + options.seconds
        before = [cpu(process) for process in (*running, started[1])]
        threads = [threading.Thread(target=user, args=(n, until, done)) for n in range(options.users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent = [now - then for now, then in zip((cpu(process) for process in (*running, started[1])), before)]
        *stores, chat = [round(seconds / len(done) * 1e6) for seconds in spent]
        return {
            "store": f"cluster of {count}" if clustered else "one Redis",
            "turns_per_second": round(len(done) / options.seconds),
            "chat_us_per_turn": chat,
            "masters_us_per_turn": stores,
            "all_masters_us_per_turn": sum(stores),
        }
    finally:
        stop((*started, *running))


def main():
    options, out = options_of(__doc__, seconds=10.0, users=16)
    for count, clustered in ((1, False), (1, True), (2, True), (3, True)):
        print(json.dumps(measure(options, out, count, clustered)), flush=True)


if __name__ == "__main__":
    main()
