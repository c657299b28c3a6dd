"""What Open Responses requires of a response, and of the events of a stream: its published schema and specification in our words.

The source is `schema/*.tsp` and `src/pages/specification.mdx` of openresponses/openresponses, as of its version 2026-04-24.

A shape is a type, a string or None that the value equals, a tuple of shapes of which one fits, a list with the shape of each
entry, or a dictionary with the shapes of the members that must be there; a member in `Optional` may be absent.
"""

from dataclasses import dataclass
from itertools import groupby


@dataclass
class Optional:
    shape: object


NUMBER = (int, float)
STATUS = ("in_progress", "completed", "incomplete")
EFFORT = ("none", "low", "medium", "high", "xhigh", None)
TOKEN = {"token": str, "logprob": NUMBER, "bytes": [int]}
LOGPROBS = [TOKEN | {"top_logprobs": [TOKEN]}]
CITATION = {"type": "url_citation", "url": str, "start_index": int, "end_index": int, "title": str}
PART = (
    {"type": "output_text", "text": str, "annotations": [CITATION], "logprobs": Optional(LOGPROBS)},
    {"type": "refusal", "refusal": str},
    {"type": ("input_text", "text", "summary_text", "reasoning_text"), "text": str},
)
ROLE = ("user", "assistant", "system", "developer")
ITEM = (
    {"type": "message", "id": str, "status": STATUS, "role": ROLE, "content": [PART]},
    {"type": "function_call", "id": str, "call_id": str, "name": str, "arguments": str, "status": STATUS},
    {"type": "reasoning", "id": str, "summary": [PART], "content": Optional([PART]), "encrypted_content": Optional(str)},
    {"type": ("file_search_call", "web_search_call"), "id": str, "status": STATUS},
)
FUNCTION = {"type": "function", "name": str, "description": (str, None), "parameters": (dict, None), "strict": (bool, None)}
TOOL = (FUNCTION, {"type": ("file_search", "web_search")})
FORMAT = (
    {"type": ("text", "json_object")},
    {"type": "json_schema", "name": str, "description": (str, None), "schema": (dict, None), "strict": bool},
)
USAGE = {
    "input_tokens": int,
    "input_tokens_details": {"cached_tokens": int},
    "output_tokens": int,
    "output_tokens_details": {"reasoning_tokens": int},
    "total_tokens": int,
}
RESPONSE = {
    "id": str,
    "object": "response",
    "created_at": int,
    "completed_at": (int, None),
    "status": str,
    "incomplete_details": ({"reason": str}, None),
    "model": str,
    "previous_response_id": (str, None),
    "instructions": (str, None),
    "output": [ITEM],
    "error": ({"code": str, "message": str}, None),
    "tools": [TOOL],
    "tool_choice": ("none", "auto", "required", {"type": str}),
    "truncation": ("auto", "disabled"),
    "parallel_tool_calls": bool,
    "text": {"format": FORMAT, "verbosity": Optional(("low", "medium", "high"))},
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "top_logprobs": int,
    "temperature": NUMBER,
    "reasoning": ({"effort": EFFORT, "summary": ("concise", "detailed", "auto", None)}, None),
    "usage": (USAGE, None),
    "max_output_tokens": (int, None),
    "max_tool_calls": (int, None),
    "store": bool,
    "background": bool,
    "service_tier": str,
    "metadata": dict,
    "safety_identifier": (str, None),
    "prompt_cache_key": (str, None),
}

OF_ITEM = {"item_id": str, "output_index": int}
OF_PART = OF_ITEM | {"content_index": int}
EVENTS = {
    "response.created": {"response": RESPONSE},
    "response.in_progress": {"response": RESPONSE},
    "response.completed": {"response": RESPONSE},
    "response.output_item.added": {"output_index": int, "item": ITEM},
    "response.output_item.done": {"output_index": int, "item": ITEM},
    "response.content_part.added": OF_PART | {"part": PART},
    "response.content_part.done": OF_PART | {"part": PART},
    "response.output_text.delta": OF_PART | {"delta": str, "logprobs": Optional(LOGPROBS)},
    "response.output_text.done": OF_PART | {"text": str, "logprobs": Optional(LOGPROBS)},
    "response.refusal.delta": OF_PART | {"delta": str},
    "response.refusal.done": OF_PART | {"refusal": str},
    "response.function_call_arguments.delta": OF_ITEM | {"delta": str},
    "response.function_call_arguments.done": OF_ITEM | {"arguments": str},
}


def faults(value, shape, path="$"):
    """Where a value does not have a shape."""
    if isinstance(shape, tuple):
        options = [faults(value, option, path) for option in shape]
        return min(options, key=len)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{path} is no list: {value!r}"]
        return [fault for place, entry in enumerate(value) for fault in faults(entry, shape[0], f"{path}[{place}]")]
    if isinstance(shape, dict):
        return faults_of_members(value, shape, path)
    if isinstance(shape, type):
        is_number = isinstance(value, bool) and shape in (int, float)
        return [] if isinstance(value, shape) and not is_number else [f"{path} is no {shape.__name__}: {value!r}"]
    return [] if value == shape else [f"{path} is not {shape!r}: {value!r}"]


def faults_of_members(value, shape, path):
    if not isinstance(value, dict):
        return [f"{path} is no object: {value!r}"]
    found = []
    for name, member in shape.items():
        if name in value:
            member = member.shape if isinstance(member, Optional) else member
            found += faults(value[name], member, f"{path}.{name}")
        elif not isinstance(member, Optional):
            found.append(f"{path}.{name} is missing")
    return found


def check_response(response):
    assert faults(response, RESPONSE) == []
    assert response["status"] == "completed" and response["output"]


def check_events(events):
    """The shape of each event, their order, and that the pieces of a text add up to what is `done`."""
    for place, event in enumerate(events):
        assert faults(event, {"sequence_number": int} | EVENTS[event["type"]]) == []
        assert event["sequence_number"] == place, "sequence numbers are consecutive"
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    output = events[-1]["response"]["output"]
    for index, item in enumerate(output):
        own = [event for event in events if event.get("output_index") == index]
        assert (own[0]["type"], own[-1]["type"]) == ("response.output_item.added", "response.output_item.done")
        assert own[-1]["item"] == item and all(event.get("item_id", item["id"]) == item["id"] for event in own)
        check_pieces(own[1:-1])


def check_pieces(events):
    """Of one item: each text is added, sent in pieces, and done."""
    said = ""
    for event in events:
        if event["type"].endswith(".delta"):
            said += event["delta"]
        elif event["type"].startswith("response.content_part."):
            assert said == "" or event["type"].endswith(".done")
        else:
            (whole,) = [event[name] for name in ("text", "refusal", "arguments") if name in event]
            assert said == whole
            said = ""


def with_joined_pieces(events):
    """The events with each run of pieces joined, and without their numbers: however a text is cut, these are the same."""
    joined = []
    for kind, run in groupby(events, lambda event: event["type"]):
        run = [{name: value for name, value in event.items() if name != "sequence_number"} for event in run]
        joined += [run[0] | {"delta": "".join(event["delta"] for event in run)}] if kind.endswith(".delta") else run
    return joined
