-- Finds the node that has a collection. Returns whether the asking node is known, and of the node that has it: id, milliseconds since it
-- was seen, report. What a forgotten node had is free.
-- KEYS: collections, nodes, reports.  ARGV: collection, asking node, whether that takes the collection if no node has it ("1").
local is_known = redis.call('ZSCORE', KEYS[2], ARGV[2]) and 1 or 0
local node = redis.call('HGET', KEYS[1], ARGV[1])
if node and not redis.call('ZSCORE', KEYS[2], node) then
  redis.call('HDEL', KEYS[1], ARGV[1])
  node = false
end
if not node then
  if is_known == 0 or ARGV[3] ~= '1' then return { is_known } end
  node = ARGV[2]
  redis.call('HSET', KEYS[1], ARGV[1], node)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return { is_known, node, now - redis.call('ZSCORE', KEYS[2], node), redis.call('HGET', KEYS[3], node) or '' }
