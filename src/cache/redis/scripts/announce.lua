-- Records that a node is there, and forgets nodes that were silent for too long. Returns when the node was seen before (0 if it was not
-- known), the time, and for each node: id, milliseconds since it was seen, report.
-- KEYS: nodes, reports.  ARGV: node, report, milliseconds of silence after which a node is forgotten, nodes at most.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
-- A script whose first write frees memory is not refused where memory is full.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])) do
  redis.call('ZREM', KEYS[1], node)
  redis.call('HDEL', KEYS[2], node)
end
while redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[4]) do
  redis.call('HDEL', KEYS[2], redis.call('ZPOPMIN', KEYS[1])[1])
end
local nodes = {}
for at, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  nodes[at] = { node, now - redis.call('ZSCORE', KEYS[1], node), redis.call('HGET', KEYS[2], node) or '' }
end
return { before or '0', now, nodes }
