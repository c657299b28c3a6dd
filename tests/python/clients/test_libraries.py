"""Libraries on top of the official clients, unmodified but for their base URL: a second run calls no model and gives the same."""

import asyncio

import litellm
import pytest
from haystack.components.generators.chat import OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent
from served import ADDRESS, URL, both_runs


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What an application sets that is configured by its environment only."""
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_API_KEY", "unused")
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", ADDRESS)


def weather(city: str, days: int) -> str:
    """The weather of a city in the next days."""
    return f"{days} days of rain in {city}"


def langchain_openai():
    return ChatOpenAI(model="gpt-5", use_responses_api=True)


def langchain_anthropic():
    return ChatAnthropic(model="claude-test")


def streamed(model, question):
    pieces = [piece.text for piece in model.stream(question)]
    assert len(pieces) > 3
    return "".join(pieces)


def calls_of_tools(model):
    return model.bind_tools([tool(weather)]).invoke("call a tool").tool_calls


def with_pydantic_ai(model):
    return Agent(model).run_sync("Hello from Pydantic AI").output


def with_pydantic_ai_in_pieces(model):
    async def run():
        async with Agent(model).run_stream("Hello from Pydantic AI, piece by piece") as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    pieces = asyncio.run(run())
    assert len(pieces) > 3
    return "".join(pieces)


def with_pydantic_ai_and_a_tool(model):
    """Two turns: the model calls the tool, and answers with its result."""
    called = []
    agent = Agent(model)

    @agent.tool_plain
    def weather(city: str, days: int) -> str:
        called.append((city, days))
        return f"{days} days of rain in {city}"

    output = agent.run_sync("call a tool").output
    assert called == [("La Coruña", 3)]
    return output


def with_haystack():
    generator = OpenAIResponsesChatGenerator(api_key=Secret.from_token("unused"), model="gpt-5")
    return generator.run([ChatMessage.from_user("Hello from Haystack")])["replies"][0].text


def with_litellm_responses():
    return litellm.responses("Hello from LiteLLM", "openai/gpt-5").output[0].content[0].text


def with_litellm_responses_in_pieces():
    events = litellm.responses("Hello from LiteLLM, piece by piece", "openai/gpt-5", stream=True)
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(pieces) > 3
    return "".join(pieces)


def with_litellm_anthropic():
    messages = [{"role": "user", "content": "Hello from LiteLLM"}]
    return litellm.completion("anthropic/claude-test", messages).choices[0].message.content


def structured(model):
    schema = {"title": "journey", "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    return model.with_structured_output(schema, method="json_schema").invoke("Where to?")


CASES = {
    "langchain-openai": lambda: langchain_openai().invoke("Hello from LangChain").content,
    "langchain-openai, stream": lambda: streamed(langchain_openai(), "Hello from LangChain, piece by piece"),
    "langchain-openai, tools": lambda: calls_of_tools(langchain_openai()),
    "langchain-openai, structured": lambda: structured(langchain_openai()),
    "langchain-anthropic": lambda: langchain_anthropic().invoke("Hello from LangChain").content,
    "langchain-anthropic, stream": lambda: streamed(langchain_anthropic(), "Hello from LangChain, piece by piece"),
    "langchain-anthropic, tools": lambda: calls_of_tools(langchain_anthropic()),
    "pydantic-ai, openai": lambda: with_pydantic_ai("openai:gpt-5"),
    "pydantic-ai, openai, stream": lambda: with_pydantic_ai_in_pieces("openai:gpt-5"),
    "pydantic-ai, openai, tools": lambda: with_pydantic_ai_and_a_tool("openai:gpt-5"),
    "pydantic-ai, anthropic": lambda: with_pydantic_ai("anthropic:claude-test"),
    "pydantic-ai, anthropic, stream": lambda: with_pydantic_ai_in_pieces("anthropic:claude-test"),
    "pydantic-ai, anthropic, tools": lambda: with_pydantic_ai_and_a_tool("anthropic:claude-test"),
    "haystack": with_haystack,
    "litellm, responses": with_litellm_responses,
    "litellm, responses, stream": with_litellm_responses_in_pieces,
    "litellm, anthropic": with_litellm_anthropic,
}


@pytest.mark.parametrize("case", CASES)
def test_a_second_run_calls_no_model(case):
    first, second = both_runs(CASES[case])
    assert first and second == first
