"""Module json as a process uses it; Python's own json is the referee where the two agree."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.lua.dialect import transform
from tests.unit.node.lua.conftest import Vm


@pytest.fixture(scope="module")
def module() -> Vm:
    vm = Vm()
    vm.lua.globals()[b"make"] = vm.load("node.modules", "json.lua")
    vm.run("json = make({ errors = errors })")
    return vm


def encode(vm: Vm, expression: str) -> Any:
    return vm.run(f"local text, err = json.encode({expression}) return text, err and err:kind(), err and tostring(err)")


class TestEncode:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("nil", "null"),
            ("true", "true"),
            ("false", "false"),
            ("42", "42"),
            ("math.maxinteger", "9223372036854775807"),
            ("math.mininteger", "-9223372036854775808"),
            ("99.50", "99.5"),
            ("5.0", "5"),
            ("-0.0", "-0"),
            ("0.1 + 0.2", "0.30000000000000004"),
            ("1e21", "1e+21"),
            ("5e-324", "4.94065645841247e-324"),
            ("2^63", "9.223372036854776e+18"),
            ("0/0", "null"),
            ("1/0", "null"),
            ("-1/0", "null"),
            ("{}", "[]"),
            ("{1, 2, 3}", "[1,2,3]"),
            ("{{}, {{}}}", "[[],[[]]]"),
            ("{b = 1, a = {c = {true}}, [' '] = 0}", '{" ":0,"a":{"c":[true]},"b":1}'),
            (r"'a\n\0\31\127\"\\/'", '"a\\n\\u0000\\u001f\x7f\\"\\\\/"'),
            (r"'\u{20AC}\u{1F600}'", '"€😀"'),
            (r"'a\xFFb\xE2\x82c\xED\xA0\x80'", '"a�b��c���"'),
        ],
    )
    def test_a_value_has_one_text(self, module: Vm, value: str, text: str) -> None:
        assert module.run(f"return json.encode({value})").decode() == text

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("{1, nil, 3}", "a sparse array (its indices are not 1 to n) at the value itself"),
            ("{[2] = 1}", "a sparse array"),
            ("{[1.5] = 1}", "a sparse array"),
            ("{a = {b = {1, c = 2}}}", "a table with both string keys and others at a.b"),
            ("{c = 2, 1}", "a table with both string keys and others"),
            ("{[true] = 1}", "a key that is a boolean"),
            ("{items = {1, {['a b'] = print}}}", 'a function at items[2]["a b"]'),
            ("coroutine.create(print)", "a thread at the value itself"),
            ("(function() local t = {} t.x = {t} return t end)()", "a table that contains itself at x[1].x"),
            (
                "(function() local t = {} for i = 1, 128 do t = {t} end return t end)()",
                "nesting deeper than 128 levels",
            ),
            ("errors.new({kind = 'X', message = 'boom'})", "an object of the runtime, boom"),
        ],
    )
    def test_what_has_no_text_is_refused_with_its_place(self, module: Vm, value: str, reason: str) -> None:
        text, kind, message = encode(module, value)
        assert (text, kind) == (None, b"Internal")
        assert reason in message.decode()

    def test_128_levels_are_encoded(self, module: Vm) -> None:
        assert module.run("local t = {} for i = 1, 127 do t = {t} end return #json.encode(t)") == 256

    def test_a_table_shared_by_two_fields_is_written_twice(self, module: Vm) -> None:
        assert module.run("local t = {1} return json.encode({t, t})") == b"[[1],[1]]"

    def test_a_text_that_would_grow_without_end_is_refused(self, module: Vm) -> None:
        _, _, message = encode(
            module, "(function() local t = ('x'):rep(100000) for i = 1, 40 do t = {t, t} end return t end)()"
        )
        assert b"a text over 64 MiB" in message

    def test_coroutines_pre_empted_in_the_middle_do_not_mix(self, vm: Vm) -> None:
        source = resources.files("node.modules").joinpath("json.lua").read_text(encoding="utf-8")
        vm.run("__w_yield = function() if coroutine.isyieldable() then coroutine.yield() end return 3 end")
        vm.lua.globals()[b"make"] = vm.run(transform(source, "json"))
        results = vm.run("""
            local json, threads, texts = make({ errors = errors }), {}, {}
            for n = 1, 3 do
                threads[n] = coroutine.create(function() texts[n] = json.encode({ n, { n, { k = n } }, { n } }) end)
            end
            local turns = 0
            repeat
                local left = false
                for n = 1, 3 do
                    if coroutine.status(threads[n]) ~= "dead" then
                        assert(coroutine.resume(threads[n]))
                        left, turns = true, turns + 1
                    end
                end
            until not left
            return texts[1], texts[2], texts[3], turns
        """)
        assert results[:3] == tuple(b'[%d,[%d,{"k":%d}],[%d]]' % (n, n, n, n) for n in (1, 2, 3))
        assert results[3] > 6

    def test_metamethods_are_not_called(self, module: Vm) -> None:
        hostile = "setmetatable({a = 1}, {__index = error, __pairs = error, __len = error, __tostring = error})"
        assert module.run(f"return json.encode({hostile})") == b'{"a":1}'


class TestDecode:
    @pytest.mark.parametrize(
        "text",
        [
            "1",
            "-12",
            "1.5e-3",
            "[1, 2 ,3]",
            ' { "a" : [ { } , [ ] ] , "b" : "x" } ',
            '"\\u00e9\\ud83d\\ude00\\n\\/"',
            '{"a\\u0062":{"c":false}}',
            "9223372036854775807",
            '""',
            '{"":1}',
        ],
    )
    def test_what_was_decoded_encodes_to_the_same(self, module: Vm, text: str) -> None:
        module.lua.globals()[b"text"] = text.encode()
        again = module.run("return json.encode(assert(json.decode(text)))")
        assert json.loads(again) == json.loads(text)

    def test_integers_stay_integers_and_big_ones_become_floats(self, module: Vm) -> None:
        kinds = module.run(
            "local t = json.decode('[1, 1.0, 9223372036854775807, 9223372036854775808, -9223372036854775808]') "
            "for i, v in ipairs(t) do t[i] = math.type(v) end return table.concat(t, ' ')"
        )
        assert kinds == b"integer float integer float integer"

    def test_null_is_absent(self, module: Vm) -> None:
        assert module.run('local t = json.decode(\'{"a":null,"b":1}\') return t.a, t.b') == (None, 1)
        assert module.run("local t = json.decode('[1,null,3]') return t[1], t[2], t[3]") == (1, None, 3)
        assert module.run("return json.decode('null')") is None

    def test_an_empty_object_stays_one(self, module: Vm) -> None:
        assert (
            module.run("""return json.encode(json.decode('[{}, [], {"a":{}}, {"b":null}]'))""")
            == b'[{},[],{"a":{}},{}]'
        )
        assert module.run("local t = json.decode('{}') t[1] = 5 return json.encode(t)") == b"[5]"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "unexpected end of the text (line 1, column 1)"),
            ("[1,", "unexpected end of the text (line 1, column 4)"),
            ("[1,]", "expected a value (line 1, column 4)"),
            ("[1 2]", "expected ',' or ']' in an array (line 1, column 4)"),
            ('{"a":1,}', "expected a key in double quotes (line 1, column 8)"),
            ('{"a" 1}', "expected ':' after a key (line 1, column 6)"),
            ('{"a\\n" 1}', "expected ':' after a key (line 1, column 8)"),
            ("{a:1}", "expected a key in double quotes (line 1, column 2)"),
            ('{"a":1 "b":2}', "expected ',' or '}' in an object (line 1, column 8)"),
            ('"abc', "string without an end (line 1, column 1)"),
            ('\n"a\nb"', "control character in a string; write it as an escape sequence (line 2, column 3)"),
            ('"\\x"', "unknown escape sequence (line 1, column 2)"),
            ('"\\u12g4"', "unknown escape sequence (line 1, column 2)"),
            ("01", "number with a leading zero"),
            ("-", "expected a value"),
            ("+1", "expected a value"),
            (".5", "expected a value"),
            ("1.", "number without digits after the point"),
            ("1e", "number without digits in its exponent"),
            ("1e999", "number too large"),
            ("NaN", "expected a value"),
            ("tru", "expected a value"),
            ("1 2", "unexpected text after the value (line 1, column 3)"),
            ("[\n 1,\n x]", "expected a value (line 3, column 2)"),
            ("[" * 129 + "]" * 129, "nesting deeper than 128 levels"),
        ],
    )
    def test_a_fault_is_named_with_its_place(self, module: Vm, text: str, reason: str) -> None:
        module.lua.globals()[b"text"] = text.encode()
        value, kind, message = module.run("local v, e = json.decode(text) return v, e:kind(), e:message()")
        assert (value, kind) == (None, b"Internal")
        assert message.decode().startswith("invalid JSON: ")
        assert reason in message.decode()

    def test_a_lone_surrogate_becomes_the_replacement_character(self, module: Vm) -> None:
        assert module.run(r"""return json.decode('"\\ud83d x \\udc00 \\ud83d\\u0041"')""").decode() == "� x � �A"

    def test_only_texts_can_be_decoded(self, module: Vm) -> None:
        assert b"expected a string, got table" in module.run("return tostring(select(2, json.decode({})))")


def test_schemas_are_said_to_be_missing(module: Vm) -> None:
    for verb in ("validate", "validate_string"):
        value, kind, message = module.run(f"local v, e = json.{verb}({{}}, '1') return v, e:kind(), e:message()")
        assert (value, kind) == (None, b"Unavailable")
        assert verb.encode() in message


DOCUMENTS = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(DOCUMENTS, st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_any_document_survives_the_way_there_and_back(module: Vm, document: Any, indent: int | None) -> None:
    module.lua.globals()[b"text"] = json.dumps(document, indent=indent, ensure_ascii=indent is None).encode()
    assert json.loads(module.run("return json.encode(json.decode(text))")) == document


@given(st.text('[]{}:,"\\ \n0123456789-+.eEtruefalsn/bu', max_size=20))
@settings(max_examples=300, deadline=None)
def test_the_module_agrees_with_python_on_what_is_json(module: Vm, text: str) -> None:
    module.lua.globals()[b"text"] = text.encode()
    refused = module.run("local v, e = json.decode(text) return e ~= nil")
    try:
        value = json.loads(text)
    except ValueError:
        assert refused
    else:
        assert not refused or json.dumps(value).find("Infinity") >= 0
