-- Begins, continues or moves on the term of a slot, and looks whether the data
-- set has lost writes.
--
-- KEYS: the slot's meta hash.
-- ARGV: the last epoch and the greatest counter in it that the caller has seen
-- ("0" for none), the loss that is accepted ("" for none, "any" for all), and the
-- layout of the keys.
-- Gives {'term', epoch, counter, run}, {'lost', name}, {'layout', what is there}
-- or {'replica'}.
local meta, known, seen = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local replication = redis.call('INFO', 'replication')
if not string.find(replication, 'role:master', 1, true) then return {'replica'} end
local replid = string.match(replication, 'master_replid:(%x+)') or ''
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local clock = redis.call('TIME')

local m, flat = {}, redis.call('HGETALL', meta)
for i = 1, #flat, 2 do m[flat[i]] = flat[i + 1] end
if m.layout and m.layout ~= ARGV[4] then return {'layout', m.layout} end
local epoch = tonumber(m.epoch or '0')
local field = 'c:' .. (m.epoch or '') .. ':' .. (m.run or '')

-- A counter that is behind what was acknowledged, or an epoch that the data set
-- never knew, proves that writes were lost.
local lost = m.lost
if not lost and known > 0 and known >= tonumber(m.accepted or '0') then
  local counter = m['was:' .. ARGV[1]]
  if known == epoch then counter = m[field] end
  local behind = counter and tonumber(counter) < seen
  local unheard = not counter and known > tonumber(m.oldest or '0')
  if behind or unheard then
    lost = 'loss-' .. clock[1] .. '.' .. clock[2]
  end
end
local accepted = lost and (ARGV[3] == 'any' or ARGV[3] == lost)
if lost and not accepted then
  if not m.lost then redis.call('HSET', meta, 'lost', lost, 'layout', ARGV[4]) end
  return {'lost', lost}
end

if epoch > 0 and not accepted and m.run == run and m.replid == replid then
  return {'term', m.epoch, m[field] or '0', run}
end
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local next = string.format('%.0f', math.max(epoch + 1, known + 1, now))
if epoch > 0 then
  redis.call('HSET', meta, 'was:' .. m.epoch, m[field] or '0')
  redis.call('HDEL', meta, field)
end
redis.call('HSET', meta, 'epoch', next, 'run', run, 'replid', replid, 'layout', ARGV[4], 'c:' .. next .. ':' .. run, '0')
if accepted then
  redis.call('HSET', meta, 'accepted', next)
  redis.call('HDEL', meta, 'lost')
end

-- Of terms that have ended the last 16 are kept.
local was = {}
for k in pairs(m) do
  local e = string.match(k, '^was:(%d+)$')
  if e then was[#was + 1] = tonumber(e) end
end
table.sort(was, function(a, b) return a > b end)
for i = 16, #was do
  redis.call('HDEL', meta, 'was:' .. string.format('%.0f', was[i]))
  if i == 16 then redis.call('HSET', meta, 'oldest', string.format('%.0f', was[i])) end
end
return {'term', next, '0', run}
