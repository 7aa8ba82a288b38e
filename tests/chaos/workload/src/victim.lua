local record, time = require("record"), require("time")

--- Lives for a while, sends three words to its watcher, and ends as it was told to.
local function main(watcher, how, life)
    if how == "waits" then
        time.sleep("1h")
    end
    time.sleep(life .. "ms")
    for n = 1, 3 do
        record.complete(record.invoke("word", { to = watcher, n = n }), select(2, process.send(watcher, "word", n)))
    end
    record.told("ends")
    if how == "fails" then
        error("as it was told to")
    end
    return how
end

return { main = main }
