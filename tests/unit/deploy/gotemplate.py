"""Renders the subset of Helm's templates that the chart uses, to check it where no helm is.

Actions: define, include, if/else, with, range over maps, pipelines, the functions below.
What is outside the subset raises, so a template can't use something that is not checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|\||[^\s()|]+')


class Template:
    """The templates of a chart: ``{file name: text}``."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._defined: dict[str, list[Any]] = {}
        self._bodies = {name: _Parser(text, self._defined).parse() for name, text in files.items()}

    def render(self, file: str, context: Mapping[str, Any]) -> str:
        return "".join(_Scope(self._defined, context, {"$": context}).run(self._bodies[file]))


class _Parser:
    """Text into a tree: texts, ("print", code), (kind, code, body, otherwise)."""

    def __init__(self, text: str, defined: dict[str, list[Any]]) -> None:
        self._pieces = list(_pieces(text))
        self._defined = defined
        self._at = 0

    def parse(self) -> list[Any]:
        body, end = self._body()
        assert end == "", f"unexpected {end}"
        return body

    def _body(self) -> tuple[list[Any], str]:
        """Up to the end of the block: what ended it is returned too ("", "end" or "else")."""
        body: list[Any] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                body.append(piece)
                continue
            keyword, _, code = piece[0].partition(" ")
            if keyword in ("end", "else"):
                return body, keyword
            if keyword == "define":
                self._defined[code.strip('"')], _ = self._body()
            elif keyword in ("if", "with", "range"):
                inner, end = self._body()
                otherwise = self._body()[0] if end == "else" else []
                body.append((keyword, code, inner, otherwise))
            else:
                body.append(("print", piece[0]))
        return body, ""


def _pieces(text: str) -> Iterator[Any]:
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        yield before.rstrip() if match[1] else before
        yield (match[2],)
        at, trim = match.end(), bool(match[3])
    yield text[at:].lstrip() if trim else text[at:]


class _Scope:
    def __init__(self, defined: dict[str, list[Any]], dot: Any, variables: dict[str, Any]) -> None:
        self._defined = defined
        self._dot = dot
        self._variables = variables

    def run(self, body: list[Any]) -> Iterator[str]:
        for item in body:
            match item:
                case str():
                    yield item
                case ("print", code):
                    yield _text(self._value(code))
                case ("if", code, inner, otherwise):
                    yield from self.run(inner if self._value(code) else otherwise)
                case ("with", code, inner, otherwise):
                    value = self._value(code)
                    scope = self._inside(value) if value else self
                    yield from scope.run(inner if value else otherwise)
                case ("range", code, inner, _):
                    yield from self._range(code, inner)

    def _range(self, code: str, inner: list[Any]) -> Iterator[str]:
        names, _, source = code.partition(":=")
        key, value = (name.strip() for name in names.split(","))
        for each, item in sorted(self._value(source).items()):
            yield from self._inside(item, {key: each, value: item}).run(inner)

    def _inside(self, dot: Any, variables: Mapping[str, Any] | None = None) -> _Scope:
        return _Scope(self._defined, dot, self._variables | dict(variables or {}))

    def _value(self, code: str) -> Any:
        words = _WORD.findall(code)
        value = self._pipeline(words)
        assert not words, f"could not read all of {code!r}"
        return value

    def _pipeline(self, words: list[str]) -> Any:
        value = self._call(words, [])
        while words and words[0] == "|":
            words.pop(0)
            value = self._call(words, [value])
        return value

    def _call(self, words: list[str], piped: list[Any]) -> Any:
        terms: list[Any] = []
        function = words.pop(0) if words[0] in _FUNCTIONS or words[0] == "include" else ""
        while words and words[0] not in ("|", ")"):
            terms.append(self._term(words))
        if function == "include":
            return "".join(self._inside(terms[1]).run(self._defined[terms[0]]))
        if function:
            return _FUNCTIONS[function](*terms, *piped)
        (term,) = terms
        return term

    def _term(self, words: list[str]) -> Any:
        word = words.pop(0)
        if word == "(":
            value = self._pipeline(words)
            assert words.pop(0) == ")"
            return value
        if word.startswith('"'):
            return json.loads(word)
        if word.isdecimal():
            return int(word)
        start, _, path = word.partition(".")
        assert start == "" or start in self._variables, f"outside the subset: {word!r}"
        value = self._variables[start] if start else self._dot
        for part in path.split(".") if path else ():
            value = value[part]
        return value


def _text(value: Any) -> str:
    return {True: "true", False: "false", None: ""}.get(value, str(value)) if not isinstance(value, str) else value


def _printf(form: str, *values: Any) -> str:
    return form % values


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "default": lambda fallback, value: value or fallback,
    "join": lambda separator, values: separator.join(values),
    "nindent": lambda width, text: "\n" + "\n".join(" " * width + line if line else "" for line in text.split("\n")),
    "printf": _printf,
    "quote": lambda value: json.dumps(_text(value)),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "toYaml": lambda value: yaml.safe_dump(value, sort_keys=True, default_flow_style=False).rstrip("\n"),
    "trimSuffix": lambda suffix, text: text.removesuffix(suffix),
    "trunc": lambda length, text: text[:length],
}
