-- Gives the values of a shard a new generation, if the last event of the shard is this one.
-- KEYS: state.  ARGV: number and nonce of the last event, generation.
local state = redis.call('HMGET', KEYS[1], 'seq', 'nonce')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'generation', ARGV[3])
return 1
