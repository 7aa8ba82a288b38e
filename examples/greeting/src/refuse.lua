local io = require("io")

return {
    main = function(): integer
        io.eprint("not today")
        return 3
    end,
}
