"""Answers through the official client: a hit is what its miss was, in either form."""

import asyncio
import os

import openai
import pytest

URL = os.environ["LIKEWISE_URL"] + "/v1"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CASES = {
    "words": ("tell me", {}),
    "several": ("tell me", {"n": 3}),
    "logprobs": ("tell me", {"logprobs": True, "n": 2}),
    "tools": ("call a tool", {"tools": TOOLS}),
    "refusal": ("refuse", {}),
}


@pytest.fixture
def client():
    return openai.OpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120)


def ask(client, question, **options):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.with_raw_response.create(model="gpt-5", messages=messages, **options)


def whole(client, question, **options):
    raw = ask(client, question, **options)
    return normalised(raw.parse().model_dump(exclude_unset=True)), raw.headers["cache-status"]


def streamed(client, question, **options):
    """The chunks of a stream added up, as a whole answer has them."""
    raw = ask(client, question, stream=True, stream_options={"include_usage": True}, **options)
    chunks = [chunk.model_dump(exclude_unset=True) for chunk in raw.parse()]
    assert len({chunk["id"] for chunk in chunks}) == 1 and len(chunks) > 3
    answer = chunks[0] | {"choices": {}, "usage": chunks[-1]["usage"]}
    for chunk in chunks:
        for choice in chunk["choices"]:
            known = answer["choices"].setdefault(choice["index"], {"text": {}, "calls": {}, "logprobs": [], "end": []})
            for name in ("role", "content", "refusal"):
                said = choice["delta"].get(name)
                if said is not None:
                    known["text"][name] = known["text"].get(name, "") + said
            for call in choice["delta"].get("tool_calls") or []:
                named = [call.get("id"), call["function"].get("name"), ""]
                function = known["calls"].setdefault(call["index"], named)
                function[2] += call["function"]["arguments"]
            known["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
            known["end"] += [choice["finish_reason"]] if choice["finish_reason"] else []
    return normalised(answer), raw.headers["cache-status"]


def normalised(answer):
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


def as_added_up(answer):
    """A whole answer in the shape of `streamed`."""
    choices = {}
    for choice in answer["choices"]:
        message = choice["message"]
        calls = {
            place: [call["id"], call["function"]["name"], call["function"]["arguments"]]
            for place, call in enumerate(message.get("tool_calls") or [])
        }
        text = {name: message[name] for name in ("role", "content", "refusal") if message[name] is not None}
        logprobs = (choice.get("logprobs") or {}).get("content") or []
        choices[choice["index"]] = {"text": text, "calls": calls, "logprobs": logprobs, "end": [choice["finish_reason"]]}
    return answer | {"choices": choices, "object": "chat.completion.chunk"}


@pytest.mark.parametrize("case", CASES)
def test_a_whole_answer_is_replayed_in_both_forms(client, case):
    question, options = CASES[case]
    miss, outcome = whole(client, question, seed=1, **options)
    assert outcome == "likewise; fwd=miss"
    hit, outcome = whole(client, question, seed=1, **options)
    assert outcome.startswith("likewise; hit") and hit == miss
    stream, outcome = streamed(client, question, seed=1, **options)
    assert outcome.startswith("likewise; hit") and stream == as_added_up(miss)


@pytest.mark.parametrize("case", CASES)
def test_a_stream_is_replayed_in_both_forms(client, case):
    question, options = CASES[case]
    miss, outcome = streamed(client, question, seed=2, **options)
    assert outcome == "likewise; fwd=miss"
    hit, outcome = streamed(client, question, seed=2, **options)
    assert outcome.startswith("likewise; hit") and hit == miss
    answer, outcome = whole(client, question, seed=2, **options)
    assert outcome.startswith("likewise; hit") and as_added_up(answer) == miss


def test_the_cache_object_goes_in_the_extra_body(client):
    _, first = whole(client, "with a tag", extra_body={"cache": {"ttl": 60, "tags": ["product:42"]}})
    _, second = whole(client, "with a tag", extra_body={"cache": {"ttl": 60, "tags": ["product:42"]}})
    _, third = whole(client, "with a tag", extra_body={"cache": {"no-cache": True}})
    assert (first, third) == ("likewise; fwd=miss", "likewise; fwd=request")
    assert second.startswith("likewise; hit")


def test_errors_of_the_model_are_the_clients_own(client):
    for _ in range(2):
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model="broken", messages=[{"role": "user", "content": "x"}])
        assert (raised.value.param, raised.value.code) == ("x", "broken")


def test_many_at_once_are_answered_alike():
    async def run():
        client = openai.AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120)
        messages = [{"role": "user", "content": "all at once"}]
        asks = [client.chat.completions.create(model="gpt-5", messages=messages) for _ in range(64)]
        return [answer.choices[0].message.content for answer in await asyncio.gather(*asks)]

    answers = asyncio.run(run())
    assert all(answer == answers[0] for answer in answers)
