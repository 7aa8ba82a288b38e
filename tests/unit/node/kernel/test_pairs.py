"""``pairs`` walks maps in the order of their keys, so that every run and every node does the same."""

from __future__ import annotations

from tests.luaworld import World


def test_a_map_is_walked_in_the_order_of_its_keys(world: World) -> None:
    walked = world.main(
        "local seen = {} for key in pairs({ name = 1, version = 2, lang = 3, [10] = 4, [2.5] = 5 }) do "
        "seen[#seen + 1] = tostring(key) end return table.concat(seen, ' ')"
    )
    assert walked == b"2.5 10 lang name version"


def test_an_array_is_walked_from_its_first_item(world: World) -> None:
    assert world.main("local n = 0 for i, v in pairs({ 5, 6, 7 }) do n = n * 100 + i * 10 + v end return n") == 152637


def test_an_item_removed_on_the_way_is_not_visited(world: World) -> None:
    source = "local t, n = { a = 1, b = 2, c = 3 }, 0 for key in pairs(t) do n = n + 1 t.b = nil end return n"
    assert world.main(source) == 2


def test_an_item_may_be_changed_on_the_way(world: World) -> None:
    source = "local t = { a = 1, b = 2 } for key, item in pairs(t) do t[key] = item * 2 end return t.a * 10 + t.b"
    assert world.main(source) == 24


def test_a_large_map_is_walked_whole(world: World) -> None:
    source = "local t, n = {}, 0 for i = 1, 5000 do t['k' .. i] = i end for _, v in pairs(t) do n = n + v end return n"
    assert world.main(source) == 5000 * 5001 // 2


def test_a_metamethod_has_its_way(world: World) -> None:
    source = (
        "local t = setmetatable({ a = 1 }, { __pairs = function() return function(_, k) if not k then return "
        "'x', 9 end end end })"
        " for key, item in pairs(t) do return key .. item end"
    )
    assert world.main(source) == b"x9"


def test_what_is_no_table_is_refused_as_lua_does(world: World) -> None:
    assert b"table expected, got nil" in world.main("return select(2, pcall(pairs, nil))")
