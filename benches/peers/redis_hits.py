"""Hits of redis-py: MGET over one connection. Arguments: port, keys of a call, seconds. Prints hits a second."""

import sys
import time

import redis

port, depth, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
client = redis.Redis(port=port)
names = [f"peer:{n}" for n in range(depth)]
client.mset({name: b"x" * 1536 for name in names})
hits, begun = 0, time.perf_counter()
while time.perf_counter() - begun < seconds:
    values = client.mget(names)
    assert all(values)
    hits += depth
print(hits / (time.perf_counter() - begun))
