"""The cases of the compliance suite of Open Responses, each asked of the upstream itself, through Likewise, and once more.

All three answers keep to the specification and are the same, as JSON and as a stream: of the miss and the hit but for how a text
is cut, of the upstream itself also but for the number of the call and its time.
"""

import base64
import json
import re
from dataclasses import dataclass

import httpx
import pytest
from open_responses import check_events, check_response, with_joined_pieces
from served import UPSTREAM, URL, calls

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
MARK = "data: [DONE]\n\n"
FILE = "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.4\n% Title: an attached file\n%%EOF").decode()


def said(role, content, **more):
    return {"type": "message", "role": role, "content": content} | more


def one(*input, **more):
    """A case of one request."""
    return [lambda _: {"input": [*input]} | more]


def call_of_a_tool(_):
    choice = {"type": "function", "name": WEATHER["name"]}
    return {"input": "Ask the tool for the weather of Santiago.", "tools": [WEATHER], "tool_choice": choice}


def result_of_the_tool(previous):
    (call,) = previous["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "18 degrees and rain"}
    return {"previous_response_id": previous["id"], "input": [result]}


CASES = {
    "basic text": one(said("user", "Say hello in three words.")),
    "system prompt": one(said("system", "You speak like a pirate."), said("user", "Say hello.")),
    "developer prompt": one(said("developer", "You speak like a pirate."), said("user", "Say hello.")),
    "instructions": one(said("user", "Say hello."), instructions="You speak like a pirate."),
    "tool calling": one(said("user", "How is the weather in Santiago?"), tools=[WEATHER]),
    "tool calling, two turns": [call_of_a_tool, result_of_the_tool],
    "image input": one(
        said("user", [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": IMAGE}])
    ),
    "file input": one(
        said(
            "user",
            [
                {"type": "input_text", "text": "What is its title?"},
                {"type": "input_file", "filename": "title.pdf", "file_data": FILE},
            ],
        )
    ),
    "multi-turn": one(
        said("user", "My name is Rosalía."),
        said("assistant", "Hello Rosalía!", phase="final_answer"),
        said("user", "What is my name?"),
    ),
    "previous response": [
        lambda _: {"input": "The code word is papaya. Say OK."},
        lambda previous: {"previous_response_id": previous["id"], "input": "What is the code word?"},
    ],
}
# Tools that the upstream runs itself: never cached.
HOSTED = {
    "file search": {"type": "file_search", "vector_store_ids": ["vs_1"]},
    "offline web search": {"type": "web_search", "external_web_access": False},
}


@dataclass
class Answer:
    response: dict
    events: list
    headers: httpx.Headers
    ends_with_done: bool = False

    def whole(self):
        """All that was said."""
        return self.response, with_joined_pieces(self.events)


def ask(address, body):
    raw = httpx.post(address + "/responses", json=body, timeout=60)
    assert raw.status_code == 200, raw.text
    if not body["stream"]:
        assert raw.headers["content-type"] == "application/json"
        return Answer(raw.json(), [], raw.headers)
    assert raw.headers["content-type"].startswith("text/event-stream")
    events = [*events_of(raw.text)]
    return Answer(events[-1]["response"], events, raw.headers, raw.text.endswith(MARK))


def events_of(text):
    """The events of a stream; the line that may end it is none."""
    *blocks, rest = text.removesuffix(MARK).split("\n\n")
    assert rest == ""
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        yield event


def conversation(address, turns, form, label=None):
    """The answers to a conversation. Those with another label, by default the form, are other questions to the cache."""
    answers, previous = [], None
    for turn in turns:
        body = {"model": "open-model", "metadata": {"label": label or form}, "stream": form == "stream"} | turn(previous)
        answers.append(ask(address, body))
        check_response(answers[-1].response)
        if form == "stream":
            check_events(answers[-1].events)
        previous = answers[-1].response
    return answers


def without_number_and_time(answers):
    """What was said in a conversation, without the numbers of the calls and the times that the upstream writes into it."""
    text = json.dumps([answer.whole() for answer in answers])
    return json.loads(re.sub(r'((?:resp|msg|fc|ht)_|Answer |"(?:created|completed)_at": )\d+', r"\g<1>0", text))


def outcomes(answers):
    return [answer.headers["cache-status"].split(";")[1].strip() for answer in answers]


@pytest.mark.parametrize("form", ["json", "stream"])
@pytest.mark.parametrize("case", CASES)
def test_a_case_is_the_same_without_likewise_at_its_miss_and_at_its_hit(case, form):
    turns = CASES[case]
    direct, miss, before = conversation(UPSTREAM, turns, form), conversation(URL, turns, form), calls()
    hit = conversation(URL, turns, form)
    assert calls() == before
    assert (outcomes(miss), outcomes(hit)) == (["fwd=miss"] * len(turns), ["hit"] * len(turns))
    assert without_number_and_time(miss) == without_number_and_time(direct)
    assert [answer.whole() for answer in hit] == [answer.whole() for answer in miss]
    assert {answer.ends_with_done for answer in direct + miss + hit} == {form == "stream"}
    assert ("function_call" in str(hit[0].response["output"])) == case.startswith("tool calling")


@pytest.mark.parametrize("form", ["json", "stream"])
@pytest.mark.parametrize("case", CASES)
def test_a_hit_in_the_other_form_is_what_the_upstream_says_in_that_form(case, form):
    turns, other, label = CASES[case], {"json": "stream", "stream": "json"}[form], f"asked as {form}"
    miss, direct = conversation(URL, turns, form, label), conversation(UPSTREAM, turns, other, label)
    hit = conversation(URL, turns, other, label)
    assert (outcomes(miss), outcomes(hit)) == (["fwd=miss"] * len(turns), ["hit"] * len(turns))
    assert without_number_and_time(hit) == without_number_and_time(direct)
    assert [answer.response for answer in hit] == [answer.response for answer in miss]


@pytest.mark.parametrize("form", ["json", "stream"])
@pytest.mark.parametrize("case", HOSTED)
def test_a_tool_of_the_upstream_is_used_each_time(case, form):
    turns = one(said("user", "Look it up."), tools=[HOSTED[case]])
    direct, first, second = (conversation(address, turns, form) for address in (UPSTREAM, URL, URL))
    assert outcomes(first + second) == ["fwd=bypass"] * 2 and first[0].headers["x-likewise-reason"]
    assert without_number_and_time(direct) == without_number_and_time(first) == without_number_and_time(second)
    assert first[0].response["id"] != second[0].response["id"]


def test_an_id_that_the_upstream_never_gave_is_refused_in_its_words():
    body = {"model": "open-model", "input": "And then?", "previous_response_id": "resp_of_another"}
    direct, first, second = (httpx.post(address + "/responses", json=body) for address in (UPSTREAM, URL, URL))
    assert (direct.status_code, direct.json()["error"]["param"]) == (400, "previous_response_id")
    assert [answer.status_code for answer in (first, second)] == [400, 400]
    assert first.json() == second.json() == direct.json()


def without(name):
    return lambda events: [{key: value for key, value in event.items() if key != name} for event in events]


def with_another_answer(events):
    return [event | ({"text": "Another answer."} if event["type"] == "response.output_text.done" else {}) for event in events]


FAULTS = {
    "a member is missing": without("item_id"),
    "an event is missing": lambda events: events[:4] + events[5:],
    "an event has no number": without("sequence_number"),
    "the end is missing": lambda events: events[:-1],
    "the pieces are another text": with_another_answer,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stream_that_breaks_the_specification_is_found(fault):
    (answer,) = conversation(UPSTREAM, CASES["basic text"], "stream")
    with pytest.raises(AssertionError):
        check_events(FAULTS[fault](answer.events))


@pytest.mark.parametrize("name", ["truncation", "usage", "output"])
def test_a_response_that_breaks_the_specification_is_found(name):
    (answer,) = conversation(UPSTREAM, CASES["basic text"], "json")
    (broken,) = without(name)([answer.response])
    with pytest.raises(AssertionError):
        check_response(broken)
