"""Messages through Anthropic's own client: a hit is what its miss was, in either form."""

import os

import anthropic
import pytest

URL = os.environ["LIKEWISE_URL"]
TOOLS = [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
CASES = {"words": ("tell me", {}), "reasoning": ("think", {}), "tools": ("call a tool", {"tools": TOOLS})}


@pytest.fixture
def client():
    return anthropic.Anthropic(base_url=URL, api_key="unused", max_retries=0, timeout=120)


def asked(question, **options):
    messages = [{"role": "user", "content": question}]
    return {"model": "claude-test", "max_tokens": 100, "messages": messages} | options


def normalised(message):
    """Without the id, and without the nulls that the client itself adds to what it collects of a stream."""
    return message.model_dump(exclude_none=True, exclude_unset=True, exclude={"id"})


def whole(client, question, **options):
    raw = client.messages.with_raw_response.create(**asked(question, **options))
    return normalised(raw.parse()), raw.headers["cache-status"]


def streamed(client, question, **options):
    with client.messages.stream(**asked(question, **options)) as stream:
        deltas = sum(event.type == "content_block_delta" for event in stream)
        assert deltas >= 2
        return normalised(stream.get_final_message()), stream.response.headers["cache-status"]


@pytest.mark.parametrize("case", CASES)
def test_a_whole_message_is_replayed_in_both_forms(client, case):
    question, options = CASES[case]
    miss, outcome = whole(client, question, extra_body={"top_k": 1}, **options)
    assert outcome == "likewise; fwd=miss"
    for form in (whole, streamed):
        hit, outcome = form(client, question, extra_body={"top_k": 1}, **options)
        assert outcome.startswith("likewise; hit") and hit == miss


@pytest.mark.parametrize("case", CASES)
def test_a_stream_is_replayed_in_both_forms(client, case):
    question, options = CASES[case]
    miss, outcome = streamed(client, question, extra_body={"top_k": 2}, **options)
    assert outcome == "likewise; fwd=miss"
    for form in (streamed, whole):
        hit, outcome = form(client, question, extra_body={"top_k": 2}, **options)
        assert outcome.startswith("likewise; hit") and hit == miss


def test_the_events_of_a_created_stream_are_replayed(client):
    def text():
        with client.messages.create(**asked("as events"), stream=True) as events:
            deltas = [event.delta for event in events if event.type == "content_block_delta"]
            return "".join(delta.text for delta in deltas)

    first = text()
    assert first and text() == first


def test_a_beta_is_part_of_what_is_asked(client):
    _, plain = whole(client, "with betas")
    _, beta = whole(client, "with betas", extra_headers={"anthropic-beta": "one-1"})
    _, again = whole(client, "with betas", extra_headers={"anthropic-beta": "one-1"})
    assert (plain, beta) == ("likewise; fwd=miss", "likewise; fwd=miss") and again.startswith("likewise; hit")


def test_errors_are_the_clients_own(client):
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(**asked("x") | {"model": "broken"})
    assert raised.value.body["error"] == {"type": "invalid_request_error", "message": "out of order"}
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(**asked("x") | {"messages": []})
    assert raised.value.body["error"]["message"].startswith("messages")
