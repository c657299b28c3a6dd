"""FAISS itself reads the files that the server writes, and the program reads those that FAISS writes."""

import json
import os
import subprocess
import time
import urllib.request

import faiss
import numpy as np
import pytest

URL = os.environ["LIKEWISE_URL"]
BINARY = os.environ["LIKEWISE_BINARY"]
DIM = 32
ROWS = 2000
K = 10


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/v1/collections/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()


def vectors(rows, seed):
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((20, DIM))[rng.integers(0, 20, rows)] + rng.standard_normal((rows, DIM))
    made = made.astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def base():
    return vectors(ROWS, 1)


@pytest.fixture(scope="module")
def queries():
    return vectors(50, 2)


def store(name, index, base):
    ask("PUT", name, {"dimensions": DIM, "metric": "inner_product", "index": index})
    documents = [{"id": f"d{row}", "vector": vector.tolist()} for row, vector in enumerate(base)]
    ask("POST", f"{name}/documents", {"documents": documents})


def taken(name, tmp_path):
    path = tmp_path / f"{name}.faiss"
    path.write_bytes(ask("GET", f"{name}/index.faiss"))
    ids = [json.loads(line) for line in ask("GET", f"{name}/ids.jsonl").splitlines()]
    return faiss.read_index(str(path)), ids


def searched(name, queries, **fields):
    body = {"vectors": queries.tolist(), "k": K, "include": [], **fields}
    results = json.loads(ask("POST", f"{name}/search", body))["results"]
    return [[hit["id"] for hit in hits] for hits in results], [[hit["score"] for hit in hits] for hits in results]


def overlap(ours, theirs):
    return np.mean([len(set(a) & set(b)) / K for a, b in zip(ours, theirs)])


def test_a_flat_file_of_ours_is_that_of_faiss(base, queries, tmp_path):
    store("flat", "exact", base)
    index, ids = taken("flat", tmp_path)
    own = faiss.IndexFlatIP(DIM)
    own.add(base)
    # The same bytes, so the same distances, bit for bit.
    assert faiss.serialize_index(own).tobytes() == faiss.serialize_index(index).tobytes()
    scores, rows = index.search(queries, K)
    ours, our_scores = searched("flat", queries)
    assert ours == [[ids[row] for row in each] for each in rows]
    np.testing.assert_allclose(our_scores, scores, atol=1e-6)


@pytest.mark.parametrize("factory", ["HNSW32", "HNSW32,SQ8"])
def test_a_graph_of_ours_is_searched_by_faiss(base, queries, tmp_path, factory):
    name = factory.replace(",", "-")
    store(name, factory, base)
    deadline = time.monotonic() + 60
    while json.loads(ask("GET", name))["indexed_rows"] != ROWS:
        assert time.monotonic() < deadline, "no index was built"
    index, ids = taken(name, tmp_path)
    assert type(index).__name__ == ("IndexHNSWSQ" if "SQ8" in factory else "IndexHNSWFlat")
    index.hnsw.efSearch = 90
    _, rows = index.search(queries, K if "SQ8" not in factory else 4 * K)
    theirs = [[ids[row] for row in each] for each in rows]
    if "SQ8" in factory:
        # FAISS ranks by codes; scored exactly, as ours are, its candidates are the same.
        of = {name: row for row, name in enumerate(ids)}
        scored = [sorted(each, key=lambda id: -float(base[of[id]] @ query)) for each, query in zip(theirs, queries)]
        theirs = [each[:K] for each in scored]
    ours, _ = searched(name, queries, ef=90)
    assert overlap(ours, theirs) >= 0.999


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "SQ8", "IDMap,Flat", "IDMap2,HNSW16,SQ8"])
def test_files_of_faiss_are_imported(base, queries, tmp_path, factory):
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(base)
    if "IDMap" in factory:
        index.add_with_ids(base, np.arange(ROWS) + 7)
    else:
        index.add(base)
        (tmp_path / "ids.jsonl").write_text("".join(f'"{row + 7}"\n' for row in range(ROWS)))
    path = tmp_path / "theirs.faiss"
    faiss.write_index(index, str(path))
    name = "from-" + factory.replace(",", "-")
    environment = {**os.environ, "LIKEWISE_URL": URL, "LIKEWISE_LOG": "warn"}
    command = [BINARY, "import", name, str(path), "--metric", "inner_product"]
    subprocess.run(command, check=True, env=environment)
    # What FAISS keeps, exactly searched: codes stand for other vectors than were given.
    flat = faiss.IndexFlatIP(DIM)
    inner = index.index if "IDMap" in factory else index
    flat.add(np.stack([faiss.downcast_index(inner).reconstruct(row) for row in range(ROWS)]))
    _, rows = flat.search(queries, K)
    theirs = [[str(row + 7) for row in each] for each in rows]
    ours, _ = searched(name, queries, exact=True)
    assert overlap(ours, theirs) >= 0.999
