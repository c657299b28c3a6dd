-- Records that a node has a collection no longer.
-- KEYS: collections.  ARGV: node, collection.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[2])
