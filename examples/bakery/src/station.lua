-- A station of the bakery: works until it is told to close.

local function main(name: string): string
    local events = process.events()
    while events:receive().kind ~= process.event.CANCEL do
    end
    return name .. " closed"
end

return {main = main}
