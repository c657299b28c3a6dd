"""A stampede: 50 threads ask for an object that is not cached, one of them loads it, and the others wait for it.

Needs `pip install httpx`.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx

THREADS = 50
KEY = os.environ.get("LIKEWISE_API_KEY", "unused")
http = httpx.Client(
    base_url=os.environ.get("LIKEWISE_URL", "http://127.0.0.1:8420"),
    headers={"authorization": f"Bearer {KEY}"},
    timeout=60,
)
loads = []


def load_product(product):
    """Stands for a slow query of a database."""
    loads.append(product)
    time.sleep(0.3)
    return b'{"name": "camiseta azul", "price": 19.9}'


def get_or_load(product, load):
    """The object, from the cache or from `load`, which one client at a time calls."""
    path = f"/v1/cache/products/{quote(product, safe='')}"
    found = http.get(path, headers={"x-cache-lease-seconds": "30", "x-cache-wait-ms": "10000"})
    if found.status_code == 200:
        return found.content
    # Without a lease the wait was not long enough: the holder of the lease is still loading.
    lease = found.headers.get("x-cache-lease")
    headers = {"x-cache-lease": lease} if lease else {}
    try:
        value = load(product)
    except BaseException:
        if lease:
            http.delete(path, headers=headers)  # The next client may load it at once.
        raise
    headers |= {"x-cache-tags": f"product:{product}", "x-cache-ttl": "600"}
    # 409: the product was invalidated while it was loaded, so this value is not stored.
    assert http.put(path, content=value, headers=headers).status_code in (204, 409)
    return value


def stampede():
    loads.clear()
    together = threading.Barrier(THREADS)

    def one_caller(_):
        together.wait()
        return get_or_load("42", load_product)

    with ThreadPoolExecutor(THREADS) as pool:
        values = set(pool.map(one_caller, range(THREADS)))
    print(f"{THREADS} threads, {len(values)} value, {len(loads)} load")


http.post("/v1/invalidate", json={"entity": {"type": "product", "id": "42"}}).raise_for_status()
stampede()
print("again: a hit")
stampede()
