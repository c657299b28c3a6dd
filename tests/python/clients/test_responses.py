"""Responses through the official client: a hit is what its miss was, in either form, and the second run calls no model."""

import openai
import pydantic
import pytest
from served import URL, both_runs, calls

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
CASES = {"words": ("tell me", {}), "tools": ("call a tool", {"tools": [TOOL]}), "refusal": ("refuse", {})}


class Journey(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture
def client():
    return openai.OpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120)


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


def test_a_conversation_goes_on_from_a_cached_turn(client):
    """The upstream stores what it answered, and refuses ids that it never gave."""
    turn = lambda question, **options: client.responses.create(model="gpt-5", input=question, **options)
    first, cached = both_runs(lambda: turn("Remember this"))
    assert cached.id == first.id
    second, again = both_runs(lambda: turn("What was it?", previous_response_id=cached.id))
    assert f"after {first.id}" in second.output_text and again == second
    with pytest.raises(openai.BadRequestError) as raised:
        turn("What was it?", previous_response_id="resp_of_another")
    assert (raised.value.param, raised.value.code) == ("previous_response_id", "previous_response_not_found")
