"""What guarding the string functions costs on everyday patterns, beside Lua's own in the same VM.

python -m tests.bench.bench_patterns

Prints one JSON line: nanoseconds of a call, guarded and native, and their ratio. Each is the best of five.
"""

from __future__ import annotations

import json

from tests.barepatterns import bare_lua, load_patterns

FIGURES = ("pattern_guard_ratio",)

MEASURE = b"""
local guarded = (...)({})
local text, same = "key = value and more", function(word) return word end
local calls = {
    match = { "match", "^(%w+)%s*=%s*(%w+)" },
    find = { "find", "=%s" },
    gsub = { "gsub", "%s+", "-" },
    gsub_function = { "gsub", "%w+", same },
}
local function nanoseconds(f, pattern, by)
    local best = math.huge
    for _ = 1, 5 do
        local began = os.clock()
        for _ = 1, 50000 do f(text, pattern, by) end
        best = math.min(best, os.clock() - began)
    end
    return best / 50000 * 1e9
end
return function(name)
    local call = calls[name]
    return nanoseconds(string[call[1]], call[2], call[3]), nanoseconds(guarded[call[1]], call[2], call[3])
end
"""


def main() -> None:
    lua = bare_lua()
    measure = lua.execute(MEASURE, load_patterns(lua))
    figures: dict[str, object] = {"figure": FIGURES[0]}
    for name in ("find", "match", "gsub", "gsub_function"):
        native, guarded = measure(name.encode())
        figures[name] = {"guarded_ns": round(guarded), "peer_ns": round(native), "ratio": round(guarded / native, 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
