"""Products in Spanish, searched by meaning: stored, searched, searched again, filtered, and one of them changed.

Needs `pip install httpx`. The default model reads English; `make run MODEL=intfloat/multilingual-e5-small` reads Spanish.
"""

import json
import os
from pathlib import Path

import httpx

CATALOGUE = Path(__file__).parent.parent / "catalogo.jsonl"
KEY = os.environ.get("LIKEWISE_API_KEY", "unused")
http = httpx.Client(
    base_url=os.environ.get("LIKEWISE_URL", "http://127.0.0.1:8420"),
    headers={"authorization": f"Bearer {KEY}"},
    timeout=120,
)
COLLECTION = "/v1/collections/ejemplo"


def ask(method, path, body=None):
    answer = http.request(method, path, json=body)
    answer.raise_for_status()
    return answer


def search(query, **fields):
    """Prints the products that are nearest to the query, and where the result comes from."""
    answer = ask("POST", f"{COLLECTION}/search", {"query": query, "k": 3, "include": ["metadata"], **fields})
    print(f"\n{query} {fields or ''}: {answer.headers['cache-status']}")
    for hit in answer.json()["results"]:
        product = hit["metadata"]
        print(f"  {hit['score']:.3f}  {product['nombre']}, {product['color']}, {product['precio']} EUR")


ask("PUT", COLLECTION, {})
documents = [json.loads(line) for line in CATALOGUE.read_text(encoding="utf-8").splitlines()]
stored = ask("POST", f"{COLLECTION}/documents", {"documents": documents}).json()
print(stored["documents"], "products are stored")

search("cafetera para hacer café")
search("cafetera para hacer café")
search("cafetera para hacer café", filter={"precio": {"$lt": 50}})

# A change that could concern a cached result is seen by the next search.
coffee = {"id": "nueva", "text": "Cafetera para hacer café en casa.", "tags": ["product:nueva"]}
coffee["metadata"] = {"nombre": "Cafetera nueva", "color": "rojo", "precio": 35.0}
ask("POST", f"{COLLECTION}/documents", {"documents": [coffee]})
search("cafetera para hacer café")

ask("DELETE", COLLECTION)
