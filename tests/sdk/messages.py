"""What Anthropic's official Python SDK needs of `/v1/messages`: each function named `check_…` is a claim.

The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
"""

import json
import os
import time

import anthropic
from anthropic import Anthropic

from checks import refused, run_all

BASE, KEY = os.environ["BASE_URL"].removesuffix("/v1"), os.environ["API_KEY"]
LIMITED, LIMITED_KEY = os.environ["LIMITED_URL"].removesuffix("/v1"), os.environ["LIMITED_KEY"]
MODEL = "gemma3:1b"
client = Anthropic(base_url=BASE, api_key=KEY, max_retries=0)
WEATHER = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def said(text, **more):
    return {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": text}], **more}


def ask(text, **more):
    return client.messages.create(**said(text, **more))


def check_a_whole_answer():
    answer = ask("hello", system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    assert answer.content[0].text == "You said: hello" and answer.stop_reason == "end_turn", answer
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0 and answer.model == MODEL
    assert answer._request_id


def check_a_token_is_as_good_as_a_key():
    by_token = Anthropic(base_url=BASE, api_key=None, auth_token=KEY, max_retries=0)
    assert by_token.messages.create(**said("hello")).content[0].text == "You said: hello"


def check_a_streamed_answer():
    with client.messages.stream(**said("Grüße 🙂")) as stream:
        assert "".join(stream.text_stream) == "You said: Grüße 🙂"
        answer = stream.get_final_message()
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 0
    kinds = [event.type for event in ask("hello", stream=True)]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"], kinds


def check_tools_go_both_ways():
    with client.messages.stream(**said("weather please", tools=[WEATHER], tool_choice={"type": "any"})) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.input["city"] for call in calls] == ["Köln", "Graz"]
    messages = said("weather please")["messages"] + [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
            for call in calls
        ]},
    ]
    second = client.messages.create(model=MODEL, max_tokens=256, messages=messages, tools=[WEATHER])
    assert second.content[0].text == "You said: sunny"


def check_thoughts_come_first_and_go_back():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    first = ask("think first", thinking=thinking)
    assert [block.type for block in first.content] == ["thinking", "text"]
    assert first.content[0].thinking == "Hm." and first.content[0].signature
    with client.messages.stream(**said("think first", thinking=thinking)) as stream:
        streamed = stream.get_final_message().content
    assert (streamed[0].thinking, streamed[1].text) == ("Hm.", "Yes.") and streamed[0].signature
    messages = said("think first")["messages"] + [
        {"role": "assistant", "content": first.content}, {"role": "user", "content": "hello"},
    ]
    assert client.messages.create(model=MODEL, max_tokens=9, messages=messages).content[0].text == "You said: hello"


def check_a_schema_is_kept_to():
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    answer = ask("as a schema", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(answer.content[0].text) == {"name": "cat", "legs": 4}


def check_parameters_and_pictures():
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    answer = ask(
        [{"type": "text", "text": "a picture"}, picture], stop_sequences=["x", "y"], metadata={"user_id": "u"},
        extra_headers={"anthropic-beta": "of-next-year"},
        extra_body={"nobody_knows": 1, "temperature": 0, "top_k": 5, "top_p": 1},
    )
    assert answer.content[0].text == "You said: a picture"


def check_counting():
    counted = client.messages.count_tokens(model=MODEL, messages=said("hello")["messages"], tools=[WEATHER])
    assert counted.input_tokens > 10


def check_models():
    assert MODEL in [model.id for model in client.models.list(limit=1)], "it asks for every page"
    for name in [MODEL, "hf.co/org/name:Q4_K_M"]:
        model = client.models.retrieve(name)
        assert (model.id, model.type) == (name, "model") and model.created_at.year == 1970
    assert refused(anthropic.NotFoundError, lambda: client.models.retrieve("no/such:one")).type == "not_found_error"


def check_errors_have_their_classes():
    bad = Anthropic(base_url=BASE, api_key="cbk_wrong", max_retries=0)
    error = refused(anthropic.AuthenticationError, lambda: bad.messages.create(**said("hello")))
    assert error.type == "authentication_error" and error.request_id, error
    refused(anthropic.NotFoundError, lambda: client.messages.create(**(said("hello") | {"model": "no/such:one"})))
    error = refused(anthropic.BadRequestError, lambda: ask("hello", extra_body={"temperature": 9}))
    assert "temperature" in str(error)
    refused(anthropic.UnprocessableEntityError, lambda: ask("語" * 80_000))


def check_a_failure_in_the_stream_is_raised():
    for text in ["crash in the middle", "cut in the middle"]:
        error = refused(anthropic.APIStatusError, lambda: list(ask(text, stream=True)))
        assert error.type == "api_error" and "crashed" not in str(error), error


def check_a_limit_is_waited_out_and_a_quota_not():
    limited = Anthropic(base_url=LIMITED, api_key=LIMITED_KEY, max_retries=0)

    def until_refused():
        while True:
            limited.models.list()

    error = refused(anthropic.RateLimitError, until_refused)
    assert int(error.response.headers["retry-after"]) <= 2 and error.type == "rate_limit_error"
    limited.with_options(max_retries=2).models.list()
    time.sleep(3)
    patient = limited.with_options(max_retries=2)
    error = refused(anthropic.RateLimitError, lambda: patient.messages.create(**said("hello", max_tokens=50)))
    assert error.request.headers["x-stainless-retry-count"] == "0", "it was tried again in vain"


def check_pings_do_not_disturb():
    with client.messages.stream(**said("slowly for python")) as stream:
        assert stream.get_final_text() == "one two"


run_all(globals())
