local store = require("store")

--- The count as it is stored, whether the counter runs or not.
local function main()
    local counts, err = store.get("app:counts")
    if err then
        return nil, err
    end
    return { count = counts:get("count") or 0 }
end

return { main = main }
