"""What `ollama` for Python needs of Ollama's API: each function named `check_…` is a claim.

The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
"""

import os

import ollama
from ollama import Client

import checks

ROOT, KEY = os.environ["ROOT_URL"], os.environ["API_KEY"]
LIMITED = os.environ["LIMITED_URL"].removesuffix("/v1")
MODEL, EMBEDDING = "gemma3:1b", "embed-small"
# It takes its key from here, for whatever host.
os.environ["OLLAMA_API_KEY"] = KEY
client = Client(host=ROOT)


def said(text):
    return [{"role": "user", "content": text}]


def refused(call, status):
    error = checks.refused(ollama.ResponseError, call)
    assert error.status_code == status, (error.status_code, error.error)
    return error.error


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: The city.
    """
    return f"sunny in {city}"


def check_a_whole_answer():
    answer = client.chat(MODEL, said("hello"))
    assert answer.message.content == "You said: hello" and answer.done and answer.done_reason == "stop", answer
    assert answer.eval_count > 0 and answer.prompt_eval_count > 0 and answer.total_duration > 0


def check_a_streamed_answer():
    parts = list(client.chat(MODEL, said("Grüße 🙂"), stream=True))
    assert "".join(part.message.content for part in parts) == "You said: Grüße 🙂"
    assert [part.done for part in parts].index(True) == len(parts) - 1


def check_generate_in_both_ways():
    assert client.generate(MODEL, "hello", system="Be brief.").response == "You said: hello"
    parts = client.generate(MODEL, "hello", stream=True, options={"temperature": 0, "num_ctx": 100_000})
    assert "".join(part.response for part in parts) == "You said: hello"
    assert client.generate(MODEL).done_reason == "load"
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"


def check_thoughts_and_formats():
    answer = client.chat(MODEL, said("think first"), think=True)
    assert (answer.message.thinking, answer.message.content) == ("Hm.", "Yes.")
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    assert client.chat(MODEL, said("as a schema"), format=schema).message.content == '{"name": "cat", "legs": 4}'
    assert client.chat(MODEL, said("as a schema"), format="json").message.content.startswith("{")


def check_tools_go_both_ways():
    messages = said("weather please")
    answer = client.chat(MODEL, messages, tools=[weather])
    calls = answer.message.tool_calls
    assert [call.function.arguments["city"] for call in calls] == ["Köln", "Graz"]
    messages.append(answer.message)
    for call in calls:
        content = weather(**call.function.arguments)
        messages.append({"role": "tool", "content": content, "tool_name": call.function.name})
    last = client.chat(MODEL, messages, tools=[weather])
    assert last.message.content == "You said: sunny in Graz", last
    streamed = [part.message.tool_calls for part in client.chat(MODEL, said("weather please"), tools=[weather], stream=True)]
    assert sum(len(calls) for calls in streamed if calls) == 2


def check_images():
    image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    answer = client.chat(MODEL, [{"role": "user", "content": "a picture", "images": [image]}])
    assert answer.message.content == "You said: a picture"


def check_embeddings():
    answer = client.embed(EMBEDDING, ["Hello", "you"])
    assert answer.embeddings == [[5.0, 72.0, 0.5], [3.0, 121.0, 0.5]] and answer.prompt_eval_count == 4, answer
    assert client.embed(EMBEDDING, "Hello").embeddings == [[5.0, 72.0, 0.5]]
    assert list(client.embeddings(EMBEDDING, "Hello").embedding) == [5.0, 72.0, 0.5]
    assert "embeddings" in refused(lambda: client.embed(MODEL, "x"), 400)


def check_models():
    assert [model.model for model in client.list().models][0] == MODEL
    shown = client.show(MODEL)
    assert "tools" in shown.capabilities and shown.modelinfo["gemma3.context_length"] == 8192
    assert client.ps().models[0].expires_at


def check_refusals():
    assert "nope" in refused(lambda: client.chat("nope", said("x")), 404)
    refused(lambda: client.show("nope"), 404)
    for call in [lambda: client.delete(MODEL), lambda: client.copy(MODEL, "other"), lambda: client.pull(MODEL)]:
        assert "operator" in refused(call, 403)
    text = refused(lambda: client.chat(MODEL, said("broken for nobody")), 502)
    assert "model server" in text, text
    refused(lambda: Client(host=ROOT, headers={"Authorization": "Bearer cbk_wrong"}).list(), 401)
    del os.environ["OLLAMA_API_KEY"]
    try:
        assert "OLLAMA_API_KEY" in refused(lambda: Client(host=ROOT).list(), 403)
    finally:
        os.environ["OLLAMA_API_KEY"] = KEY


def check_a_failure_in_the_stream_is_raised():
    for text in ["crash in the middle", "cut in the middle"]:
        stream = client.chat(MODEL, said(text), stream=True)
        assert next(stream).message.content == "half"
        error = refused(lambda: list(stream), -1)
        assert "crashed" not in error, error


def check_a_limit_is_told():
    limited = Client(host=LIMITED, headers={"Authorization": f"Bearer {os.environ['LIMITED_KEY']}"})

    def until_refused():
        while True:
            limited.list()

    assert refused(until_refused, 429)


def check_leaving_stops_the_model():
    stream = client.chat(MODEL, said("endless for ollama"), stream=True)
    for number, _ in enumerate(stream):
        if number == 3:
            break
    stream.close()


checks.run_all(globals())
