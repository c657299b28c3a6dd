"""Models of a few lines behind the interfaces of OpenAI and Anthropic. Prints its address and serves until it is killed."""

import base64
import hashlib
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CALLS = {"count": 0}
LOCK = threading.Lock()
# The bytes of the last request that asked something.
LAST_BODY = b""
# The ids of the responses that are stored, which `previous_response_id` may name.
STORED_IDS = set()


class Refused(Exception):
    """A request that gets 400, with the `error` of its body."""


def text_of(content):
    """The text of a content, which is a string or a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def whole(asked, call):
    question = asked["messages"][-1]["content"]

    def choice(index):
        text = f"Answer {call}.{index} to {question!r}: sí, 😀 and so on, word after word."
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        reason = "stop"
        if question == "call a tool":
            arguments = json.dumps({"city": "La Coruña", "days": 3}, ensure_ascii=False)
            call_1 = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
            message |= {"content": None, "tool_calls": [call_1]}
            reason = "tool_calls"
        if question == "refuse":
            message |= {"content": None, "refusal": "I would rather not, and here is why."}
        logprobs = None
        if asked.get("logprobs"):
            logprobs = {"content": [token(piece) for piece in pieces(text)], "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}

    return {
        "id": f"chatcmpl-{call}",
        "object": "chat.completion",
        "created": 1_700_000_000 + call,
        "model": asked["model"],
        "system_fingerprint": "fp_1",
        "service_tier": "default",
        "choices": [choice(index) for index in range(asked.get("n", 1))],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }


def text_completion(asked, call):
    choice = {"index": 0, "text": f"Text {call}, word after word.", "logprobs": None, "finish_reason": "stop"}
    frame = {"id": f"cmpl-{call}", "object": "text_completion", "created": 1_700_000_000 + call}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    return frame | {"model": asked["model"], "choices": [choice], "usage": usage}


def response(asked, call):
    """A response: a text, a refusal, a call of a tool, or an object where a schema is asked for."""
    previous = asked.get("previous_response_id")
    if previous is not None and previous not in STORED_IDS:
        message = f"Previous response with id '{previous}' not found."
        error = {"message": message, "type": "invalid_request_error", "param": "previous_response_id"}
        raise Refused(error | {"code": "previous_response_not_found"})
    answer = response_frame(asked, call) | {"output": response_output(asked, call)}
    if answer["store"]:
        STORED_IDS.add(answer["id"])
    return answer


def response_output(asked, call):
    last = asked["input"] if isinstance(asked["input"], str) else asked["input"][-1]
    has_result = isinstance(last, dict) and last.get("type") == "function_call_output"
    question = "" if has_result else text_of(last if isinstance(last, str) else last["content"])
    tool = next(iter(asked.get("tools") or []), None)
    if tool and tool["type"] == "function" and ("tool" in question or "weather" in question):
        arguments = json.dumps({"city": "La Coruña", "days": 3}, ensure_ascii=False)
        named = {"id": f"fc_{call}", "type": "function_call", "call_id": "call_1", "name": tool["name"]}
        return [named | {"arguments": arguments, "status": "completed"}]
    # Long enough for a replay in several pieces.
    said = f"Answer {call} after {asked.get('previous_response_id')}: sí, 😀 and so on{', word after word' * 30}."
    content = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    if (asked.get("text") or {}).get("format", {}).get("type") == "json_schema":
        content["text"] = json.dumps({"city": "La Coruña", "days": call})
    if question == "refuse":
        content = {"type": "refusal", "refusal": "I would rather not, and here is why."}
    message = {"id": f"msg_{call}", "type": "message", "status": "completed", "role": "assistant", "content": [content]}
    if tool and tool["type"] != "function":
        return [{"id": f"ht_{call}", "type": f"{tool['type']}_call", "status": "completed"}, message]
    return [message]


def response_frame(asked, call):
    """A response but for its output. It has every member that Open Responses requires."""
    tools = [{"description": None, "parameters": None, "strict": None} | tool for tool in asked.get("tools") or []]
    usage = {"input_tokens": 20, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 10}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 30}
    frame = {"id": f"resp_{call}", "object": "response", "created_at": 1_700_000_000 + call, "status": "completed"}
    frame |= {"completed_at": 1_700_000_001 + call, "error": None, "incomplete_details": None, "model": asked["model"]}
    for name in ("instructions", "previous_response_id", "max_output_tokens", "max_tool_calls"):
        frame[name] = asked.get(name)
    frame |= {"safety_identifier": None, "prompt_cache_key": None, "metadata": asked.get("metadata") or {}}
    frame |= {"tools": tools, "tool_choice": asked.get("tool_choice", "auto"), "parallel_tool_calls": True}
    frame |= {"text": {"format": {"type": "text"}}, "reasoning": {"effort": None, "summary": None}}
    frame |= {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "top_logprobs": 0}
    frame |= {"store": asked.get("store", True), "background": False, "truncation": "disabled", "service_tier": "default"}
    return frame | {"usage": usage}


def response_events(answer):
    opened = answer | {"status": "in_progress", "completed_at": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": opened}
    yield {"type": "response.in_progress", "response": opened}
    for index, item in enumerate(answer["output"]):
        yield from item_events(index, item)
    yield {"type": "response.completed", "response": answer}


def item_events(index, item):
    place = {"item_id": item["id"], "output_index": index}
    empty = {name: value for name, value in (("content", []), ("arguments", "")) if name in item}
    yield {"type": "response.output_item.added", "output_index": index, "item": item | empty | {"status": "in_progress"}}
    if "arguments" in item:
        for piece in pieces(item["arguments"]):
            yield place | {"type": "response.function_call_arguments.delta", "delta": piece}
        yield place | {"type": "response.function_call_arguments.done", "arguments": item["arguments"], "name": item["name"]}
    for part in item.get("content", []):
        place |= {"content_index": 0}
        member = "refusal" if part["type"] == "refusal" else "text"
        name = "response.refusal" if part["type"] == "refusal" else "response.output_text"
        beside = {} if part["type"] == "refusal" else {"logprobs": []}
        yield place | {"type": "response.content_part.added", "part": part | {member: ""}}
        for piece in pieces(part[member]):
            yield place | beside | {"type": f"{name}.delta", "delta": piece}
        yield place | beside | {"type": f"{name}.done", member: part[member]}
        yield place | {"type": "response.content_part.done", "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def message(asked, call):
    """Anthropic's API."""
    question = text_of(asked["messages"][-1]["content"])
    said = f"Answer {call} to {question!r}: sí, 😀 and so on{', word after word' * 30}."
    content = [{"type": "text", "text": said}]
    if question == "think":
        content.insert(0, {"type": "thinking", "thinking": "step by step, one by one", "signature": "c2lnbmVk"})
    if question == "call a tool":
        call_1 = {"type": "tool_use", "id": "toolu_1", "name": asked["tools"][0]["name"]}
        content = [call_1 | {"input": {"city": "La Coruña", "days": 3}}]
    usage = {"input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 10}
    return {
        "id": f"msg_{call}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": content,
        "stop_reason": "tool_use" if question == "call a tool" else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def message_events(message):
    usage = message["usage"]
    empty = {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": message | empty}
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        if kind == "text":
            start, deltas = {"text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        elif kind == "thinking":
            start = {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        else:
            start, text = {"input": {}}, json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(text)]]
        yield {"type": "content_block_start", "index": index, "content_block": block | start}
        yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield {"type": "message_stop"}


def embeddings(asked, call):
    """A vector for each input, which tells the call that made it."""
    inputs = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    inputs = [inputs] if isinstance(inputs[0], int) else inputs

    def item(index, input):
        dimensions = asked.get("dimensions") or 1536
        digest = hashlib.sha256(json.dumps(input).encode()).digest()
        vector = [float(call)] + [byte / 255 + 0.5 for byte in digest * (dimensions // len(digest) + 1)][: dimensions - 1]
        if asked.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        return {"object": "embedding", "index": index, "embedding": vector}

    data = [item(index, input) for index, input in enumerate(inputs)]
    usage = {"prompt_tokens": 3 * len(inputs), "total_tokens": 3 * len(inputs)}
    return {"object": "list", "data": data, "model": asked["model"], "usage": usage}


def token(text):
    return {"token": text, "logprob": -0.0312, "bytes": list(text.encode()), "top_logprobs": []}


def pieces(text):
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def chunks(asked, answer):
    wants_usage = (asked.get("stream_options") or {}).get("include_usage")
    frame = {key: answer[key] for key in ("id", "created", "model", "system_fingerprint", "service_tier")}
    frame["object"] = "chat.completion.chunk"

    def event(choices, usage=None):
        return frame | {"choices": choices} | ({"usage": usage} if wants_usage else {})

    for choice in answer["choices"]:

        def say(delta, logprobs=None, reason=None):
            body = {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            return event([body])

        message = choice["message"]
        spoken = None if message["content"] is None else ""
        yield say({"role": "assistant", "content": spoken, "refusal": None, "annotations": []})
        for place, piece in enumerate(pieces(message["content"] or "")):
            tokens = choice["logprobs"]
            yield say({"content": piece}, tokens and {"content": [tokens["content"][place]], "refusal": None})
        for piece in pieces(message["refusal"] or ""):
            yield say({"refusal": piece})
        for index, call in enumerate(message.get("tool_calls", [])):
            function = call["function"]
            yield say({"tool_calls": [call | {"index": index, "function": function | {"arguments": ""}}]})
            for piece in pieces(function["arguments"]):
                yield say({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield say({}, reason=choice["finish_reason"])
    if wants_usage:
        yield event([], answer["usage"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global LAST_BODY
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = json.loads(body)
        with LOCK:
            LAST_BODY = body
            CALLS["count"] += 1
            call = CALLS["count"]
        if asked["model"] == "broken":
            error = {"message": "out of order", "type": "invalid_request_error", "param": "x", "code": "broken"}
            if self.path.endswith("/messages"):
                error = {name: error[name] for name in ("type", "message")}
                return self.reply(400, json.dumps({"type": "error", "error": error}))
            return self.reply(400, json.dumps({"error": error}))
        if self.path.endswith("/embeddings") and asked["model"].startswith("text-embedding-"):
            return self.reply(200, json.dumps(embeddings(asked, call)))
        if self.path.endswith("/embeddings"):
            error = {"message": "no such model", "type": "invalid_request_error", "param": "model"}
            return self.reply(404, json.dumps({"error": error | {"code": "model_not_found"}}))
        try:
            if self.path.endswith("/chat/completions"):
                answer = whole(asked, call)
                events = [*chunks(asked, answer)]
            elif self.path.endswith("/responses"):
                answer = response(asked, call)
                events = [event | {"sequence_number": n} for n, event in enumerate(response_events(answer))]
            elif self.path.endswith("/messages"):
                answer = message(asked, call)
                events = [*message_events(answer)]
            else:
                answer = text_completion(asked, call)
                events = [answer]
        except Refused as refused:
            return self.reply(400, json.dumps({"error": refused.args[0]}))
        except (LookupError, TypeError, AttributeError) as fault:
            error = {"message": f"invalid request: {fault!r}", "type": "invalid_request_error", "param": None}
            return self.reply(400, json.dumps({"error": error | {"code": None}}))
        if not asked.get("stream"):
            return self.reply(200, json.dumps(answer))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        # Open Responses ends its streams by this line; OpenAI's own Responses and Anthropic's Messages do not.
        has_end = self.path.endswith(("/responses", "/messages")) and not asked["model"].startswith("open-")
        names = [f"event: {event['type']}\n" if "type" in event else "" for event in events]
        end = [] if has_end else [("", "[DONE]")]
        for name, chunk in [*zip(names, map(json.dumps, events)), *end]:
            data = f"{name}data: {chunk}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        """The body of the last POST, and for any other path how many there were."""
        self.reply(200, LAST_BODY.decode() if self.path.endswith("/last_body") else json.dumps(CALLS))

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()
