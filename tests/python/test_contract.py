"""The OpenAPI document: a validator, a client generated from it, and random requests by it."""

import importlib
import io
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

HERE = pathlib.Path(__file__).parent
URL = os.environ["LIKEWISE_URL"]
MODEL = "all-MiniLM-L6-v2"
TOOLS = pathlib.Path(sys.executable).parent


def served():
    with urllib.request.urlopen(f"{URL}/openapi.json", timeout=60) as answer:
        return json.load(answer)


def run(*command, directory, **environment):
    search_path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": search_path, "NO_COLOR": "1"} | environment
    done = subprocess.run(command, env=variables, cwd=directory, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_served_and_the_committed_document_are_valid():
    committed = json.loads((HERE.parent.parent / "docs" / "openapi.json").read_text())
    for document in [served(), committed]:
        OpenAPIV31SpecValidator(document).validate()


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The client that openapi-python-client generates, as a package."""
    home = tmp_path_factory.mktemp("generated")
    (home / "openapi.json").write_text(json.dumps(served()))
    run(
        str(TOOLS / "openapi-python-client"), "generate", "--path", str(home / "openapi.json"),
        "--output-path", str(home / "likewise_generated"), "--config", str(HERE / "openapi_client.yaml"),
        "--meta", "none", "--fail-on-warning", directory=home,
    )
    sys.path.insert(0, str(home))
    yield "likewise_generated"
    sys.path.remove(str(home))


def test_a_generated_client_embeds_stores_searches_and_invalidates(generated):
    models = importlib.import_module(f"{generated}.models")
    types = importlib.import_module(f"{generated}.types")
    client = importlib.import_module(f"{generated}.client").Client(base_url=URL, timeout=60)

    def call(operation, *arguments, **named):
        """The response of an operation, which must be the success that the contract describes."""
        response = importlib.import_module(f"{generated}.api.{operation}").sync_detailed(
            *arguments, client=client, **named
        )
        assert 200 <= response.status_code < 300, response.content
        return response

    text = "una camisa azul, del cliente generado"
    body = models.EmbeddingsRequest(model=MODEL, input_=[text, text])
    first, second = (call("embeddings.create_embeddings", body=body) for _ in range(2))
    assert [len(item.embedding) for item in second.parsed.data] == [384, 384]
    assert first.headers["x-likewise-misses"] == "1" and second.headers["x-likewise-hits"] == "2"

    bytes_sent = bytes(range(256))
    file = types.File(payload=io.BytesIO(bytes_sent))
    call("objects.put_object", "generated", "a/b", body=file, x_cache_tags="generated-client")
    found = call("objects.get_object", "generated", "a/b").parsed
    assert found.payload.read() == bytes_sent

    call("collections.create_collection", "generated", body=models.CollectionSpec())
    documents = [
        models.DocumentInput(id="1", text="una camisa azul"),
        models.DocumentInput(id="2", text="una cafetera de acero"),
    ]
    stored = call("collections.upsert_documents", "generated", body=models.UpsertRequest(documents=documents))
    assert stored.parsed.documents == 2
    search = models.SearchRequest(query="ropa de color azul", k=1)
    results = call("collections.search_documents", "generated", body=search).parsed.results
    assert [result.id for result in results] == ["1"]

    bare = models.UpsertRequest(documents=[models.DocumentInput(text="un paraguas", tags=["generated-client"])])
    made = call("collections.upsert_documents", "generated", body=bare).parsed.ids
    page = call("collections.list_documents", "generated", limit=2, include="id").parsed
    assert len(page.data) == 2 and page.next_ == page.data[1].id
    ids = call("collections.list_documents", "generated", ids=["2", *made], include="text").parsed.data
    assert [document.text for document in ids] == ["una cafetera de acero", "un paraguas"]
    patch = models.DocumentPatchInput(metadata=models.JsonObject.from_dict({"precio": 3}))
    assert call("collections.patch_document", "generated", made[0], body=patch).parsed.documents == 1
    assert call("collections.get_document", "generated", made[0]).parsed.metadata["precio"] == 3
    call("collections.delete_document", "generated", "1")
    assert call("collections.count_documents", "generated").parsed.documents == 2

    answer = call("invalidation.invalidate", body=models.InvalidateRequest(tags=["generated-client"])).parsed
    assert answer.mode == models.InvalidationMode.HARD and answer.dry_run is False
    gone = importlib.import_module(f"{generated}.api.objects.get_object").sync("generated", "a/b", client=client)
    assert gone.error.code == models.ErrorCode.NOT_FOUND
    assert gone.error.type_ == models.ErrorType.INVALID_REQUEST_ERROR


def send(method, path, body):
    request = urllib.request.Request(f"{URL}{path}", json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status


def test_random_requests_get_the_responses_of_the_contract(tmp_path):
    assert send("PUT", "/v1/collections/contract", {}) in (200, 201)
    documents = [{"id": str(number), "text": f"document {number}", "tags": ["t"]} for number in range(4)]
    assert send("POST", "/v1/collections/contract/documents", {"documents": documents}) == 200
    out = run(
        str(TOOLS / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{URL}/openapi.json",
        directory=tmp_path, PYTHONPATH=str(HERE),
    )
    operations = sum(len(path) for path in served()["paths"].values())
    assert operations > 30 and f"Tested: {operations}" in out, out
