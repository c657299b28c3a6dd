-- Gives subjects new tokens, with one event. Returns its number, and the tokens of each subject.
-- KEYS: state, events, tokens, a name under which nothing is stored.
-- ARGV: nonce, node, events at most, whether all invalidation ids are forgotten first ("1"), soft tokens that are remembered,
--       then for each subject: subject ("" is everything), token, "s" for a soft invalidation.
local previous = redis.call('HGET', KEYS[1], 'nonce')
if not previous then return redis.error_reply('LIKEWISE no state') end
-- A server that has reached maxmemory judges a script by its first command that writes: this one lets invalidations pass.
redis.call('DEL', KEYS[4])
local payload = string.char(1)
if ARGV[4] == '1' then
  payload = string.char(2)
  local everything = redis.call('HGET', KEYS[3], 'everything')
  redis.call('DEL', KEYS[3])
  if everything then redis.call('HSET', KEYS[3], 'everything', everything) end
end
local parts, histories = { payload }, {}
for at = 6, #ARGV, 3 do
  local subject, token = ARGV[at], ARGV[at + 1]
  local field = subject
  if subject == '' then field = 'everything' end
  local history = token
  if ARGV[at + 2] == 's' then
    -- What was never invalidated has the token 0.
    local current = redis.call('HGET', KEYS[3], field) or string.rep('\0', 8)
    history = token .. string.sub(current, 1, 8 * tonumber(ARGV[5]))
  end
  redis.call('HSET', KEYS[3], field, history)
  histories[#histories + 1] = history
  parts[#parts + 1] = string.char(#subject) .. subject .. string.char(#history / 8) .. history
end
local number = append(KEYS[1], KEYS[2], previous, ARGV[1], ARGV[2], table.concat(parts), ARGV[3])
return { number, histories }
