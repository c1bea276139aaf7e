"""What Redis runs for the journal, each script whole or not at all.

Keys, all of one group (`{group}` is a hash tag: one slot in a cluster):

    queueworker:{group}:instances        set of the instances that may have left something
    queueworker:{group}:lease:<id>       the instance lives while this exists; its value numbers its batches
    queueworker:{group}:heartbeat:<id>   numbers of the instance's last heartbeat and of that which took the lease
    queueworker:{group}:journal:<id>     hash: eval_id → entry
    queueworker:{group}:fenced:<id>      set: the instance was taken over, with the entries of these ids (and an empty
                                         one); whatever it still writes is refused
    queueworker:{group}:quarantine       hash: entries that could not be read, kept for a person (`QUARANTINE_SECONDS`)
    queueworker:{group}:quarantine:<id>  a journal that was no hash, kept as long
    queueworker:{group}:failed…          the record of failed tasks, see `failed_tasks`
"""

from __future__ import annotations

from queueworker.routing.journal import failed_tasks

QUARANTINE_SECONDS = 30 * 86_400

_REFUSED = """
-- whether an error's text says that the user lacks a right: in Redis 7 or newer, in Redis 6, and outside of scripts
local function refused(text)
  for _, words in ipairs({'ACL failure', "executing the script can't", 'NOPERM'}) do
    if string.find(tostring(text), words, 1, true) then return true end
  end
end
"""

# One batch. KEYS lease, fenced and journal of the instance, then those of the record of failed tasks. ARGV the batch's
# number, then four lists, each after its length: events (channel, payload), removals (id), entries (id, entry),
# failed-task records (see `keep`).
#
# Answers WRITTEN, FENCED, NOLEASE, STALE, or PARTLY and the text of an error: Redis had no memory for an entry or a
# record. What each means to the writer is told in `BatchWriter`. Any other error is raised, before the first entry is
# written. These words are in no other answer of Redis: an OK or QUEUED comes from something else.
BATCH = (
    _REFUSED
    + failed_tasks.LUA
    + """
local lease = redis.call('GET', KEYS[1])
if not lease then
  if redis.call('EXISTS', KEYS[2]) == 1 then return 'FENCED' end
  return 'NOLEASE'
end
if tonumber(ARGV[1]) <= tonumber(lease) then return 'STALE' end
local set = redis.pcall('SET', KEYS[1], ARGV[1], 'KEEPTTL')
-- out of memory is no reason to hold back events and removals; a replica that refuses writes is
local full = type(set) == 'table' and set.err
if full and not string.find(full, 'OOM') then return redis.error_reply(full) end
-- A user who may not do this would publish the events again with each try. Not if Redis is full: after a write it
-- would take what there is no memory for.
if not full then redis.call('HDEL', KEYS[3], '') end
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
  if type(r) == 'table' and r.err then return 'PARTLY ' .. r.err end
  i = i + 2
end
local kept, problem = pcall(keep, i + 1)
if not kept then
  problem = type(problem) == 'table' and problem.err or tostring(problem)
  if string.find(problem, 'OOM') or refused(problem) then return 'PARTLY ' .. problem end
  redis.call('DEL', failed, index, bytes)  -- keys of ours that somebody else wrote to: unusable, and not bounded
end
if full then return 'PARTLY ' .. full end
return 'WRITTEN'
"""
)
WRITTEN, PARTLY, REFUSED = b"WRITTEN", b"PARTLY ", (b"FENCED", b"NOLEASE", b"STALE")


def is_batch_answer(answer: object) -> bool:
    return answer == WRITTEN or answer in REFUSED or (isinstance(answer, bytes) and answer.startswith(PARTLY))


# The heartbeat. ARGV base of the keys, instance, milliseconds of a lease, seconds for which a fenced instance is
# remembered, number of the last batch, number of the heartbeat, the bytes that may be taken over (0: none), whether to
# look at the user's rights (0 or 1), and the disowned instances.
#
# Answers FENCED and the ids that the instance's journal held when it was taken over; else the fields of
# `lease.Heartbeat`, with OK, STALE (a later heartbeat was here before) or the text of an error in the first one.

# Has another instance declared us dead? Then nothing in Redis is ours any more.
_IS_FENCED = """
local base, me, ttl = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', base .. 'fenced:' .. me) == 1 then
  local taken = redis.pcall('SMEMBERS', base .. 'fenced:' .. me)
  if taken.err then taken = {} end
  table.insert(taken, 1, 'FENCED')
  return taken
end
"""

# Renew our lease, or take a new one, whose number refuses the batches that are on their way. A heartbeat that is late
# is refused: it would move entries that nobody looks for any more.
_RENEW = (
    """
local answer = {'OK', '', 0, 0, 0, '', {}}
local lease, heartbeat, instances = base .. 'lease:' .. me, base .. 'heartbeat:' .. me, base .. 'instances'
-- drop what somebody else has written to a key of ours: it would raise an error each time
local function keep_only(kind, key)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
keep_only('string', lease)
keep_only('string', heartbeat)
keep_only('set', instances)
local last, begun = string.match(redis.call('GET', heartbeat) or '', '^(%d+) (%d+)$')
if last and tonumber(ARGV[6]) <= tonumber(last) then
  answer[1] = 'STALE'
  return answer
end
local number = redis.call('GET', lease)
if number and string.match(number, '^%d+$') then
  -- written as it is, and first, because Redis looks at its memory before a script's first write only: an answer that
  -- lets tasks be pulled must know that there is memory for their entries
  local set = redis.pcall('SET', lease, number, 'KEEPTTL')
  if set.err then answer[1] = set.err end
  redis.call('PEXPIRE', lease, ttl)
  redis.pcall('SADD', instances, me)  -- if it is gone, nobody would find our journal
else
  redis.call('SADD', instances, me)
  redis.call('SET', lease, ARGV[5], 'PX', ttl)
  begun = nil
  local memory = redis.pcall('INFO', 'memory')
  if type(memory) == 'string' then answer[6] = string.match(memory, 'maxmemory_policy:(%S+)') or '' end
end
local function set_aside(id)
  local kind = redis.call('TYPE', base .. 'journal:' .. id).ok
  if kind == 'hash' or kind == 'none' then return false end
  redis.call('RENAME', base .. 'journal:' .. id, base .. 'quarantine:' .. id)
"""
    f"  redis.call('EXPIRE', base .. 'quarantine:' .. id, {QUARANTINE_SECONDS})"
    """
  answer[2] = answer[2] .. ' ' .. id
  return true
end
if set_aside(me) then begun = nil end
answer[5] = tonumber(begun or ARGV[6])
redis.call('SET', heartbeat, ARGV[6] .. ' ' .. answer[5], 'PX', ttl)
"""
)

# Does the user have the right to run what the journal needs? This key is no hash and no number, so all that these
# commands do is to be refused for it, unless they are refused for a right. Redis counts its refusals (errorstats), so
# this is asked only with a new lease, and while something is wrong.
_RIGHTS = """
local missing = {}
for _, command in ipairs((begun and ARGV[8] == '0') and {} or {
  {'HDEL', 'x'}, {'HGET', 'x'}, {'HKEYS'}, {'HLEN'}, {'HMGET', 'x'}, {'HSET', 'x', 'x'}, {'HSETNX', 'x', 'x'},
  {'HSTRLEN', 'x'}, {'SREM', 'x'}, {'ZADD', '0', 'x'}, {'ZCARD'}, {'ZPOPMIN'}, {'ZRANGE', '0', '0'},
  {'ZREM', 'x'}, {'INCRBY', '0'}, {'DECRBY', '0'}
}) do
  local r = redis.pcall(command[1], heartbeat, unpack(command, 2))
  if type(r) == 'table' and r.err and refused(r.err) then missing[#missing + 1] = command[1] end
end
if #missing > 0 then
  answer[1] = 'its user has no permissions to run ' .. table.concat(missing, ', ')
  return answer
end
"""

# Count what live instances of other workers run.
_COUNT_SLOTS = """
local slots, to_read = {}, 4194304
local function count_slots(id)
  local journal = base .. 'journal:' .. id
  local ids = redis.pcall('HKEYS', journal)
  for _, field in ipairs(ids.err and {} or ids) do
    -- whole entries are read, so not without a bound; of what is beyond it the executors are not known
    to_read = to_read - redis.call('HSTRLEN', journal, field)
    if to_read < 0 then return end
    local head = string.sub(redis.call('HGET', journal, field), 1, 4096)
    local name = string.match(head, '^{"state":"executing","queue":".-","attempt":%d+,"executor":"(.-)"')
    if name then slots[name] = (slots[name] or 0) + 1 end
  end
end
"""

# Declare an instance without a lease dead, and move its entries into our journal while there is room. From then on
# whatever it sends is refused. What does not fit is for the next heartbeat, ours or another's. A disowned instance is a
# predecessor on another Redis, of which this one has a copy: what it had not ended came to us from itself.
_TAKE_OVER = """
local room, disowned = tonumber(ARGV[7]), {}
for i = 9, #ARGV do disowned[ARGV[i]] = true end
local function take_over(id)
  set_aside(id)
  local journal, fenced = base .. 'journal:' .. id, base .. 'fenced:' .. id
  local owners, fields = {}, {}
  keep_only('set', fenced)
  redis.call('SADD', fenced, '')
  if disowned[id] then redis.call('DEL', journal) end
  for _, field in ipairs(redis.call('HKEYS', journal)) do
    redis.call('SADD', fenced, field)
    -- an earlier version kept large entries in parts, which go together
    local owner = string.match(field, '^\\255part [^:]*:(.*)$') or field
    if not fields[owner] then
      owners[#owners + 1], fields[owner] = owner, {}
    end
    table.insert(fields[owner], field)
  end
  redis.call('EXPIRE', fenced, ARGV[4])
  for _, owner in ipairs(owners) do
    if room <= answer[4] then break end
    for _, field in ipairs(fields[owner]) do
      local entry = redis.call('HGET', journal, field)
      answer[4] = answer[4] + #field + #entry
      redis.call('HSETNX', base .. 'journal:' .. me, field, entry)
      redis.call('HDEL', journal, field)
    end
  end
  if redis.call('HLEN', journal) == 0 then
    redis.call('DEL', journal)
    redis.call('SREM', instances, id)
  end
end
"""

_OTHERS = """
local mine = string.match(me, '^.*:') or me
for _, id in ipairs(redis.call('SMEMBERS', instances)) do
  local lives = redis.call('EXISTS', base .. 'lease:' .. id) == 1
  if lives and string.sub(id, 1, #mine) ~= mine then
    answer[3] = answer[3] + 1
    count_slots(id)
  end
  if id ~= me and not lives then take_over(id) end
end
for name, number in pairs(slots) do
  table.insert(answer[7], name)
  table.insert(answer[7], number)
end
return answer
"""

LEASE = _REFUSED + _IS_FENCED + _RENEW + _RIGHTS + _COUNT_SLOTS + _TAKE_OVER + _OTHERS

# KEYS the journal; ARGV fields. Answers their entries; if no field is given, each field's name and its entry's size.
READ = """
local answer = {}
for i, field in ipairs(ARGV) do answer[i] = redis.call('HGET', KEYS[1], field) end
if #ARGV == 0 then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    answer[#answer + 1] = field
    answer[#answer + 1] = redis.call('HSTRLEN', KEYS[1], field)
  end
end
return answer
"""

# Gives the lease up. ARGV base of the keys, instance.
LEAVE = """
local base, me = ARGV[1], ARGV[2]
redis.call('DEL', base .. 'lease:' .. me, base .. 'heartbeat:' .. me)
if redis.call('HLEN', base .. 'journal:' .. me) == 0 then redis.call('SREM', base .. 'instances', me) end
return redis.call('HLEN', base .. 'journal:' .. me)
"""
