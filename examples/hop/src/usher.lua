--- Has a process moved to a node, and tells whoever wanted that how it went. Nobody can wait for a move of its own.
local function main(pid: string, node: string, whom: string)
    local milliseconds, err = process.move(pid, node)
    process.send(whom, "moved", { node = node, milliseconds = milliseconds, refused = err and tostring(err) })
end

return { main = main }
