-- Lets a lease last from now on, if it has this token. Returns whether it had.
-- KEYS: lease.  ARGV: token, milliseconds that it lasts.
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
