"""Makes the table out of the figures: each against the mock alone, nginx, and the goal. `table.py figures.json` prints it again."""

import json
import sys

ORDER = ["mock", "nginx", "before", "chat", "chats", "chatbot", "fastapi"]


def get(figures, *path):
    for step in path:
        figures = figures.get(step) if isinstance(figures, dict) else None
    return figures


def number(value, unit="", digits=None):
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{unit}"


def pair(one, other, unit=""):
    return "-" if one is None else f"{number(one)} / {number(other)}{unit}"


def added(results, name, scenario, kind, quantile):
    mine = get(results, name, scenario, kind, quantile)
    alone = get(results, "mock", scenario, kind, quantile)
    return None if mine is None or alone is None else mine if name == "mock" else mine - alone


def cpu(results, name, scenario, unit, group=None, table="cost"):
    group = group or {"mock": "mock", "nginx": "nginx"}.get(name, "chat")
    return get(results, name, scenario, table, group, f"cpu_us_per_{unit}")


def grown(results, name, scenario, kind):
    group = {"mock": "mock", "nginx": "nginx"}.get(name, "chat")
    return get(results, name, scenario, f"rss_kib_per_{kind}", group)


def cores(results, name):
    group = {"mock": "mock", "nginx": "nginx"}.get(name, "chat")
    return get(results, name, "many_streams", "cost", group, "cores")


def streams(results, name, scenario):
    seen = get(results, name, scenario)
    if not seen or "error" in seen:
        return "-" if not seen else "failed"
    way = seen["one_way"]
    return f"{seen['delivered']:.1%}, {number(way['p50_us'] / 1000)} / {number(way['p99_us'] / 1000)} ms"


def rows(results):
    def scaled(value, factor):
        return None if value is None else value * factor

    def idle(name):
        kib = get(results, name, "idle_kib") or {}
        return scaled(kib.get({"mock": "mock", "nginx": "nginx"}.get(name, "chat")), 1 / 1024)

    yield (
        "whole answer, 1 connection: added p50 / p99 (mock: its own)",
        "<= 250 / 1,000 µs",
        lambda n: pair(added(results, n, "one", "whole", "p50_us"), added(results, n, "one", "whole", "p99_us"), " µs"),
    )
    yield (
        "whole answers a second, 64 connections",
        ">= 8,000; >= 20 x FastAPI",
        lambda n: number(get(results, n, "many", "per_second")),
    )
    yield (
        "CPU of it / of Redis for a request, 64 connections",
        "<= 120 / 60 µs",
        lambda n: pair(cpu(results, n, "many", "request"), cpu(results, n, "many", "request", "redis"), " µs"),
    )
    yield (
        "whole answers at 200/s: p50 / p99",
        "",
        lambda n: pair(
            get(results, n, "constant", "whole", "p50_us"), get(results, n, "constant", "whole", "p99_us"), " µs"
        ),
    )
    yield (
        "first token, 1 connection: added p50 / p99 (mock: its own)",
        "<= 300 µs (p50)",
        lambda n: pair(
            added(results, n, "first_token", "first_token", "p50_us"),
            added(results, n, "first_token", "first_token", "p99_us"),
            " µs",
        ),
    )
    yield (
        f"{get(results, 'mock', 'streams', 'streams')} streams, 20 tokens/s: delivered, one-way p50 / p99",
        "all, <= 1.6 x nginx",
        lambda n: streams(results, n, "streams"),
    )
    yield ("the same over WebSockets", "", lambda n: streams(results, n, "socket_streams"))
    yield (
        "CPU of it for 1,000 tokens relayed",
        "<= 30 ms, <= 1.3 x nginx",
        lambda n: number(cpu(results, n, "streams", "token"), " ms"),
    )
    yield (
        "of Redis",
        "",
        lambda n: number(cpu(results, n, "streams", "token", "redis"), " ms"),
    )
    yield (
        f"{get(results, 'mock', 'many_streams', 'streams')} streams, 5 tokens/s: delivered, one-way p50 / p99",
        "all",
        lambda n: streams(results, n, "many_streams"),
    )
    yield ("cores for them", "<= 0.75", lambda n: number(cores(results, n)))
    yield (
        "memory for an open SSE stream (of many) / an idle WebSocket",
        "<= 30 / 16 KiB",
        lambda n: pair(
            grown(results, n, "many_streams", "stream") or grown(results, n, "streams", "stream"),
            grown(results, n, "sockets", "socket"),
            " KiB",
        ),
    )
    yield (
        "unpaced relay, 32 streams: tokens a second, CPU of it for one",
        ">= 500,000, <= 3 µs",
        lambda n: pair(
            get(results, n, "relay", "tokens_per_second"), cpu(results, n, "relay", "token", table="cost_of_tokens"), " µs"
        ),
    )
    yield (
        "idle memory / start to ready",
        "<= 15 MB / 200 ms",
        lambda n: f"{number(idle(n))} MiB / {number(get(results, n, 'ready_ms'))} ms",
    )


def render(machine, results):
    names = [name for name in ORDER if name in results]
    lines = [
        f"{machine['begun']}, {machine['cores']} cores, load average before {machine['load_before']:.2f}",
        "",
        "| figure | goal | " + " | ".join(names) + " |",
        "| --- | --- |" + " --- |" * len(names),
    ]
    for title, goal, cell in rows(results):
        lines.append(f"| {title} | {goal} | " + " | ".join(cell(name) for name in names) + " |")
    return "\n".join([*lines, "", *notes(results)])


def notes(results):
    """What is said as a ratio, and what only `chat` is asked."""
    ours = results.get("chat", {})

    def ratio(what, scenario, *path):
        for other in ("before", "nginx", "fastapi"):
            mine, theirs = get(ours, scenario, *path), get(results, other, scenario, *path)
            if mine and theirs:
                yield f"- {what}: chat is {mine / theirs:.2f} times {other}"

    yield from ratio("whole answers a second", "many", "per_second")
    yield from ratio("one-way token time p50", "streams", "one_way", "p50_us")
    yield from ratio("one-way token time p99", "streams", "one_way", "p99_us")
    mine, nginx = cpu(results, "chat", "streams", "token"), cpu(results, "nginx", "streams", "token")
    if mine and nginx:
        yield f"- CPU for 1,000 tokens relayed: chat is {mine / nginx:.2f} times nginx"
    bare, logins = get(ours, "hashes", "per_second"), get(ours, "logins", "per_second")
    if bare and logins:
        beside = get(ours, "logins_beside", "per_second")
        alone, with_logins = get(ours, "streams", "one_way", "p99_us"), get(ours, "streams_beside_logins", "one_way", "p99_us")
        yield f"- logins: {number(logins)} a second alone ({logins / bare:.2f} of the bare hash rate of {number(bare)}), {number(beside)} beside the streams"
        yield f"- one-way token p99 of the streams: {number(alone)} µs without logins, {number(with_logins)} µs beside them"
    for name in ("chat", "chatbot"):
        for scenario, what in (("session_length", "turns in one session"), ("session_count", "sessions of one user")):
            places = get(results, name, scenario, "up_to_turn") or {}
            if places:
                told = ", ".join(f"up to {int(place):,}: {number(times['p50_us'])} µs" for place, times in sorted(places.items(), key=lambda item: int(item[0])))
                yield f"- {name}, p50 of a turn by {what}: {told}"


if __name__ == "__main__":
    figures = json.loads(open(sys.argv[1]).read())
    print(render(figures["machine"], figures["results"]))
