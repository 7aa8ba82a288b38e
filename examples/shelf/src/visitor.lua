local io = require("io")
local time = require("time")

--- Uses the shelf by its name, wherever in the cluster it hangs, and leaves it empty.
local inbox = process.inbox()

local function ask(topic: string, request)
    local sent, err = process.send("shelf", topic, request)
    if not sent then
        return { error = err:kind() }
    end
    local late = time.after("3s")
    local r = channel.select { inbox:case_receive(), late:case_receive() }
    return r.channel == late and { error = "late" } or r.value:payload():data()
end

local function main(): integer
    while not process.registry.lookup("shelf") do
        time.sleep("20ms")
    end
    for number, label in ipairs({ "lamp", "clock", "vase" }) do
        ask("put", { label = label, thing = label .. " no. " .. number })
    end
    io.print("replaced:", ask("put", { label = "vase", thing = { colour = "blue", pieces = { 1, 2 } } }).replaced)
    local vase = ask("look", { label = "vase" }).thing
    io.print("the vase is", vase.colour, "in", #vase.pieces, "pieces")
    io.print("a mirror is there:", ask("look", { label = "mirror" }).found)
    io.print("taken:", ask("take", { label = "lamp" }).thing)
    io.print("on the shelf:", table.concat(ask("list").labels, ", "))
    io.print("dusting:", ask("dust").error)
    ask("take", { label = "clock" })
    ask("take", { label = "vase" })
    io.print("left:", #ask("list").labels)
    io.print("nobody by that name:", select(2, process.send("cupboard", "look", {})):kind())
    return 0
end

return { main = main }
