local io = require("io")
local registry = require("registry")

--- Changes the menu while the house is open: three changesets, then back again.
local function show()
    local dishes = registry.find({ ["meta.type"] = "dish" })
    table.sort(dishes, function(a, b)
        return a.id < b.id
    end)
    io.print(registry.current_version():string() .. ":")
    for _, dish in ipairs(dishes) do
        io.print(string.format("  %-16s %s, %d", registry.parse_id(dish.id).name, dish.meta.title, dish.data.price))
    end
end

local function dish(name: string, title: string, price: number)
    return {
        id = "app.menu:dish." .. name,
        kind = "registry.entry",
        meta = { type = "dish", title = title },
        data = { price = price },
    }
end

local function apply(change)
    local changes = registry.snapshot():changes()
    change(changes)
    return changes:apply()
end

local function main(): integer
    show()
    assert(apply(function(changes)
        changes:create(dish("trout", "Trout", 14))
    end))
    show()
    assert(apply(function(changes)
        changes:create(dish("cake", "Cake", 4))
        changes:update(dish("soup", "Pumpkin soup", 6))
    end))
    show()
    assert(apply(function(changes)
        changes:delete("app.menu:dish.stew")
    end))
    show()

    -- all or nothing: the good half of a bad change is not there either
    local version, err = apply(function(changes)
        changes:create(dish("wine", "Wine", 3))
        changes:delete("app.menu:dish.nothing")
    end)
    local _, missing = registry.get("app.menu:dish.wine")
    io.print("a bad change is refused:", version == nil and err ~= nil, missing:kind())
    show()

    assert(registry.apply_version(registry.history():get_version(0)))
    show()
    return 0
end

return { main = main }
