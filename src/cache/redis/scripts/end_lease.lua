-- Ends the lease of a key with an event, if it has this token. Returns whether it had.
-- KEYS: state, events, lease.  ARGV: nonce, node, payload of the event, events at most, token.
if redis.call('GETRANGE', KEYS[3], 0, 7) ~= ARGV[5] then return 0 end
redis.call('DEL', KEYS[3])
local previous = redis.call('HGET', KEYS[1], 'nonce')
if not previous then return 1 end
append(KEYS[1], KEYS[2], previous, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return 1
