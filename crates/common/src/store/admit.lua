-- One request against one bucket: the generic cell rate algorithm on the store's clock.
--
-- Takes the bucket's key, the burst, the microseconds per request (a whole number) and the cost; a negative cost gives back.
-- The key holds the time in microseconds at which the bucket is full again, and expires then, so that an idle caller leaves
-- nothing behind. All numbers stay whole and far below 2^53, where Lua's doubles are exact; '%.0f' because
-- tostring() would round them to 14 digits.
-- Answers {1 if it may pass, how many more would pass now, microseconds until full, microseconds until the next passes}.
local function admit(key, burst, step, cost)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local limit = now + burst * step

  local held = redis.call('GET', key)
  local full = held and tonumber(held) or now
  if full < now then full = now end
  -- After the clock was set back, or the quota was made smaller, nobody waits longer than an empty bucket takes. This is stored
  -- even if the request is refused; otherwise each one would start that wait again until the old time is reached.
  if full > limit then
    full = limit
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
  end

  local next_full = full + cost * step
  local allowed = next_full <= limit
  if allowed then
    if cost ~= 0 then
      if next_full <= now then
        next_full = now
        if held then redis.call('DEL', key) end
      else
        redis.call('SET', key, string.format('%.0f', next_full), 'PX', math.ceil((next_full - now) / 1000))
      end
    end
    full = next_full
  end
  local wait = full + math.max(cost, 1) * step - limit
  return { allowed and 1 or 0, math.floor((limit - full) / step), full - now, math.max(wait, 0) }
end
