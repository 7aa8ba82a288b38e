"""The grammar of type expressions. Types aren't checked here: they are read to find where they end.

Reads primitives and names (``a.b.C``), generics ``Map<K, V>``, literals, optionals ``T?``,
arrays ``{T}`` and ``T[]``, maps ``{[K]: V}``, records, unions, intersections, function
types, ``readonly``, ``typeof(expression)`` and validators ``@min(0)``. What a program may
write next after a type never continues it, with one exception: ``x :: T < y`` reads ``T<``
as generic unless T is a primitive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NoReturn

from node.lua.dialect.tokens import KEYWORDS, NAME, NUMBER, STRING, Tokens

MAX_DEPTH = 190  # Lua's own limit is 200 levels, some of which its caller uses
TYPE_STARTS = frozenset((NAME, NUMBER, STRING, "true", "false", "nil", "{", "(", "<", "-", "...", "function", "|", "&"))

_PRIMITIVES = frozenset(
    ("any", "boolean", "integer", "nil", "never", "number", "string", "thread", "unknown", "userdata")
)
_LITERALS = frozenset((NUMBER, STRING, "true", "false", "nil", "function"))
_FIELD_NAMES = KEYWORDS | {NAME, STRING}


class TypeGrammar(ABC):
    """Every method takes the index of a first token and returns the index after the last one."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.kinds = tokens.kinds
        self.texts = tokens.texts

    @abstractmethod
    def expression(self, at: int, depth: int) -> int:
        """Read an expression of the language itself: what ``typeof`` and validators hold."""

    def type(self, at: int, depth: int) -> int:
        """Read a type with its unions and intersections."""
        if depth > MAX_DEPTH:
            self.too_deep(at)
        kinds = self.kinds
        if kinds[at] in ("|", "&"):
            at += 1
        at = self._type_part(at, depth)
        while kinds[at] in ("|", "&"):
            at = self._type_part(at + 1, depth)
        return at

    def types(self, at: int, depth: int) -> int:
        """Read one type or several between commas."""
        at = self.type(at, depth)
        while self.kinds[at] == ",":
            at = self.type(at + 1, depth)
        return at

    def type_parameters(self, at: int, depth: int) -> int:
        """Read ``<T, U: Base, V = Default>``; ``at`` is the ``<``."""
        kinds = self.kinds
        while True:
            at += 1
            if kinds[at] == "...":
                at += 1
            at = self.expect(at, NAME, "the name of a type parameter")
            if kinds[at] == ":":
                at = self.type(at + 1, depth + 1)
            if kinds[at] == "=":
                at = self.type(at + 1, depth + 1)
            if kinds[at] != ",":
                return self._close_angle(at)

    def expect(self, at: int, kind: str, what: str = "") -> int:
        """Step over a token of ``kind``. Raises LuaSyntaxError when another one stands there."""
        if self.kinds[at] != kind:
            self.tokens.refuse(at, f"expected {what or repr(kind)}, found {self.tokens.near(at)}")
        return at + 1

    def too_deep(self, at: int) -> NoReturn:
        """Refuse what would need a deeper stack than Lua, or this pass, has."""
        self.tokens.refuse(at, f"nested too deeply, the limit is {MAX_DEPTH} levels; move the inner part into a local")

    def _type_part(self, at: int, depth: int) -> int:
        kinds = self.kinds
        kind = kinds[at]
        if kind == NAME:
            at = self._named(at, depth)
        elif kind == "{":
            at = self._table_type(at + 1, depth + 2)
        elif kind in _LITERALS:
            at += 1
        elif kind == "(":
            at = self._function_type(at, depth + 2)
        elif kind == "<":
            at = self._function_type(self.type_parameters(at, depth + 2), depth + 2)
        elif kind == "-" and kinds[at + 1] == NUMBER:
            at += 2
        elif kind == "...":
            return self._type_part(at + 1, depth + 1)
        else:
            self.tokens.refuse(at, f"expected a type, found {self.tokens.near(at)}")
        return self._type_marks(at, depth)

    def _named(self, at: int, depth: int) -> int:
        kinds = self.kinds
        name, following = self.texts[at], kinds[at + 1]
        if name == "readonly" and following in ("{", "(", NAME):
            return self._type_part(at + 1, depth + 1)
        if name == "typeof" and following == "(":
            return self.expect(self.expression(at + 2, depth + 1), ")")
        if name == "fun" and following == "(":
            return self._function_type(at + 1, depth + 2)
        at += 1
        while kinds[at] == ".":
            at = self.expect(at + 1, NAME, "a name after '.'")
        if name in _PRIMITIVES:
            return at
        if kinds[at] == "<<" and kinds[at + 1] == NAME and kinds[at + 2] in (">", ",", ":", "="):
            self.tokens.split(at)  # the first argument is a generic function type
        if kinds[at] == "<" and not self.is_attribute(at):
            return self._close_angle(self.types(at + 1, depth + 2))
        return at

    def is_attribute(self, at: int) -> bool:
        """Whether ``<const>`` or ``<close>`` begins here; it may follow a type as well as a name."""
        return self.texts[at + 1] in ("const", "close") and self.kinds[at + 2] in (">", ">=")

    def _type_marks(self, at: int, depth: int) -> int:
        kinds = self.kinds
        while True:
            kind = kinds[at]
            if kind in ("?", "!"):
                at += 1
            elif kind == "[" and kinds[at + 1] == "]":
                at += 2
            elif kind == "@":
                at = self._validator(at + 1, depth)
            else:
                return at

    def _validator(self, at: int, depth: int) -> int:
        at = self.expect(at, NAME, "the name of a validator after '@'")
        if self.kinds[at] != "(":
            return at
        at += 1
        while self.kinds[at] != ")":
            at = self.expression(at, depth + 1)
            if self.kinds[at] != ",":
                break
            at += 1
        return self.expect(at, ")")

    def _table_type(self, at: int, depth: int) -> int:
        kinds = self.kinds
        while kinds[at] != "}":
            if kinds[at] == "...":
                at += 1 if kinds[at + 1] == "}" else 0
            if kinds[at] != "}":
                at = self._field_type(at, depth)
            if kinds[at] not in (",", ";"):
                break
            at += 1
        return self.expect(at, "}", "'}' or ',' in a table type")

    def _field_type(self, at: int, depth: int) -> int:
        kinds = self.kinds
        if self.texts[at] == "readonly" and kinds[at + 1] in (NAME, "["):
            at += 1
        if kinds[at] == "[":
            at = self.expect(self.type(at + 1, depth), "]")
            if kinds[at] == "?":
                at += 1
            return self.type(self.expect(at, ":"), depth)
        if kinds[at] in _FIELD_NAMES:
            colon = at + 2 if kinds[at + 1] == "?" else at + 1
            if kinds[colon] == ":":
                at = colon + 1
        return self.type(at, depth)

    def _function_type(self, at: int, depth: int) -> int:
        """Read ``(a: A, B, ...: C) -> R``, or a type or list of types in parentheses."""
        kinds = self.kinds
        at = self.expect(at, "(")
        while kinds[at] != ")":
            at = self._parameter_type(at, depth)
            if kinds[at] != ",":
                break
            at += 1
        at = self.expect(at, ")", "')' or ',' in a list of types")
        if kinds[at] in ("->", ":"):
            return self.type(at + 1, depth)
        return at

    def _parameter_type(self, at: int, depth: int) -> int:
        kinds = self.kinds
        if kinds[at] == "...":
            at += 1
            if kinds[at] in (")", ","):
                return at
            return self.type(at + 1 if kinds[at] == ":" else at, depth)
        if kinds[at] in KEYWORDS or kinds[at] == NAME:
            colon = at + 2 if kinds[at + 1] == "?" else at + 1
            if kinds[colon] == ":":
                at = colon + 1
        return self.type(at, depth)

    def _close_angle(self, at: int) -> int:
        if self.kinds[at] in (">>", ">="):
            self.tokens.split(at)
        return self.expect(at, ">", "'>' or ',' in a list of type parameters")
