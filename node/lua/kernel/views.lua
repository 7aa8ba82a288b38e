-- Views: a library as one process sees it.
--
-- A view begins empty and takes from its library what the process uses, at first use. What a
-- process changes stays in its view, and nothing of the library itself is ever in its hands.
-- That makes a process that uses three functions of a library as cheap as it should be.
local K = ...
local rawmeta = debug.getmetatable
local next, pairs, rawget, rawset, setmetatable, type = next, pairs, rawget, rawset, setmetatable, type

local metas = {} -- library -> the metatable of its views

local function meta_of(library)
    local meta = { __metatable = false }
    metas[library] = meta
    K.values.special[meta] = { what = "a library" }
    local inner = {} -- name -> library inside of this one
    for name, value in pairs(library) do
        if type(value) == "table" and rawmeta(value) == nil then
            inner[name] = metas[value] or meta_of(value)
        end
    end

    function meta.__index(view, name)
        local value = library[name]
        if inner[name] then
            value = setmetatable({}, inner[name])
        end
        if value ~= nil then
            rawset(view, name, value)
        end
        return value
    end

    function meta.__pairs(view)
        for name in next, library do
            if rawget(view, name) == nil then
                meta.__index(view, name)
            end
        end
        return next, view, nil
    end

    return meta
end

-- A new view of ``library``.
local function view_of(library)
    return setmetatable({}, metas[library] or meta_of(library))
end

K.views = { meta_of = meta_of, view_of = view_of }
