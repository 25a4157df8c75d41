-- Swaps, or reads, many records of one slot. A first line that binds the text to
-- one server process goes before this; see term.go.
--
-- KEYS: the slot's meta hash, then one record each.
-- ARGV: the field with the counter of the term, the greatest counter that the
-- caller has seen in it; for swaps also the epoch, "1" to write in any case, and
-- the channel for news; then for each record the 16 bytes of the version that is
-- to be held ("" for none), the milliseconds to keep what is written ("" for
-- ever), and what is written.
-- Gives the time in microseconds, the counter before the first write, and for
-- each record 1 if it was written, else what is held, or false.
local n = #KEYS - 1
if n < 1 then return 'loaded' end
local last = redis.call('HGET', KEYS[1], ARGV[1])
if not last or tonumber(last) < tonumber(ARGV[2]) then
  return redis.error_reply('SEMELTERM the term has ended, or its counter has gone back')
end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('MGET', unpack(KEYS, 2))
if #ARGV == 2 then
  return {now, 0, unpack(held)}
end

local epoch, pack = tonumber(ARGV[3]), struct.pack
local writes = 0
for i = 1, n do
  local old, h = ARGV[3 + 3 * i], held[i]
  if old == '' then
    if not h then writes = writes + 1; held[i] = 1 end
  elseif h and string.sub(h, 1, 16) == old then
    writes = writes + 1
    held[i] = 2
  end
end
if writes == 0 and ARGV[4] ~= '1' then
  return {now, 0, unpack(held)}
end

-- The first write: whatever the server has against writes it says here, before
-- anything has happened.
local base = redis.call('HINCRBY', KEYS[1], ARGV[1], n) - n
local fresh, news = {}, {}
for i = 1, n do
  if held[i] == 1 or held[i] == 2 then
    local counter, keep = base + i, ARGV[4 + 3 * i]
    local value = pack('>I8I8I8I8', epoch, counter, now, epoch + now + 3 * counter) .. ARGV[5 + 3 * i]
    if keep ~= '' then
      redis.call('SET', KEYS[i + 1], value, 'PX', keep)
      news[#news + 1] = string.sub(KEYS[i + 1], -8)
    elseif held[i] == 2 then
      redis.call('SET', KEYS[i + 1], value)
    else
      fresh[#fresh + 1] = KEYS[i + 1]
      fresh[#fresh + 1] = value
    end
    held[i] = 1
  end
end
if #fresh > 0 and redis.call('MSETNX', unpack(fresh)) == 0 then
  -- MGET does not see what is no string: a stranger's, to be told as damaged.
  for i = 1, n do
    if ARGV[3 + 3 * i] == '' and redis.call('TYPE', KEYS[i + 1]).ok ~= 'string' then held[i] = '' end
  end
  for i = 1, #fresh, 2 do redis.call('SETNX', fresh[i], fresh[i + 1]) end
end
if #news > 0 then redis.pcall('PUBLISH', ARGV[5], table.concat(news)) end
return {now, base, unpack(held)}
