"""Hits of Python clients over one connection. Arguments: which, port, keys of a call, seconds. Prints hits a second."""

import sys
import time
import warnings

import redis

# That a package is deprecated is no matter of its speed.
warnings.filterwarnings("ignore")

DIMENSIONS = 384


def redis_py(port, depth):
    client = redis.Redis(port=port)
    names = [f"peer:{n}" for n in range(depth)]
    client.mset({name: b"x" * DIMENSIONS * 4 for name in names})
    return (lambda: [client.get(names[0])]) if depth == 1 else (lambda: client.mget(names))


def langchain(port, depth):
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_community.storage import RedisStore
    from langchain_core.embeddings import Embeddings

    class Once(Embeddings):
        """Embeds each text once: what is asked again must come from the cache."""

        seen = set()

        def embed_documents(self, texts):
            assert self.seen.isdisjoint(texts), "not from the cache"
            self.seen.update(texts)
            return [[i / 7.0 + n for i in range(DIMENSIONS)] for n, _ in enumerate(texts)]

        def embed_query(self, text):
            return self.embed_documents([text])[0]

    store = RedisStore(redis_url=f"redis://127.0.0.1:{port}")
    cache = CacheBackedEmbeddings.from_bytes_store(Once(), store, namespace="peer", key_encoder="sha256")
    texts = [f"a short question of a customer, number {n} of {depth}" for n in range(depth)]
    return lambda: cache.embed_documents(texts)


which, port, depth, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
call = {"redis-py": redis_py, "langchain": langchain}[which](port, depth)
call()
hits, begun = 0, time.perf_counter()
while time.perf_counter() - begun < seconds:
    values = call()
    assert len(values) == depth and all(values)
    hits += depth
print(hits / (time.perf_counter() - begun))
