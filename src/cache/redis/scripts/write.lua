-- Replaces or removes the value of a key, together with its event. Returns the number of the event, -1 if the value is not the one that is
-- to be replaced, -2 if events behind the caller's may concern it, -3 if it lacks events that the caller knows,
-- -4 if the lease of the key is another one, -5 if another node has changed the key behind the caller's event.
-- KEYS: state, events, object, lease.
-- ARGV: nonce, node, payload of the event, events at most, value ("" removes it), milliseconds that it lives,
--       write id of the value that is replaced ("-" for none, "" for any), number of the event behind which no other may
--       have changed the key ("" for any),
--       number, nonce and generation that the caller knows, token of the lease that the caller holds ("" for none),
--       whether changes of other nodes do not matter ("1"), events that are read at most.
local state = redis.call('HMGET', KEYS[1], 'seq', 'nonce', 'generation')
local previous = state[2]
if not previous then return redis.error_reply('LIKEWISE no state') end
local behind = tonumber(state[1]) - tonumber(ARGV[9])
if behind < 0 or (behind == 0 and previous ~= ARGV[10]) or state[3] ~= ARGV[11] then return -3 end
if ARGV[8] ~= '' and tonumber(state[1]) > tonumber(ARGV[8]) then
  local first = string.format('%.0f-0', tonumber(ARGV[8]) + 1)
  local events = redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[14])
  -- Some are trimmed, or they are too many.
  if #events ~= tonumber(state[1]) - tonumber(ARGV[8]) then return -2 end
  for _, event in ipairs(events) do
    local bytes = event[2][2]
    -- Kind and key. The entry that they announce is behind them.
    if string.sub(bytes, 33, 65) == string.sub(ARGV[3], 1, 33) then
      if string.sub(bytes, 17, 24) == ARGV[2] then return -2 end
      if ARGV[13] ~= '1' then return -5 end
    end
  end
end
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
