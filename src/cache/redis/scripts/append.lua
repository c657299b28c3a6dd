-- Appends an event to the log of a shard, behind the event with the nonce `previous`. Returns its number. The script that calls it follows.
local function append(state, events, previous, nonce, node, payload, events_max)
  local time = redis.call('TIME')
  local written_at = struct.pack('<I8', time[1] * 1000000 + time[2])
  local number = redis.call('HINCRBY', state, 'seq', 1)
  redis.call('HSET', state, 'nonce', nonce)
  redis.call('XADD', events, 'MAXLEN', '~', events_max, string.format('%.0f-0', number),
    'e', nonce .. previous .. node .. written_at .. payload)
  return number
end

