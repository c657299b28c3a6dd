"""What the upstream is sent is what the client sent, but for the member `cache` and the usage that the server asks for.

The bodies have what a parser would change: odd white space, members in no order, escapes that need none, numbers in odd spellings
or that are too large, and marks of the upstream's own cache.
"""

import httpx
import pytest
from served import URL, last_body

ODD = {
    b"seed": b"9007199254740993123",
    b"metadata": rb'{ "b":"\u0061\/\ud83d\ude00",   "a":"1" }',
    b"ratio": b"0.10000000000000000555e+00",
    b"zero": b"-0.0",
    b"again": b'{"z":[ ],"y":{ }}',
    b"prompt_cache_key": b'"k-1"',
    b"service_tier": b'"flex"',
    b"words": '"sí 😀"'.encode(),
}
MARKED = rb'[ {"type":"text","text":"\u0068i" ,"cache_control":{ "ttl":"5m","type":"ephemeral" }} ]'
# Numbers that are not compared exactly: requests with them bypass the cache.
INEXACT = {b"large": b"123456789012345678901234567890", b"huge": b"1E+300"}
SAID = b'[{"content":%s,\t"role":"user"}]' % MARKED
CACHE = {b"cache": b'{ "ttl" : 60 , "tags":["a"] }'}
STREAM = {b"stream": b"true"}

DIALECTS = {
    "chat": ("/chat/completions", {b"messages": SAID, b"model": b'"gpt-5"'} | ODD),
    "completions": ("/completions", {b"prompt": rb'"\u0068i"'} | ODD | {b"model": b'"gpt-5"'}),
    "responses": ("/responses", ODD | {b"input": SAID, b"model": b'"gpt-5"'}),
    "messages": ("/messages", {b"max_tokens": b"1e2"} | ODD | {b"messages": SAID, b"model": b'"claude-test"'}),
}
# Those whose streams have their usage only where it is asked for.
ASKED_FOR_USAGE = ("chat", "completions")


def spaced(members):
    return b"{ " + b" ,\r\n\t".join(b'"%s" : %s' % member for member in members.items()) + b" }\n"


def sent(path, body, outcome="fwd=miss"):
    """What the upstream got of a body."""
    answer = httpx.post(URL + path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-status"] == f"likewise; {outcome}"
    return last_body()


@pytest.fixture(params=DIALECTS)
def dialect(request):
    """Its name, its path, and the members of a body, one of which is the case's own."""
    path, members = DIALECTS[request.param]
    return request.param, path, {b"case": b'"%s"' % request.node.name.encode()} | members


def test_a_body_is_sent_as_it_came(dialect):
    _, path, members = dialect
    assert sent(path, spaced(members)) == spaced(members)


def test_numbers_that_are_not_compared_exactly_are_sent_as_they_came(dialect):
    _, path, members = dialect
    body = spaced(members | INEXACT)
    assert sent(path, body, "fwd=bypass") == body
    assert sent(path, spaced(CACHE | members | INEXACT), "fwd=bypass") == spaced(members | INEXACT)


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_cache_member_is_cut_out(dialect, place):
    _, path, members = dialect
    directed = CACHE | members if place == "first" else members | CACHE
    assert sent(path, spaced(directed)) == spaced(members)


def test_a_stream_is_asked_for_its_usage(dialect):
    name, path, members = dialect
    streamed = members | STREAM
    body = spaced(streamed)
    asked = body.removesuffix(b" }\n") + b',"stream_options":{"include_usage":true} }\n'
    assert sent(path, body) == (asked if name in ASKED_FOR_USAGE else body)


def test_a_stream_that_asks_for_its_usage_is_sent_as_it_came(dialect):
    _, path, members = dialect
    streamed = members | STREAM | {b"stream_options": b'{ "include_usage" : true }'}
    assert sent(path, spaced(streamed)) == spaced(streamed)
