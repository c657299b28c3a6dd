-- Replaces or removes the value of a key, together with its event. Returns the number of the event, -1 if the value is not the one that is
-- to be replaced, -2 if the shard has events that the caller does not know, -3 if it lacks events that the caller knows,
-- -4 if the lease of the key is another one.
-- KEYS: state, events, object, lease.
-- ARGV: nonce, node, payload of the event, events at most, value ("" removes it), milliseconds that it lives,
--       write id of the value that is replaced ("-" for none, "" for any), number of the last event ("" for any),
--       number, nonce and generation that the caller knows, token of the lease that the caller holds ("" for none).
local state = redis.call('HMGET', KEYS[1], 'seq', 'nonce', 'generation')
local previous = state[2]
if not previous then return redis.error_reply('LIKEWISE no state') end
local behind = tonumber(state[1]) - tonumber(ARGV[9])
if behind < 0 or (behind == 0 and previous ~= ARGV[10]) or state[3] ~= ARGV[11] then return -3 end
if ARGV[8] ~= '' and state[1] ~= ARGV[8] then return -2 end
if ARGV[12] ~= '' and redis.call('GETRANGE', KEYS[4], 0, 7) ~= ARGV[12] then return -4 end
if ARGV[7] ~= '' then
  local id = redis.call('GETRANGE', KEYS[3], 8, 15)
  if (ARGV[7] == '-' and id ~= '') or (ARGV[7] ~= '-' and id ~= ARGV[7]) then return -1 end
end
-- A server that has reached maxmemory judges a script by its first command that writes: a removal begins with one that frees memory, so it
-- is made; a value begins with the event, so it is refused before anything is changed.
if ARGV[5] == '' then
  redis.call('DEL', KEYS[4], KEYS[3])
  return append(KEYS[1], KEYS[2], previous, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
end
local number = append(KEYS[1], KEYS[2], previous, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
redis.call('DEL', KEYS[4])
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
return number
