--- Runs a program on a host and returns what it returned.
local function main(entry: string, host: string, ...)
    return process.exec(entry, host, ...)
end

return { main = main }
