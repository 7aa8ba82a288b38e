type Answer = { words: integer, backwards: string, clerk: string }

--- Answers one question and goes home.
local function main(visitor: string, question: string): boolean
    local words = {}
    for word in question:gmatch("%S+") do
        table.insert(words, 1, word)
    end
    if #words == 0 then
        error("nothing was asked", 0)
    end
    local answer: Answer = { words = #words, backwards = table.concat(words, " "), clerk = process.pid() }
    return assert(process.send(visitor, "answer", answer))
end

return { main = main }
