"""What LangChain and Pydantic AI need of the API that is named as the argument: text, streams, tools, structured answers and
embeddings. The model server plays what tests/agents/main.rs lists.
"""

import os
import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

ROOT, KEY, MODEL = os.environ["BASE_URL"], os.environ["API_KEY"], os.environ["MODEL"]
V1 = f"{ROOT}/v1"
QUESTION = "What is the weather in San Francisco?"
OPENAI = {"base_url": V1, "api_key": KEY}
OLLAMA = {"base_url": ROOT, "client_kwargs": {"headers": {"Authorization": f"Bearer {KEY}"}}}


class Animal(BaseModel):
    """An animal."""

    name: str
    legs: int


@tool
def get_weather(location: str) -> str:
    """The weather in a city."""
    return f"sunny in {location}"


def langchain(model):
    answer = model.invoke("hello")
    assert answer.text == "You said: hello", answer
    assert answer.usage_metadata["total_tokens"] > 0, answer
    assert "".join(chunk.text for chunk in model.stream("Grüße 🙂")) == "You said: Grüße 🙂"

    messages = [HumanMessage(QUESTION)]
    with_tools = model.bind_tools([get_weather])
    called = with_tools.invoke(messages)
    [call] = called.tool_calls
    assert call["args"] == {"location": "San Francisco"}, call
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    last = with_tools.invoke([*messages, called, result])
    assert last.text == "You said: sunny in San Francisco", last

    for method, question in [("function_calling", "Which animal?"), ("json_schema", "as a schema")]:
        animal = model.with_structured_output(Animal, method=method).invoke(question)
        assert animal == Animal(name="cat", legs=4), animal


def langchain_embeddings(embeddings):
    assert embeddings.embed_documents(["Hello", "you"]) == [[5.0, 72.0, 0.5], [3.0, 121.0, 0.5]]
    assert embeddings.embed_query("Hello") == [5.0, 72.0, 0.5]


def pydantic_ai(model):
    agent = Agent(model, tools=[get_weather.func])
    assert agent.run_sync(QUESTION).output == "You said: sunny in San Francisco"
    streamed = agent.run_stream_sync("Grüße 🙂")
    assert "".join(streamed.stream_text(delta=True)) == "You said: Grüße 🙂"
    assert agent.run_sync("hello").usage.output_tokens > 0


def chat_completions():
    langchain(ChatOpenAI(model=MODEL, **OPENAI))
    # Tokens instead of texts are not for every model server.
    langchain_embeddings(OpenAIEmbeddings(model="embed-small", check_embedding_ctx_length=False, **OPENAI))
    pydantic_ai(OpenAIChatModel(MODEL, provider=OpenAIProvider(**OPENAI)))


def responses():
    langchain(ChatOpenAI(model=MODEL, use_responses_api=True, store=False, **OPENAI))
    pydantic_ai(OpenAIResponsesModel(MODEL, provider=OpenAIProvider(**OPENAI)))


def messages():
    langchain(ChatAnthropic(model=MODEL, base_url=ROOT, api_key=KEY, max_retries=0, max_tokens=256))
    pydantic_ai(AnthropicModel(MODEL, provider=AnthropicProvider(base_url=ROOT, api_key=KEY)))


def ollama():
    langchain(ChatOllama(model=MODEL, **OLLAMA))
    langchain_embeddings(OllamaEmbeddings(model="embed-small", **OLLAMA))


{"chat_completions": chat_completions, "responses": responses, "messages": messages, "ollama": ollama}[sys.argv[1]]()
