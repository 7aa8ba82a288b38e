-- Module supervisor: the children of a supervisor, given by its PID, its name or its entry's id.
return function(env)
    local call = env.call
    local error, type = error, type
    local supervisor = {}

    local function check_text(value, position, name, what)
        if type(value) ~= "string" then
            local text = "bad argument #" .. position .. " to '" .. name .. "' (" .. what .. " expected, got " .. type(value) .. ")"
            error(text, 3)
        end
    end

    -- A table for a supervisor with fixed children; the arguments of the new process for a dynamic one.
    function supervisor.start_child(target, ...)
        check_text(target, 1, "start_child", "PID, name or id of a supervisor")
        return call("supervisor", "start_child", target, ...)
    end

    for _, name in next, { "terminate_child", "restart_child", "delete_child" } do
        supervisor[name] = function(target, child)
            check_text(target, 1, name, "PID, name or id of a supervisor")
            check_text(child, 2, name, "id or PID of a child")
            return call("supervisor", name, target, child)
        end
    end

    for _, name in next, { "which_children", "count_children" } do
        supervisor[name] = function(target)
            check_text(target, 1, name, "PID, name or id of a supervisor")
            return call("supervisor", name, target)
        end
    end

    return supervisor
end
