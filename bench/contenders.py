"""Starts and stops the contenders, each on ports of its own below 19000, with everything it writes in one folder."""

import os
import shutil
import subprocess
import time
from pathlib import Path

MOCK, NGINX, REDIS, AUTH, CHAT, FASTAPI = 18434, 18080, 18379, 18001, 18002, 18003
HERE = Path(__file__).parent
WORKERS = os.cpu_count() or 1


class Running:
    """One contender: its address, its processes by name, and how it is asked."""

    def __init__(self, name, address, api):
        self.name, self.address, self.api = name, address, api
        self.others = []
        self.processes = {}
        self.ready_ms = None

    def target(self):
        """The options that tell `load` whom to ask, and whose cost to read: all instances of a service count as one."""
        options = ["--api", self.api]
        for address in [self.address, *self.others]:
            options += ["--address", address]
        groups = {}
        for name, process in self.processes.items():
            groups.setdefault(name.split("#")[0], []).extend([str(process.pid), *children(process.pid)])
        for name, pids in groups.items():
            options += ["--watch", f"{name}={','.join(pids)}"]
        return options

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def children(pid):
    found = subprocess.run(["ps", "--no-headers", "-o", "pid", "--ppid", str(pid)], capture_output=True, text=True)
    return found.stdout.split()


class Stage:
    """Where contenders run: the folder of the programs, and the folder that they write to."""

    def __init__(self, programs, out):
        self.programs, self.out = Path(programs), Path(out)
        # Where `auth` and `chat` are started from: another folder for a contender that was built before.
        self.services = self.programs
        self.mock = self.spawn("mock", [self.programs / "mock", f"127.0.0.1:{MOCK}"])
        self.wait(f"127.0.0.1:{MOCK}", "/api/tags")

    def spawn(self, name, command, **environment):
        log = (self.out / f"{name}.log").open("wb")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CHATBOT__")}
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.out, env=clean | environment)

    def wait(self, address, path):
        load = [self.programs / "load", "ready", "--address", address, "--path", path]
        subprocess.run(load, check=True, stdout=subprocess.DEVNULL)

    def fresh(self, name):
        folder = self.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def redis(self):
        folder = self.fresh("redis")
        command = ["redis-server", "--port", str(REDIS), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = self.spawn("redis", [*command, "--appendonly", os.environ.get("REDIS_AOF", "no")])
        for _ in range(500):
            ping = subprocess.run(["redis-cli", "-p", str(REDIS), "ping"], capture_output=True)
            if ping.stdout.startswith(b"PONG"):
                return process
            time.sleep(0.01)
        raise SystemExit("redis-server does not start")

    def settings(self, store, fresh_keys=True):
        """Every limit out of the way of the load, and nothing else unlike the defaults of `dev`."""
        many = "1000000"
        return {
            "ENVIRONMENT": "dev",
            "CHATBOT__STORE__URL": store,
            "CHATBOT__AUTH__LISTEN": f"127.0.0.1:{AUTH}",
            "CHATBOT__AUTH__ADMIN_LISTEN": f"127.0.0.1:{AUTH + 100}",
            "CHATBOT__AUTH__KEYS_DIR": str(self.fresh("keys") if fresh_keys else self.out / "keys"),
            "CHATBOT__CHAT__LISTEN": f"127.0.0.1:{CHAT}",
            "CHATBOT__CHAT__ADMIN_LISTEN": f"127.0.0.1:{CHAT + 100}",
            "CHATBOT__CHAT__AUTH_URL": f"http://127.0.0.1:{AUTH}",
            "CHATBOT__CHAT__SOCKETS_PER_USER": "10000",
            "CHATBOT__LLM__PROVIDERS": "ollama",
            "CHATBOT__LLM__MODEL": "mock:latest",
            "CHATBOT__LLM__OLLAMA__BASE_URL": f"http://127.0.0.1:{MOCK}",
            "CHATBOT__LLM__OLLAMA__MAX_CONCURRENCY": "10000",
            "CHATBOT__RATE_LIMIT__REQUESTS": many,
            "CHATBOT__SERVER__MAX_CONNECTIONS": many,
            "CHATBOT__SERVER__MAX_CONNECTIONS_PER_ADDRESS": many,
            "CHATBOT__TELEMETRY__LOG_FORMAT": "json",
        }

    def start(self, name):
        running = getattr(self, f"start_{name}")()
        # The first look at the model server, and whatever else a start leaves to do.
        time.sleep(1)
        return running

    def start_mock(self):
        running = Running("mock", f"127.0.0.1:{MOCK}", "model")
        running.processes["mock"] = self.mock
        return running

    def start_nginx(self):
        folder = self.fresh("nginx")
        text = (HERE / "nginx.conf").read_text().replace("WORK", str(folder.resolve()))
        text = text.replace("MOCK_PORT", str(MOCK)).replace("NGINX_PORT", str(NGINX))
        (folder / "nginx.conf").write_text(text)
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        running = Running("nginx", f"127.0.0.1:{NGINX}", "model")
        begun = time.monotonic()
        running.processes["nginx"] = self.spawn("nginx", [nginx, "-c", (folder / "nginx.conf").resolve()])
        self.wait(running.address, "/api/tags")
        running.ready_ms = (time.monotonic() - begun) * 1000
        return running

    def start_chat(self):
        running = Running("chat", f"127.0.0.1:{CHAT}", "chat")
        running.processes["redis"] = self.redis()
        settings = self.settings(f"redis://127.0.0.1:{REDIS}/0")
        running.processes["auth"] = self.spawn("auth", [self.services / "auth"], **settings)
        self.wait(f"127.0.0.1:{AUTH}", "/readyz")
        begun = time.monotonic()
        running.processes["chat"] = self.spawn("chat", [self.services / "chat"], **settings)
        self.wait(running.address, "/readyz")
        running.ready_ms = (time.monotonic() - begun) * 1000
        return running

    def start_chats(self):
        """Two instances on one Redis; connections go to them in turn."""
        running = self.start_chat()
        running.name = "chats"
        other = f"127.0.0.1:{CHAT + 10}"
        settings = self.settings(f"redis://127.0.0.1:{REDIS}/0", fresh_keys=False)
        settings |= {"CHATBOT__CHAT__LISTEN": other, "CHATBOT__CHAT__ADMIN_LISTEN": f"127.0.0.1:{CHAT + 110}"}
        running.processes["chat#2"] = self.spawn("chat-2", [self.programs / "chat"], **settings)
        self.wait(other, "/readyz")
        running.others = [other]
        return running

    def start_before(self):
        """`chat` and `auth` of another build, from the folder BEFORE: what a change costs is seen in one run."""
        self.services = Path(os.environ["BEFORE"]).resolve()
        try:
            running = self.start_chat()
        finally:
            self.services = self.programs
        running.name = "before"
        return running

    def start_chatbot(self):
        running = Running("chatbot", f"127.0.0.1:{CHAT}", "chat")
        settings = self.settings(f"embedded:{self.fresh('embedded').resolve()}")
        begun = time.monotonic()
        running.processes["chat"] = self.spawn("chatbot", [self.programs / "chatbot"], **settings)
        self.wait(running.address, "/readyz")
        running.ready_ms = (time.monotonic() - begun) * 1000
        return running

    def start_fastapi(self):
        running = Running("fastapi", f"127.0.0.1:{FASTAPI}", "chat")
        running.processes["redis"] = self.redis()
        environment = {
            "REDIS_URL": f"redis://127.0.0.1:{REDIS}/0",
            "OLLAMA_URL": f"http://127.0.0.1:{MOCK}",
            "PYTHONPATH": str(HERE.resolve() / "fastapi"),
        }
        uvicorn = [(self.out / "venv/bin/uvicorn").resolve(), "app:app", "--port", str(FASTAPI)]
        begun = time.monotonic()
        command = [*uvicorn, "--workers", str(WORKERS), "--no-access-log", "--log-level", "warning"]
        running.processes["chat"] = self.spawn("fastapi", command, **environment)
        self.wait(running.address, "/readyz")
        running.ready_ms = (time.monotonic() - begun) * 1000
        return running
