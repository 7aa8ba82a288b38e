-- Types: what a program finds where it uses a type as a value.
--
-- The dialect erases types, so nothing can be asked of them while the program runs. A type that
-- is read as a variable (``Point(data)``, ``Point:is(data)``, ``integer(x)``) is an object that may
-- be passed around and used as a key, and raises an error at the first use that needs the type.
local K = ...
local error, format, next, rawset, setmetatable = error, string.format, next, rawset, setmetatable

-- Types every program has. ``string`` is one too, and the library of that name.
local NAMES = {
    number = true,
    integer = true,
    boolean = true,
    Number = true,
    Integer = true,
    Boolean = true,
    String = true,
    typeof = true,
}

local SPECIAL = { what = "a type" }

local function refuse(name, level)
    local text = "types as values are not supported yet: '%s' is a type, which is known to the checker alone; "
    error(format(text, name) .. "look at the data itself, with type(value) and its fields", level + 1)
end

local function meta_of(name)
    local meta = { __metatable = false, __name = "type" }
    local function raise()
        refuse(name, 2)
    end
    for _, event in next, { "__index", "__newindex", "__call", "__lt", "__le", "__len", "__concat", "__unm" } do
        meta[event] = raise
    end
    function meta.__tostring()
        return "type " .. name
    end
    return meta
end

local metas = setmetatable({}, { __mode = "v" })

-- The object for the type ``name``; each is of its own, but all of a name look the same.
local function value(name)
    local meta = metas[name]
    if not meta then
        meta = meta_of(name)
        metas[name] = meta
        K.values.special[meta] = SPECIAL
    end
    return setmetatable({}, meta)
end

-- The chunk that runs in ``env`` reads these types of its own as variables.
local function declare(env, names)
    for i = 1, #names do
        rawset(env, names[i], value(names[i]))
    end
end

-- ``string(x)`` and ``string:is(x)``: the metatable of the views of the library gets to know them.
local function mark_strings(meta)
    local index = meta.__index
    function meta.__call()
        refuse("string", 2)
    end
    function meta.__index(view, name)
        if name == "is" then
            refuse("string", 2)
        end
        return index(view, name)
    end
end

K.types = { NAMES = NAMES, value = value, declare = declare, mark_strings = mark_strings }
