from __future__ import annotations

import re
import time

import pytest

from cluster.registry.pattern import BadPattern, Pattern

TEXTS = [
    "",
    "a",
    "ab",
    "aab",
    "abc",
    "ABC",
    "a.b",
    "a-b_c",
    "foo bar",
    "foo\nbar",
    "123",
    "x12y",
    "[x]",
    "a{2}",
    "日本",
    "\\",
]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "a",
        "a*",
        "^a+b$",
        "a|bc",
        "(ab|a)c",
        "^(a|b)*$",
        "a?b",
        "[a-c]+$",
        "[^a-z]",
        "[]x]",
        r"\d{2,3}",
        r"\bbar",
        r"o\B",
        r"^\w+$",
        r"\s",
        r"a\.b",
        r"a.b",
        "a{2}",
        "(?:a{0,1}){2}b",
        "(?i)abc",
        "(?i)[A-B]C",
        "x{,2}",
        r"[\d_-]",
        r"\\",
        "a{0}b",
        "(?P<n>a)b",
        "^$",
        "a*?b",
        "()",
        "|a",
        r"[\]a]",
        "日",
    ],
)
def test_it_finds_what_re_finds(source: str) -> None:
    if source == "x{,2}":  # RE2 takes these braces for themselves, Python counts
        assert Pattern(source).search("x{,2}")
        return
    pattern = Pattern(source)
    flags = re.ASCII if "\\" in source else 0
    for text in TEXTS:
        expected = re.search(source.replace("$", r"\Z"), text, flags) is not None
        assert pattern.search(text) is expected, (source, text)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("(a+)+$", "a" * 8000 + "b"),
        ("(a|a)*c", "a" * 8000),
        ("a*a*a*a*a*a*a*b", "a" * 8000),
        ("(.*){20}x", "y" * 8000),
        ("([a-z]+)*[0-9]", "a" * 8000),
    ],
)
def test_no_pattern_makes_it_slow(source: str, text: str) -> None:
    pattern = Pattern(source)
    began = time.process_time()
    assert not pattern.search(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "source",
    [
        "(",
        ")",
        "a)",
        "[a",
        "*",
        "a**",
        "a{2}{3}",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        r"(a)\1",
        r"\p",
        "\\",
        "a{3,2}",
        "[z-a]",
        r"[\q]",
        "a{5000}",
        "((a{90}){90}){90}",
        "(" * 60 + ")" * 60,
        "x" * 600,
    ],
)
def test_what_is_outside_the_syntax_or_the_limits_is_refused(source: str) -> None:
    with pytest.raises(BadPattern):
        Pattern(source)
