"""LlamaIndex by the Responses API: a second run calls no model and gives the same."""

import os

import httpx
import pytest
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses

URL = os.environ["LIKEWISE_URL"] + "/v1"
CALLS = os.environ["LIKEWISE_UPSTREAM"] + "/calls"


def model():
    return OpenAIResponses(model="gpt-5", api_base=URL, api_key="unused", max_retries=0)


def weather(city: str, days: int) -> str:
    """The weather of a city in the next days."""
    return f"{days} days of rain in {city}"


def in_pieces():
    pieces = [piece.delta for piece in model().stream_complete("Hello from LlamaIndex, piece by piece")]
    assert len(pieces) > 3
    return "".join(pieces)


def calls_of_tools():
    tool = FunctionTool.from_defaults(weather)
    response = model().chat_with_tools([tool], user_msg="call a tool")
    return [(call.tool_name, call.tool_kwargs) for call in model().get_tool_calls_from_response(response)]


CASES = {
    "complete": lambda: model().complete("Hello from LlamaIndex").text,
    "stream": in_pieces,
    "tools": calls_of_tools,
}


@pytest.mark.parametrize("case", CASES)
def test_a_second_run_calls_no_model(case):
    first, before = CASES[case](), httpx.get(CALLS).json()
    assert first and CASES[case]() == first
    assert httpx.get(CALLS).json() == before
