"""What `chat` spends on streams of each API without sessions: CPU for 1,000 tokens, and as a ratio to `/v1/chat/completions`. The APIs
take turns within one run, on one Redis and the mock model server.

    cargo build --workspace --release --bins && python3 bench/apis.py --bin target/release
"""

import http.client
import json
import subprocess
import threading

import masters

MOCK = 18003
MODEL = "mock:latest"


def conversation(text):
    return {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}


# The path, the body of a request, and what the last event of a stream has.
APIS = {
    "/v1/chat/completions": (conversation, b"[DONE]"),
    "/v1/responses": (lambda text: {"model": MODEL, "stream": True, "input": text}, b"response.completed"),
    "/v1/messages": (lambda text: conversation(text) | {"max_tokens": 4096}, b"message_stop"),
    "/api/chat": (conversation, b'"done":true'),
}


def stream(path, token, text):
    body, last = APIS[path]
    connection = http.client.HTTPConnection("127.0.0.1", masters.CHAT, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body(text)), headers)
    answer = connection.getresponse()
    told = answer.read()
    if answer.status != 200 or last not in told[-4096:]:
        raise SystemExit(f"{path}: {answer.status}: {told[-300:]}")


def spent(chat, path, tokens, options):
    text = f"plan {options.tokens} {options.gap} 0 please"
    before = masters.cpu(chat)
    threads = [threading.Thread(target=stream, args=(path, token, text)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return masters.cpu(chat) - before


def measure(options, out):
    started, settings = [], {
        "CHATBOT__LLM__PROVIDERS": "ollama",
        "CHATBOT__LLM__MODEL": MODEL,
        "CHATBOT__LLM__OLLAMA__BASE_URL": f"http://127.0.0.1:{MOCK}",
        "CHATBOT__LLM__OLLAMA__MAX_CONCURRENCY": "64",
    }
    try:
        masters.masters(1, out, False, started)
        started.append(subprocess.Popen([options.bin.resolve() / "mock", f"127.0.0.1:{MOCK}"]))
        masters.services(options.bin.resolve(), out, f"redis://127.0.0.1:{masters.REDIS}", started, **settings)
        chat, tokens = started[-1], []
        for number in range(options.streams):
            _, answer = masters.call(masters.AUTH, "POST", "/auth/login", {"user_id": f"user-{number}"})
            tokens.append(json.loads(answer)["access_token"])
        for path in APIS:
            spent(chat, path, tokens, options)
        all_spent = dict.fromkeys(APIS, 0.0)
        for _ in range(options.rounds):
            for path in APIS:
                all_spent[path] += spent(chat, path, tokens, options)
        thousands = options.rounds * options.streams * options.tokens / 1000
        base = all_spent["/v1/chat/completions"]
        for path, seconds in all_spent.items():
            print(f"{path:22} {seconds / thousands * 1000:6.1f} ms CPU for 1,000 tokens, {seconds / base:.2f} of /v1/chat/completions")
    finally:
        masters.stop(started)


def main():
    # `tokens` of each answer, `gap` microseconds between two of them.
    options, out = masters.options_of(__doc__, rounds=10, streams=16, tokens=500, gap=2000)
    measure(options, out)


if __name__ == "__main__":
    main()
