-- Records which collections a node has, except those that another node has. Returns how many these are.
-- KEYS: collections, nodes.  ARGV: node, collections.
local others = 0
for at = 2, #ARGV do
  local node = redis.call('HGET', KEYS[1], ARGV[at])
  if node and node ~= ARGV[1] and redis.call('ZSCORE', KEYS[2], node) then
    others = others + 1
  else
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[1])
  end
end
return others
