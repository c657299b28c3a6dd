"""Responses through the official client: a hit is what its miss was, in either form, and the second run calls no model."""

import os

import httpx
import openai
import pydantic
import pytest
from haystack.components.generators.chat import OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

URL = os.environ["LIKEWISE_URL"] + "/v1"
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
CASES = {"words": ("tell me", {}), "tools": ("call a tool", {"tools": [TOOL]}), "refusal": ("refuse", {})}


class Journey(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture
def client():
    return openai.OpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120)


def calls():
    """What the model of the tests counts: a response by its id is passed on to it, and it answers any with its count."""
    return httpx.get(URL + "/responses/count").json()["count"]


def outcome(raw):
    return raw.headers["cache-status"]


def create(client, question, seed, **options):
    metadata = {"seed": seed}
    raw = client.responses.with_raw_response.create(model="gpt-5", input=question, metadata=metadata, **options)
    return raw.parse().model_dump(exclude_unset=True), outcome(raw)


def stream(client, question, seed, **options):
    """The events and the response that the client makes of them."""
    with client.responses.stream(model="gpt-5", input=question, metadata={"seed": seed}, **options) as events:
        read = [*events]
        return read, events.get_final_response().model_dump(exclude_unset=True)


def said(response):
    """What a response says, without what the client's parser adds."""
    names = ("id", "type", "arguments", "name", "call_id")
    return [
        {name: item[name] for name in names if name in item}
        | {"content": [part.get("text") or part.get("refusal") for part in item.get("content", [])]}
        for item in response["output"]
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_response_is_replayed_in_both_forms(client, case):
    question, options = CASES[case]
    miss, first = create(client, question, f"{case}-json", **options)
    hit, second = create(client, question, f"{case}-json", **options)
    assert first == "likewise; fwd=miss" and second.startswith("likewise; hit") and hit == miss
    _, streamed = stream(client, question, f"{case}-json", **options)
    assert (streamed["id"], said(streamed)) == (miss["id"], said(miss))


@pytest.mark.parametrize("case", CASES)
def test_a_stream_is_replayed_in_both_forms(client, case):
    question, options = CASES[case]
    _, miss = stream(client, question, f"{case}-stream", **options)
    events, hit = stream(client, question, f"{case}-stream", **options)
    assert hit == miss and events[0].type == "response.created" and events[-1].type == "response.completed"
    whole, status = create(client, question, f"{case}-stream", **options)
    assert status.startswith("likewise; hit") and (whole["id"], said(whole)) == (miss["id"], said(miss))


def test_a_parsed_response_is_the_same_the_second_time(client):
    before = calls()
    runs = [client.responses.parse(model="gpt-5", input="where to?", text_format=Journey) for _ in range(2)]
    assert calls() == before + 1
    assert runs[0].output_parsed == runs[1].output_parsed and runs[0].output_parsed.city == "La Coruña"


def test_a_response_that_is_not_stored_has_a_fresh_id(client):
    runs = [create(client, "forget me", "unstored", store=False)[0] for _ in range(2)]
    assert runs[0]["id"] != runs[1]["id"] and runs[0]["output"] == runs[1]["output"]


def with_langchain():
    model = ChatOpenAI(model="gpt-5", base_url=URL, api_key="unused", use_responses_api=True)
    return model.invoke("Hello from LangChain").content


def with_langchain_in_pieces():
    model = ChatOpenAI(model="gpt-5", base_url=URL, api_key="unused", use_responses_api=True)
    pieces = [piece.text for piece in model.stream("Hello from LangChain, piece by piece")]
    assert len(pieces) > 3
    return "".join(pieces)


def with_pydantic_ai():
    provider = OpenAIProvider(base_url=URL, api_key="unused")
    return Agent(OpenAIResponsesModel("gpt-5", provider=provider)).run_sync("Hello from Pydantic AI").output


def with_haystack():
    generator = OpenAIResponsesChatGenerator(api_key=Secret.from_token("unused"), api_base_url=URL, model="gpt-5")
    return generator.run([ChatMessage.from_user("Hello from Haystack")])["replies"][0].text


@pytest.mark.parametrize("ask", [with_langchain, with_langchain_in_pieces, with_pydantic_ai, with_haystack])
def test_other_libraries_call_the_model_once(ask):
    first, before = ask(), calls()
    assert ask() == first and first
    assert calls() == before
