"""The official client, unmodified but for its base_url."""

import asyncio
import base64
import os
import struct

import openai
import pytest

URL = os.environ["LIKEWISE_URL"] + "/v1"
MODEL = "all-MiniLM-L6-v2"
DIM = 384


@pytest.fixture
def client():
    return openai.OpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120)


def embed(client, input, **options):
    answer = client.embeddings.create(model=MODEL, input=input, **options)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


def test_the_clients_default_is_base64_and_gives_the_same_numbers_as_floats(client):
    by_default = embed(client, "una camiseta azul")[0]
    floats = embed(client, "una camiseta azul", encoding_format="float")[0]
    assert len(by_default) == DIM
    assert by_default == pytest.approx(floats, abs=1e-7)
    encoded = client.embeddings.create(model=MODEL, input="una camiseta azul", encoding_format="base64")
    raw = encoded.data[0].embedding
    assert list(struct.unpack(f"<{DIM}f", base64.b64decode(raw))) == pytest.approx(floats, abs=1e-7)


def test_lists_keep_their_order_and_duplicates(client):
    texts = ["zapatos", "cafetera", "zapatos", "libro"]
    together = embed(client, texts)
    assert together[0] == together[2]
    for text, vector in zip(texts, together):
        assert embed(client, text)[0] == pytest.approx(vector, abs=1e-6)


def test_token_ids_are_those_of_openai(client):
    text = embed(client, "hello world")[0]
    assert embed(client, [15339, 1917])[0] == text
    assert embed(client, [[15339, 1917], [15339]])[0] == text


def test_usage_counts_tokens_and_hits_cost_the_same(client):
    ask = lambda: client.embeddings.create(model=MODEL, input=["uno", "dos tres"]).usage
    first, second = ask(), ask()
    assert first.prompt_tokens > 0 and first == second


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "likewise"


@pytest.mark.parametrize(
    "request_fields, error, param, code",
    [
        ({"input": ""}, openai.BadRequestError, "input", "invalid_input"),
        ({"input": []}, openai.BadRequestError, "input", "invalid_input"),
        ({"input": ["a", ""]}, openai.BadRequestError, "input", "invalid_input"),
        ({"input": "a", "dimensions": 5}, openai.BadRequestError, "dimensions", "invalid_input"),
        ({"input": [200_000_000]}, openai.BadRequestError, "input", "invalid_input"),
        ({"input": "a", "model": "gpt-7"}, openai.NotFoundError, "model", "model_not_found"),
    ],
)
def test_errors_are_the_clients_own(client, request_fields, error, param, code):
    with pytest.raises(error) as raised:
        client.embeddings.create(**{"model": MODEL, **request_fields})
    assert (raised.value.param, raised.value.code) == (param, code)


def test_headers_tell_hits_and_misses(client):
    ask = lambda: client.embeddings.with_raw_response.create(model=MODEL, input=["nuevo uno", "nuevo dos"])
    first, second = ask().headers, ask().headers
    assert (first["x-likewise-hits"], first["x-likewise-misses"]) == ("0", "2")
    assert (second["x-likewise-hits"], second["x-likewise-misses"]) == ("2", "0")
    assert second["cache-status"] == "likewise; hit; detail=memory"
    assert first["x-request-id"] != second["x-request-id"]


def test_concurrent_identical_requests_are_answered_alike():
    async def run():
        client = openai.AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120)
        asks = [client.embeddings.create(model=MODEL, input="todos a la vez") for _ in range(64)]
        return [answer.data[0].embedding for answer in await asyncio.gather(*asks)]

    vectors = asyncio.run(run())
    assert all(vector == vectors[0] for vector in vectors)
