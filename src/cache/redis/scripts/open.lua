-- Begins a shard whose state is missing. Returns its last event, the generation of its values, and whether it was begun.
-- KEYS: state, events, tokens, seed of the tokens.  ARGV: nonce, which is the generation too; whether the shard has the tokens ("1"),
--       the field of the tokens of all tenants but the default one.
local state = redis.call('HMGET', KEYS[1], 'seq', 'nonce', 'generation')
local has_tokens = ARGV[2] ~= '1'
  or (redis.call('HEXISTS', KEYS[3], 'everything') == 1 and redis.call('HEXISTS', KEYS[3], ARGV[3]) == 1)
if state[2] and has_tokens then
  redis.call('DEL', KEYS[4])
  return { state[1], state[2], state[3], 0 }
end
-- A script that fails undoes nothing: a seed that has ended must be noticed before anything is deleted.
if ARGV[2] == '1' and redis.call('EXISTS', KEYS[4]) == 0 then return redis.error_reply('LIKEWISE no seed') end
redis.call('DEL', KEYS[2], KEYS[3])
if ARGV[2] == '1' then
  redis.call('RENAME', KEYS[4], KEYS[3])
  redis.call('PERSIST', KEYS[3])
end
redis.call('HSET', KEYS[1], 'seq', '0', 'nonce', ARGV[1], 'generation', ARGV[1])
return { '0', ARGV[1], ARGV[1], 1 }
