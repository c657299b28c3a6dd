"""Clients with the embedding models that they have by default, which only the upstream has: the second run asks nothing of it."""

import json
import os
import urllib.request
import uuid

import openai
import pytest

SERVER = os.environ["LIKEWISE_URL"]
URL = SERVER + "/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("OPENAI_BASE_URL", URL)


def embedded_texts():
    """Texts that models have embedded so far."""
    with urllib.request.urlopen(SERVER + "/v1/stats") as answer:
        return json.load(answer)["model"]["embedded_texts"]


def new_texts():
    return [f"{word} {uuid.uuid4()}" for word in ("una camiseta azul", "unas botas", "una cafetera")]


def openai_client(texts):
    return [item.embedding for item in openai.OpenAI().embeddings.create(model="text-embedding-3-small", input=texts).data]


def openai_client_with_dimensions(texts):
    created = openai.OpenAI().embeddings.create(
        model="text-embedding-3-large", input=texts, dimensions=256, encoding_format="float"
    )
    return [item.embedding for item in created.data]


def langchain(texts):
    from langchain_openai import OpenAIEmbeddings

    # It sends token ids otherwise, by a vocabulary that it fetches.
    return OpenAIEmbeddings(check_embedding_ctx_length=False).embed_documents(texts)


def haystack(texts):
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder

    embedder = OpenAIDocumentEmbedder(progress_bar=False)
    return [document.embedding for document in embedder.run([Document(content=text) for text in texts])["documents"]]


def pydantic_ai(texts):
    from pydantic_ai import Embedder

    return [list(vector) for vector in Embedder("openai:text-embedding-3-small").embed_documents_sync(texts).embeddings]


CLIENTS = [openai_client, openai_client_with_dimensions, langchain, haystack, pydantic_ai]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_pays_once_with_its_default_model(client):
    texts = new_texts()
    before = embedded_texts()
    first = client(texts)
    paid = embedded_texts() - before
    assert (paid, len(first)) == (len(texts), len(texts))
    assert len({tuple(vector) for vector in first}) == len(texts), "each text has a vector of its own"
    again = client(texts[::-1])
    assert embedded_texts() - before == paid, "the second run asks nothing"
    assert again == [pytest.approx(vector) for vector in first[::-1]]


def test_of_a_batch_only_what_is_new_is_sent():
    texts = new_texts()
    client = openai.OpenAI()
    ask = lambda inputs: client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=inputs)
    ask(texts[:2])
    mixed = ask([texts[2], texts[0], texts[2], texts[1]])
    counts = [mixed.headers[f"x-likewise-{outcome}"] for outcome in ("hits", "misses", "coalesced")]
    assert counts == ["2", "1", "1"]
    vectors = [item.embedding for item in mixed.parse().data]
    assert vectors[0] == vectors[2] and mixed.parse().usage.prompt_tokens == 4 * 3


def test_a_model_that_the_upstream_lacks_is_its_own_error():
    with pytest.raises(openai.NotFoundError) as raised:
        openai.OpenAI().embeddings.create(model="no-such-model", input="a")
    assert "no such model" in str(raised.value)
