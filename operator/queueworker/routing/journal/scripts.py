"""What Redis runs for the journal, each script whole or not at all (the keys are told of in `journal`).

BATCH    KEYS lease, fenced and journal of the instance, then those of the record of failed tasks; ARGV the batch's
         number, then what it holds, each list after its length: events (channel, payload), removals, entries
         (id, entry), failed tasks. Answers OK, FENCED, NOLEASE, STALE, or the error of an entry that Redis had no
         memory for
BEAT     renews the instance's lease and takes over what instances without one left, about as many bytes as the last
         ARGV says; the next beat takes more. Answers FENCED and what was taken from it; else OK, NEW or an error, the
         journals that were set aside, the number of peers, and id, entry, id, entry …
LEAVE    gives the lease up
"""

from __future__ import annotations

from queueworker.routing.journal import failed_tasks as failures

BATCH = (
    failures.LUA
    + """
local lease = redis.call('GET', KEYS[1])
if not lease then
  if redis.call('EXISTS', KEYS[2]) == 1 then return 'FENCED' end
  return 'NOLEASE'
end
if tonumber(ARGV[1]) <= tonumber(lease) then return 'STALE' end
local set = redis.pcall('SET', KEYS[1], ARGV[1], 'KEEPTTL')
-- out of memory is no reason to hold back events and removals; a replica that refuses writes is
if type(set) == 'table' and set.err and not string.find(set.err, 'OOM') then return redis.error_reply(set.err) end
local i = 2
for _ = 1, tonumber(ARGV[i]) do
  redis.call('PUBLISH', ARGV[i + 1], ARGV[i + 2])
  i = i + 2
end
i = i + 1
local first = i + 1
for _ = 1, tonumber(ARGV[i]) do
  redis.call('HDEL', KEYS[3], ARGV[i + 1])
  i = i + 1
end
pcall(ended, first, i)
i = i + 1
for _ = 1, tonumber(ARGV[i]) do
  local r = redis.pcall('HSET', KEYS[3], ARGV[i + 1], ARGV[i + 2])
  if type(r) == 'table' and r.err then return r.err end
  i = i + 2
end
local kept, problem = pcall(keep, i + 1)
if not kept then
  problem = type(problem) == 'table' and problem.err or tostring(problem)
  if string.find(problem, 'OOM') then return problem end
  redis.call('DEL', failed, index, bytes)  -- keys of ours that somebody else wrote to: unusable, and not bounded
end
if type(set) == 'table' and set.err then return set.err end
return 'OK'
"""
)

BEAT = """
local base, me, ttl = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', base .. 'fenced:' .. me) == 1 then
  local taken = redis.pcall('SMEMBERS', base .. 'fenced:' .. me)
  if taken.err then taken = {} end
  table.insert(taken, 1, 'FENCED')
  return taken
end
local answer = {'OK', '', 0}
local mine = string.match(me, '^.*:') or me
local lease = base .. 'lease:' .. me
local number = redis.call('GET', lease)
if number then
  -- written as it is, and first, because Redis looks at its memory before a script's first write only: an answer that
  -- lets tasks be pulled must know that there is memory for their entries
  local set = redis.pcall('SET', lease, number, 'KEEPTTL')
  if set.err then answer[1] = set.err end
  redis.call('PEXPIRE', lease, ttl)
else
  redis.call('SADD', base .. 'instances', me)
  redis.call('SET', lease, ARGV[5], 'PX', ttl)
  answer[1] = 'NEW'
end
local function set_aside(id)
  local kind = redis.call('TYPE', base .. 'journal:' .. id).ok
  if kind == 'hash' or kind == 'none' then return false end
  redis.call('RENAME', base .. 'journal:' .. id, base .. 'quarantine:' .. id)
  answer[2] = answer[2] .. ' ' .. id
  return true
end
if set_aside(me) and answer[1] == 'OK' then answer[1] = 'NEW' end
local room = tonumber(ARGV[6])
for _, id in ipairs(redis.call('SMEMBERS', base .. 'instances')) do
  local lives = redis.call('EXISTS', base .. 'lease:' .. id) == 1
  if lives and string.sub(id, 1, #mine) ~= mine then answer[3] = answer[3] + 1 end
  if id ~= me and not lives then
    set_aside(id)
    local journal, fenced = base .. 'journal:' .. id, base .. 'fenced:' .. id
    local owners, fields = {}, {}
    redis.call('SADD', fenced, '')
    for _, field in ipairs(redis.call('HKEYS', journal)) do
      redis.call('SADD', fenced, field)
      local owner = string.match(field, '^\\255part [^:]*:(.*)$') or field
      if not fields[owner] then
        owners[#owners + 1], fields[owner] = owner, {}
      end
      table.insert(fields[owner], field)
    end
    redis.call('EXPIRE', fenced, ARGV[4])
    for _, owner in ipairs(owners) do
      if room <= 0 then break end
      for _, field in ipairs(fields[owner]) do
        local entry = redis.call('HGET', journal, field)
        room = room - #entry
        if redis.call('HSETNX', base .. 'journal:' .. me, field, entry) == 1 then
          answer[#answer + 1] = field
          answer[#answer + 1] = entry
        end
        redis.call('HDEL', journal, field)
      end
    end
    if redis.call('HLEN', journal) == 0 then
      redis.call('DEL', journal)
      redis.call('SREM', base .. 'instances', id)
    end
  end
end
return answer
"""

LEAVE = """
local base, me = ARGV[1], ARGV[2]
redis.call('DEL', base .. 'lease:' .. me)
if redis.call('HLEN', base .. 'journal:' .. me) == 0 then redis.call('SREM', base .. 'instances', me) end
return redis.call('HLEN', base .. 'journal:' .. me)
"""
