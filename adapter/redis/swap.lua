-- Swaps, or reads, many records that lie together. A first line that binds the
-- text to one server process goes before this; see script.go.
--
-- KEYS: the meta hash, the keys to claim, then those to write over, or to read.
-- ARGV: the field with the counter of the term; the greatest counter that the
-- caller has seen in it; and to write: the epoch, the channel for news, and how
-- many keys there are to claim; for each of these what to write; for each of the
-- others the 16 bytes of the version that is to be held ("" for none), what to
-- write, and the milliseconds to keep it ("" for ever).
-- Gives the time in microseconds, the counter before the first write, and for
-- each key 1 if it was written, else what it holds, or false.
local n = #KEYS - 1
if n < 1 then return 'loaded' end
local call = redis.call
local last = call('HGET', KEYS[1], ARGV[1])
if not last or tonumber(last) < tonumber(ARGV[2]) then
  return redis.error_reply('SEMELTERM the term has ended, or its counter has gone back')
end
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
if #ARGV == 2 then
  return {now, 0, unpack(call('MGET', unpack(KEYS, 2)))}
end

local claims, held = tonumber(ARGV[5]), {}
local writes = claims
if claims > 0 then
  local there = call('EXISTS', unpack(KEYS, 2, claims + 1))
  if there > 0 then
    held = call('MGET', unpack(KEYS, 2, claims + 1))
    writes = claims - there
    -- MGET does not see what is no string: a stranger's, told as damaged.
    for i = 1, claims do
      if not held[i] and call('EXISTS', KEYS[i + 1]) == 1 then held[i] = '' end
    end
  end
end
if n > claims then
  local over = call('MGET', unpack(KEYS, claims + 2))
  local at, sub = claims + 6, string.sub
  for i = claims + 1, n do
    local h, old = over[i - claims], ARGV[at]
    at = at + 3
    if (h and old ~= '' and sub(h, 1, 16) == old) or (not h and old == '') then
      writes = writes + 1
      held[i] = nil
    else
      held[i] = h
    end
  end
end
if writes == 0 then
  return {now, 0, unpack(held, 1, n)}
end

-- The first write: whatever the server has against writes it says here, before
-- anything has happened.
local base = call('HINCRBY', KEYS[1], ARGV[1], n) - n
local pack, epoch = struct.pack, tonumber(ARGV[3])
local sum = epoch + now + 3 * base
local fresh, f = {}, 0
for i = 1, claims do
  if not held[i] then
    fresh[f + 1] = KEYS[i + 1]
    fresh[f + 2] = pack('>I8I8I8I8', epoch, base + i, now, sum + 3 * i) .. ARGV[i + 5]
    f = f + 2
    held[i] = 1
  end
end
if f > 0 then call('MSET', unpack(fresh)) end
local news = {}
local at = claims + 6
for i = claims + 1, n do
  if held[i] == nil then
    local key, keep = KEYS[i + 1], ARGV[at + 2]
    local value = pack('>I8I8I8I8', epoch, base + i, now, sum + 3 * i) .. ARGV[at + 1]
    if keep == '' then
      call('SET', key, value)
    else
      call('SET', key, value, 'PX', keep)
      news[#news + 1] = string.sub(key, -8)
    end
    held[i] = 1
  end
  at = at + 3
end
if #news > 0 then redis.pcall('PUBLISH', ARGV[4], table.concat(news)) end
return {now, base, unpack(held, 1, n)}
