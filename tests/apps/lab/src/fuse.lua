--- Links itself to a process without trapping links: it goes where that goes.
local function main(pid: string)
    assert(process.link(pid))
    process.inbox():receive()
end

return { main = main }
