"""Models of a few lines behind the interfaces of OpenAI and Anthropic. Prints its address and serves until it is killed."""

import base64
import hashlib
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CALLS = {"count": 0}
LOCK = threading.Lock()


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


def message(asked, call):
    """Anthropic's API."""
    question = asked["messages"][-1]["content"]
    content = [{"type": "text", "text": f"Answer {call} to {question!r}: sí, 😀 and so on, word after word."}]
    if question == "think":
        content.insert(0, {"type": "thinking", "thinking": "step by step, one by one", "signature": "c2lnbmVk"})
    if question == "call a tool":
        call_1 = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "La Coruña", "days": 3}}
        content = [call_1]
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
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with LOCK:
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
            elif self.path.endswith("/messages"):
                answer = message(asked, call)
                events = [*message_events(answer)]
            else:
                answer = text_completion(asked, call)
                events = [answer]
        except (LookupError, TypeError, AttributeError) as fault:
            error = {"message": f"invalid request: {fault!r}", "type": "invalid_request_error", "param": None}
            return self.reply(400, json.dumps({"error": error | {"code": None}}))
        if not asked.get("stream"):
            return self.reply(200, json.dumps(answer))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if self.path.endswith("/messages"):
            lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
        else:
            lines = [f"data: {chunk}\n\n" for chunk in [*map(json.dumps, events), "[DONE]"]]
        for data in map(str.encode, lines):
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def do_GET(self):
        self.reply(200, json.dumps(CALLS))

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
