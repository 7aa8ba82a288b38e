local io = require("io")
local store = require("store")

local function main(): integer
    local book = store.get("app:book")
    local lines = (book:get("lines") or 0) + 1
    book:set("lines", lines)
    io.print("line " .. lines)
    return 0
end

return { main = main }
