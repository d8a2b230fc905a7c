"""What the official Python SDK and the Agents SDK need of /v1/responses: each function named `check_…` is a claim.

The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
"""

import json
import os

import openai
from openai import OpenAI
from pydantic import BaseModel

from checks import refused, run_all

BASE, KEY = os.environ["BASE_URL"], os.environ["API_KEY"]
LIMITED, LIMITED_KEY = os.environ["LIMITED_URL"], os.environ["LIMITED_KEY"]
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
MODEL = "gemma3:1b"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

client = OpenAI(base_url=BASE, api_key=KEY, max_retries=0)


def ask(text, **more):
    return client.responses.create(model=MODEL, input=text, store=False, **more)


def check_a_whole_response():
    response = ask("hello", metadata={"a": "b"}, instructions="Be brief.")
    assert response.output_text == "You said: hello", response
    assert response.status == "completed" and response.store is False and response.metadata == {"a": "b"}
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response.id.startswith("resp_") and response.model == MODEL and response._request_id


def check_a_stream_helper_puts_the_response_together():
    with client.responses.stream(model=MODEL, input="Grüße 🙂", store=False) as stream:
        events = list(stream)
        response = stream.get_final_response()
    assert response.output_text == "You said: Grüße 🙂"
    assert [event.sequence_number for event in events if hasattr(event, "sequence_number")][0] == 0
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"], kinds
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"], kinds


def check_raw_events_are_numbered_without_a_gap():
    events = list(ask("think first", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    ids = {event.response.id for event in events if hasattr(event, "response")}
    assert len(ids) == 1
    thoughts = "".join(event.delta for event in events if event.type == "response.reasoning_summary_text.delta")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert (thoughts, text) == ("Hm.", "Yes.")
    kinds = [item.type for item in events[-1].response.output]
    assert kinds == ["reasoning", "message"], kinds


def check_thoughts_can_be_sent_again():
    first = ask("think first", include=["reasoning.encrypted_content"])
    assert first.output[0].encrypted_content
    # Strict clients take a text or nothing, and no null.
    assert "encrypted_content" not in ask("think first").output[0].model_fields_set
    conversation = [{"role": "user", "content": "think first"}, *[item.model_dump() for item in first.output]]
    second = ask([*conversation, {"role": "user", "content": "hello"}])
    assert second.output_text == "You said: hello"


def check_tools_go_both_ways():
    conversation = [{"role": "user", "content": "weather please"}]
    first = ask(conversation, tools=[WEATHER, {"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Köln", "Graz"]
    conversation += [item.model_dump() for item in first.output]
    for call in calls:
        conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    assert ask(conversation, tools=[WEATHER]).output_text == "You said: sunny"


def check_tool_calls_are_streamed():
    events = list(ask("weather please", tools=[WEATHER], stream=True))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments)["city"] for event in done] == ["Köln", "Graz"]
    assert [item.type for item in events[-1].response.output] == ["function_call", "function_call"]


def check_a_schema_is_kept_to():
    class Animal(BaseModel):
        name: str
        legs: int

    response = client.responses.parse(model=MODEL, input="as a schema", text_format=Animal, store=False)
    assert response.output_parsed == Animal(name="cat", legs=4)


def check_images_and_system_messages():
    parts = [
        {"type": "input_text", "text": "a picture"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
    ]
    conversation = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    response = ask(conversation, max_output_tokens=16, temperature=0, top_p=1, reasoning={"effort": "low"}, truncation="auto")
    assert response.output_text == "You said: a picture"


def check_an_empty_answer():
    assert ask("nothing at all").output_text == ""
    events = list(ask("nothing at all", stream=True))
    assert events[-1].type == "response.completed"


def check_what_needs_storage_is_refused():
    error = refused(openai.BadRequestError, lambda: ask("hello", previous_response_id="resp_1"))
    assert error.code == "previous_response_not_found", error
    for more in [{"background": True}, {"conversation": "conv_1"}]:
        error = refused(openai.BadRequestError, lambda: ask("hello", **more))
        assert error.code == "invalid_request" and "/chat/message" in error.message, error
    response = client.responses.create(model=MODEL, input="hello")
    assert response.store is False


def check_errors_have_their_classes():
    bad = OpenAI(base_url=BASE, api_key="cbk_wrong", max_retries=0)
    error = refused(openai.AuthenticationError, lambda: bad.responses.create(model=MODEL, input="hello"))
    assert error.code == "invalid_token"
    error = refused(openai.NotFoundError, lambda: client.responses.create(model="no/such:one", input="hello"))
    assert error.code == "model_not_found"
    error = refused(openai.BadRequestError, lambda: ask([{"role": "robot", "content": "x"}]))
    assert (error.code, error.param) == ("invalid_request", "input[0].role")


def check_a_failure_in_the_stream_is_told():
    for text in ["crash in the middle", "cut in the middle"]:
        events = list(ask(text, stream=True))
        assert events[-1].type == "response.failed", events[-1]
        assert events[-1].response.error.code == "server_error"
        assert [event.sequence_number for event in events] == list(range(len(events)))


def check_a_quota_is_not_tried_again():
    limited = OpenAI(base_url=LIMITED, api_key=LIMITED_KEY, max_retries=2)
    error = refused(openai.RateLimitError, lambda: limited.responses.create(model=MODEL, input="hello", max_output_tokens=500))
    assert error.code == "quota_exceeded"


def check_the_agents_sdk_runs_tools():
    from agents import Agent, OpenAIResponsesModel, Runner, function_tool
    from openai import AsyncOpenAI

    @function_tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return "sunny"

    model = OpenAIResponsesModel(model=MODEL, openai_client=AsyncOpenAI(base_url=BASE, api_key=KEY))
    agent = Agent(name="a", instructions="Be brief.", model=model, tools=[weather])
    result = Runner.run_sync(agent, "weather please")
    assert result.final_output == "You said: sunny", result.final_output


run_all(globals())
