local logger = require("logger")
local store = require("store")
local time = require("time")

--- Closes the book at the end: slowly, but in good order.
local function main()
    local book = store.get("app:book")
    assert(book:set("open", process.pid()))
    logger:info("the book is open")
    local event = process.events():receive()
    time.sleep("700ms")
    local written, err = book:set("closed", event.reason)
    logger:info("the book is closed", { written = written, error = err and tostring(err) })
end

return { main = main }
