"""The server that the tests of clients ask, and the upstream behind it."""

import os

import httpx

ADDRESS = os.environ["LIKEWISE_URL"]
URL = ADDRESS + "/v1"
UPSTREAM = os.environ["LIKEWISE_UPSTREAM"]


def calls():
    """How often the upstream was asked."""
    return httpx.get(UPSTREAM + "/calls").json()["count"]


def last_body():
    """The bytes that the upstream was asked last."""
    return httpx.get(UPSTREAM + "/last_body").content


def both_runs(ask):
    """What a client gets twice; the second run must not ask the upstream."""
    first, before = ask(), calls()
    second = ask()
    assert calls() == before, "the second run asked the upstream"
    return first, second
