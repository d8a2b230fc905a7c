-- 'Compare, then apply': all checks, then all guards, then all operations, as one.
--
-- Takes one key for each check, guard and operation, in that order (repeated where used twice), and as arguments how
-- many checks, how many guards, then what belongs to each of them, flat. 'other' before a check has its key behind it: one that the
-- caller may only read.
-- Answers -1 if everything was done, else the position (from 0) of the first check that did not hold.
--
-- A script is not rolled back when a command fails halfway. So nothing that can fail for the state it finds may come
-- after the first write: the guards look at types and numbers first. There is no '#!lua' line on purpose: without it Redis
-- refuses for want of memory, for a full disk or as a replica only at the first write, so that a transaction which
-- frees memory passes, and after the first write it refuses no more.
local call = redis.call

local function whole(text)
  if text == '0' then return true end
  -- At most 15 digits: Lua's numbers are doubles, exact up to 2^53.
  return text:find('^%-?[1-9]%d*$') and (#text <= 15 or (#text == 16 and text:sub(1, 1) == '-'))
end

local function corrupt()
  return redis.error_reply('WRONGTYPE a stored value has another type or is not a whole number')
end

local function commit(keys, args)
  local k, a = 0, 3

  for i = 0, args[1] - 1 do
    local key, check, holds
    if args[a] == 'other' then
      key, a = args[a + 1], a + 2
    else
      k = k + 1
      key = keys[k]
    end
    check = args[a]
    if check == 'absent' then
      holds = call('EXISTS', key) == 0
      a = a + 1
    elseif check == 'exists' then
      holds = call('EXISTS', key) == 1
      a = a + 1
    elseif check == 'equals' then
      holds = call('GET', key) == args[a + 1]
      a = a + 2
    elseif check == 'field' then
      holds = call('HGET', key, args[a + 1]) == args[a + 2]
      a = a + 3
    elseif check == 'nofield' then
      holds = call('HEXISTS', key, args[a + 1]) == 0
      a = a + 2
    elseif check == 'atmost' then
      local held = call('HGET', key, args[a + 1]) or '0'
      if not whole(held) then return corrupt() end
      holds = tonumber(held) <= tonumber(args[a + 2])
      a = a + 3
    elseif check == 'before' then
      local time = call('TIME')
      holds = time[1] * 1000 + math.floor(time[2] / 1000) < tonumber(args[a + 1])
      a = a + 2
    else
      holds = call('LLEN', key) == tonumber(args[a + 1])
      a = a + 2
    end
    if not holds then return i end
  end

  for _ = 1, args[2] do
    k = k + 1
    if args[a] == 'numbers' then
      local count = args[a + 1]
      for _, held in ipairs(call('HMGET', keys[k], unpack(args, a + 2, a + 1 + count))) do
        if held and not whole(held) then return corrupt() end
      end
      a = a + 2 + count
    else
      local kind = call('TYPE', keys[k]).ok
      if kind ~= 'none' and kind ~= args[a] then return corrupt() end
      a = a + 1
    end
  end

  local last = #args
  while a <= last do
    k = k + 1
    local name, count = args[a], args[a + 1]
    if name == 'LSET' then
      -- A position that is not there changes nothing; that is the only thing which can be wrong by now.
      local reply = redis.pcall(name, keys[k], args[a + 2], args[a + 3])
      if reply.err and not reply.err:find('no such key') and not reply.err:find('index out of range') then
        return reply
      end
    else
      call(name, keys[k], unpack(args, a + 2, a + 1 + count))
    end
    a = a + 2 + count
  end
  return -1
end
