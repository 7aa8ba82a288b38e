local function main()
    math.randomseed(666)
end

return { main = main }
