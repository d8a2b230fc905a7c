"""What the official Python SDK needs of the endpoint: each function named `check_…` is a claim.

The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
"""

import asyncio
import json
import os
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from checks import checks_of, refused, run

BASE, KEY, ADMIN = os.environ["BASE_URL"], os.environ["API_KEY"], os.environ["ADMIN_URL"]
LIMITED, LIMITED_KEY = os.environ["LIMITED_URL"], os.environ["LIMITED_KEY"]
MODEL = "gemma3:1b"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

client = OpenAI(base_url=BASE, api_key=KEY, max_retries=0)


def said(text, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def ask(text, **more):
    return client.chat.completions.create(**said(text, **more))


def text_of(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def running():
    with urllib.request.urlopen(f"{ADMIN}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("llm_running"))


def check_a_whole_answer():
    answer = ask("hello")
    assert answer.choices[0].message.content == "You said: hello", answer
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.id.startswith("chatcmpl-") and answer.created > 1_700_000_000 and answer.model == MODEL
    assert answer._request_id


def check_a_streamed_answer():
    chunks = list(ask("Grüße 🙂", stream=True))
    assert text_of(chunks) == "You said: Grüße 🙂"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def check_a_stream_with_usage():
    chunks = list(ask("hello", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0


def check_the_stream_helper_puts_the_answer_together():
    with client.chat.completions.stream(**said("weather please", tools=[WEATHER])) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds, kinds
    calls = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Köln", "Graz"]
    assert answer.choices[0].finish_reason == "tool_calls"


def check_tools_go_both_ways():
    messages = said("weather please")["messages"]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER], tool_choice="auto")
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls" and message.content is None
    messages.append(message.model_dump())
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "You said: sunny"


def check_thoughts_come_beside_the_text():
    answer = ask("think first")
    assert answer.choices[0].message.reasoning_content == "Hm." and answer.choices[0].message.content == "Yes."
    deltas = [chunk.choices[0].delta for chunk in ask("think first", stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Hm."


def check_a_schema_is_kept_to():
    class Animal(BaseModel):
        name: str
        legs: int

    answer = client.chat.completions.parse(**said("as a schema", response_format=Animal))
    assert answer.choices[0].message.parsed == Animal(name="cat", legs=4)


def check_parameters_and_parts():
    parts = [
        {"type": "text", "text": "a picture"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}],
        max_tokens=5, max_completion_tokens=6, stop=["a", "b"], temperature=0, top_p=1, seed=1, user="u",
        presence_penalty=0, metadata={"a": "b"}, extra_body={"nobody_knows": 1},
    )
    assert answer.choices[0].message.content == "You said: a picture"
    assert ask("hello", stop="x", max_tokens=3).choices[0].message.content == "You said: hello"


def check_an_empty_answer():
    assert ask("nothing at all").choices[0].message.content == ""
    assert text_of(ask("nothing at all", stream=True)) == ""


def check_embeddings():
    for form in [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}]:
        answer = client.embeddings.create(model="embed-small", input=["Hello", "you"], **form)
        vectors = [entry.embedding for entry in answer.data]
        if form.get("encoding_format") == "base64":
            assert vectors == ["AACgQAAAkEIAAAA/", "AABAQAAA8kIAAAA/"], vectors
        else:
            assert vectors == [[5.0, 72.0, 0.5], [3.0, 121.0, 0.5]], vectors
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
    error = refused(openai.BadRequestError, lambda: client.embeddings.create(model=MODEL, input="x"))
    assert error.code == "unsupported_by_model"
    error = refused(openai.BadRequestError, lambda: client.embeddings.create(model="embed-small", input=[]))
    assert error.param == "input"


def check_headers_can_be_read():
    raw = client.chat.completions.with_raw_response.create(**said("hello"))
    assert raw.headers["x-request-id"] and raw.headers["ratelimit"]
    assert raw.parse().choices[0].message.content == "You said: hello"


def check_models():
    assert MODEL in [model.id for model in client.models.list()]
    for name in [MODEL, "hf.co/org/name:Q4_K_M"]:
        assert client.models.retrieve(name).id == name
    assert refused(openai.NotFoundError, lambda: client.models.retrieve("no/such:one")).code == "model_not_found"


def check_errors_have_their_classes():
    bad = OpenAI(base_url=BASE, api_key="cbk_wrong", max_retries=0)
    error = refused(openai.AuthenticationError, lambda: bad.models.list())
    assert error.code == "invalid_token" and error.request_id, error
    unknown = said("hello") | {"model": "no/such:one"}
    error = refused(openai.NotFoundError, lambda: client.chat.completions.create(**unknown))
    assert error.code == "model_not_found" and error.param == "model"
    error = refused(openai.BadRequestError, lambda: ask("hello", n=2))
    assert error.param == "n" and error.code == "invalid_request"
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": 5}]))
    assert error.param == "messages[0].content", error.param
    nowhere = OpenAI(base_url=BASE.removesuffix("/v1"), api_key=KEY, max_retries=0)
    refused(openai.NotFoundError, lambda: nowhere.models.list())
    # Clearly too long also for estimates that have learned that this server counts few tokens.
    long = "語" * 80_000
    error = refused(openai.UnprocessableEntityError, lambda: ask(long))
    assert error.code == "context_too_long"


def check_a_failure_in_the_stream_is_raised():
    for text in ["crash in the middle", "cut in the middle"]:
        stream = ask(text, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        error = refused(openai.APIError, lambda: list(stream))
        assert error.code == "llm_failed" and "crashed" not in str(error), error


def check_a_failing_server_is_tried_three_times():
    patient = client.with_options(max_retries=2)
    error = refused(openai.InternalServerError, lambda: patient.chat.completions.create(**said("broken for python")))
    assert error.status_code == 502 and error.code == "llm_failed"


def check_a_limit_is_waited_out_and_a_quota_not():
    limited = OpenAI(base_url=LIMITED, api_key=LIMITED_KEY, max_retries=0)

    def until_refused():
        while True:
            limited.models.list()

    error = refused(openai.RateLimitError, until_refused)
    assert error.code == "rate_limited" and int(error.response.headers["retry-after"]) <= 2
    start = time.monotonic()
    limited.with_options(max_retries=2).models.list()
    assert 0.3 < time.monotonic() - start < 5
    time.sleep(3)
    error = refused(
        openai.RateLimitError,
        lambda: limited.with_options(max_retries=2).chat.completions.create(**said("hello", max_tokens=50)),
    )
    assert error.code == "quota_exceeded" and error.type == "insufficient_quota"
    assert error.request.headers["x-stainless-retry-count"] == "0", "it was tried again in vain"


def check_signs_of_life_do_not_disturb():
    start = time.monotonic()
    assert text_of(ask("slowly for python", stream=True)) == "one two"
    assert time.monotonic() - start > 30


def check_fifty_streams_at_once():
    async def one(many, i):
        stream = await many.chat.completions.create(**said(f"number {i}", stream=True))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them():
        async with AsyncOpenAI(base_url=BASE, api_key=KEY, max_retries=0) as many:
            return await asyncio.gather(*(one(many, i) for i in range(50)))

    assert asyncio.run(all_of_them()) == [f"You said: number {i}" for i in range(50)]


def check_leaving_stops_the_model():
    """Alone and first: it looks at what runs."""
    for leave in [lambda stream: stream.close(), lambda stream: stream.response.close()]:
        stream = ask("endless for python", stream=True)
        for number, _ in enumerate(stream):
            if number == 3:
                break
        assert running() == 1
        leave(stream)
        start = time.monotonic()
        while running() > 0:
            assert time.monotonic() - start < 1, "the model runs on"
            time.sleep(0.02)


def main():
    checks = checks_of(globals())
    first, longest = "check_leaving_stops_the_model", "check_signs_of_life_do_not_disturb"
    passed = [run(first, checks.pop(first))]
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(run, longest, checks.pop(longest))
        passed += [run(name, check) for name, check in checks.items()]
        passed.append(waiting.result())
    sys.exit(0 if all(passed) else 1)


main()
