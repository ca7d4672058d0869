-- A request that finds nothing that serves waits here: for as long as the map of bounds said when it came, and unless as
-- many as that says wait already. All that wait are on one thread, as this is loaded once.

local shares = Map.new("./shares.map", Map._int)
local bounds = Map.new("./hold.map", Map._str)
local LOOK_MS, PARTS = 200, 1000
local FORGOTTEN_S = 2  -- one that HAProxy ended because its client had gone is not woken again, and counts no longer
local last, looked = 0, {}

local function now()
    local at = core.now()
    return at.sec + at.usec / 1e6
end

local function waiting(at)
    local count = 0
    for one, seen in pairs(looked) do
        if at - seen > FORGOTTEN_S then looked[one] = nil else count = count + 1 end
    end
    return count
end

core.register_action("hold", {"http-req"}, function(txn)
    local began = now()
    local seconds, most = tonumber(bounds:lookup("seconds")), tonumber(bounds:lookup("requests"))
    if not seconds or not most or waiting(began) >= most then return end
    last = last + 1
    local me, slot = last, nil
    repeat
        looked[me] = now()
        core.msleep(LOOK_MS)
        slot = shares:lookup(math.random(0, PARTS - 1))
    until slot or now() - began >= seconds
    looked[me] = nil
    if slot then txn:set_var("txn.slot", slot) end
end)
