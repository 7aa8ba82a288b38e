"""Error objects."""

from __future__ import annotations

from tests.luaworld import World


def test_kinds_are_camel_case_and_unknown_is_empty(world: World) -> None:
    assert world.main(
        """return { errors.NOT_FOUND, errors.ALREADY_EXISTS, errors.INVALID, errors.PERMISSION_DENIED,
            errors.UNAVAILABLE,
            errors.INTERNAL, errors.CANCELED, errors.CONFLICT, errors.TIMEOUT, errors.RATE_LIMITED, errors.UNKNOWN }"""
    ) == [
        b"NotFound", b"AlreadyExists", b"Invalid", b"PermissionDenied", b"Unavailable",
        b"Internal", b"Canceled", b"Conflict", b"Timeout", b"RateLimited", b"",
    ]  # fmt: skip


def test_an_error_is_asked_by_methods(world: World) -> None:
    assert world.main(
        """local plain = errors.new("plain")
        local full = errors.new({ message = "m", kind = errors.TIMEOUT, retryable = true, details = { a = 1 } })
        return { plain:kind(), plain:retryable() == nil, plain:details() == nil, full:message(), full:kind(),
            full:retryable(),
            full:details().a, tostring(full), "so: " .. full, full.message ~= "m" }"""
    ) == [b"", True, True, b"m", b"Timeout", True, 1, b"m", b"so: m", True]


def test_wrap_keeps_everything_but_the_message(world: World) -> None:
    assert world.main(
        """local err = errors.wrap(errors.new({ message = "low", kind = errors.CONFLICT, retryable = true }), "high")
        return { err:message(), err:kind(), err:retryable(), errors.is(err, errors.CONFLICT), errors.is("x",
            errors.CONFLICT),
            errors.wrap("text", "high"):message() }"""
    ) == [b"high: low", b"Conflict", True, True, False, b"high: text"]


def test_the_stack_names_entries_and_lines(world: World) -> None:
    frame, text = world.main(
        """local function inner()
            local err = errors.new("x")
            return err
        end
        local err = inner()
        local stack = errors.call_stack(err)
        return { stack.frames[1], err:stack() }"""
    )
    assert frame[b"source"] == b"app:main1"
    assert frame[b"line"] == 2
    assert text.startswith(b"app:main1:2")


def test_whatever_a_process_raises_becomes_an_error_object(world: World) -> None:
    def message(raised: str) -> bytes:
        error = world.outcome(f"error({raised}, 0)")[6]
        assert error[b"kind"] in (b"Internal", b"Conflict")
        text: bytes = error[b"message"]
        return text

    assert message("'text'") == b"text"
    assert message("42") == b"42"
    assert message("{ message = 'in a table' }") == b"in a table"
    assert message("{}") == b"(error object is a table value)"
    assert message("nil") == b"(error object is a nil value)"
    assert message("errors.new({ message = 'kept', kind = errors.CONFLICT })") == b"kept"


def test_an_error_of_the_user_with_a_tostring_is_never_asked(world: World) -> None:
    exit = world.outcome("error(setmetatable({}, { __tostring = function() while true do end end }))")
    assert exit[6][b"message"] == b"(error object is a table value)"


def test_wrong_fields_raise(world: World) -> None:
    for argument in ("{}", "1", "{ message = 'm', kind = 1 }", "{ message = 'm', retryable = 'yes' }"):
        assert b"bad argument #1 to 'new'" in world.outcome(f"errors.new({argument})")[6][b"message"]
