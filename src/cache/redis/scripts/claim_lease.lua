-- Grants the lease of a key if there is none. Returns 0, whether the key has a value and the number of the last event; otherwise the
-- milliseconds that the lease has left, and its token.
-- KEYS: lease, object, state.  ARGV: lease, milliseconds that it lasts.
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then return { left + 1, redis.call('GETRANGE', KEYS[1], 0, 7) } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 0, redis.call('EXISTS', KEYS[2]), redis.call('HGET', KEYS[3], 'seq') or 0 }
