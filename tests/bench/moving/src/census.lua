local AT_ONCE = 500

--- Asks every process what it has noted, or ends them all; what they told, added up.
local function main(pids: {string}, ending: boolean)
    local inbox = process.inbox()
    local told = { alive = 0, wrong = 0, starts = 0, whole = 0, stills = {} }
    local asked = 0
    for _, pid in ipairs(pids) do
        process.send(pid, ending and "end" or "tell")
        asked = asked + 1
        while not ending and (asked - told.alive >= AT_ONCE or (asked == #pids and told.alive < asked)) do
            local one = inbox:receive():payload():data()
            told.alive = told.alive + 1
            told.wrong, told.starts = told.wrong + one.wrong, told.starts + one.starts
            told.whole = told.whole + (one.whole and 1 or 0)
            told.stills[told.alive] = one.still
        end
    end
    return told
end

return { main = main }
