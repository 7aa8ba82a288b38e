local time = require("time")

--- Waits until so many processes have said that they began again; tells whoever asks when the last of them did.
local function main(expected: integer)
    local inbox = process.inbox()
    local count, at, asker = 0, 0, nil
    while not (asker and count >= expected) do
        local message = inbox:receive()
        if message:topic() == "again" then
            count = count + 1
            at = time.now():unix_nano() / 1e9
        else
            asker = message:from()
        end
    end
    process.send(asker, "told", at)
end

return { main = main }
