-- Finds the node that has a collection. Returns whether the asking node is known, the time if that node has taken the collection now (else
-- 0), and of the node that has it: id, milliseconds since it was seen, report. What a forgotten node had is free.
-- KEYS: collections, nodes, reports.  ARGV: collection, asking node, whether that takes the collection if no node has it ("1").
local is_known = redis.call('ZSCORE', KEYS[2], ARGV[2]) and 1 or 0
local node = redis.call('HGET', KEYS[1], ARGV[1])
if node and not redis.call('ZSCORE', KEYS[2], node) then
  redis.call('HDEL', KEYS[1], ARGV[1])
  node = false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken_at = 0
if not node then
  if is_known == 0 or ARGV[3] ~= '1' then return { is_known, taken_at } end
  node = ARGV[2]
  redis.call('HSET', KEYS[1], ARGV[1], node)
  -- A replica that has this has the line before, too.
  redis.call('ZADD', KEYS[2], now, node)
  taken_at = now
end
return { is_known, taken_at, node, now - redis.call('ZSCORE', KEYS[2], node), redis.call('HGET', KEYS[3], node) or '' }
