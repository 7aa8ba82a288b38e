"""A chunk of typed Lua made ready for a Lua 5.4 VM.

``transform`` is the whole pass: scan, read, erase, add yield points. The text begins with
the two locals the points count with, on the first line (the kernel puts its own in their
place); ``__w_yield`` is a global that the VM provides and that returns how many points the next
turn may pass.

The names of ``type`` statements that the chunk also reads as variables are told to the VM's
``__w_type`` before anything else runs: it makes them globals of the chunk. A name that only
annotates leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from node.lua.dialect.grammar import POINT, Grammar
from node.lua.dialect.tokens import EOF, NAME, STRING, Tokens

PROLOGUE = "local __w_b,__w_y=0,__w_yield;"

# Lua allows 200 locals in a function. A chunk that may come near keeps the pass's own two outside of it.
_PLAIN_LOCALS = 190
_WRAP, _UNWRAP = "return(function(...) ", " end)(...)"


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one pass gives: the ``text`` to load, and each literal ``require`` with the line of its first use."""

    text: str
    requires: Mapping[str, int]


def transform(source: str, chunk: str) -> str:
    """Typed Lua to plain Lua 5.4 with yield points, line for line. Raises LuaSyntaxError naming ``chunk``."""
    return analyse(source, chunk).text


def analyse(source: str, chunk: str, change: Callable[[Tokens], None] | None = None) -> Chunk:
    """``transform`` and what else the pass learned. Raises LuaSyntaxError naming ``chunk``.

    ``change`` may give tokens of the chunk other texts, once it is known to be Lua; what was erased is blank.
    """
    tokens = Tokens(source, chunk)
    requires = _requires(tokens)
    grammar = Grammar(tokens)
    grammar.read()
    if change is not None:
        change(tokens)
    prologue = PROLOGUE + _types_read(grammar)
    _add_points(tokens, grammar.points)
    if grammar.most_locals <= _PLAIN_LOCALS:
        return Chunk(prologue + tokens.join(), requires)
    tokens.texts[tokens.kinds.index(EOF) - 1] += _UNWRAP  # not behind it: the chunk may end in a comment
    return Chunk(prologue + _WRAP + tokens.join(), requires)


def _requires(tokens: Tokens) -> dict[str, int]:
    """``require("x")``, ``require "x"`` and ``require[[x]]``; the first line of each."""
    kinds, texts = tokens.kinds, tokens.texts
    found: dict[str, int] = {}
    for at in _places(tokens, "require"):
        if at and kinds[at - 1] in (".", ":", "function", "local"):
            continue
        argument = at + 2 if kinds[at + 1] == "(" else at + 1
        if kinds[argument] == STRING and (argument == at + 1 or kinds[argument + 1] == ")"):
            found.setdefault(_content(texts[argument]), tokens.line(at))
    return found


def _content(literal: str) -> str:
    """The text of a string literal; escape sequences stay as they are written."""
    if literal[0] != "[":
        return literal[1:-1]
    opener = literal.index("[", 1) + 1
    return literal[opener:-opener].removeprefix("\r").removeprefix("\n")


def _types_read(grammar: Grammar) -> str:
    """The call that gives the VM each type name the chunk reads as a variable and gives no value of its own."""
    aliases, kinds = grammar.aliases, grammar.kinds
    if not aliases:
        return ""
    read: set[str] = set()
    own: set[str] = set()
    for at in [at for at, text in enumerate(grammar.texts) if text in aliases]:
        if at in grammar.assigned:
            own.add(grammar.texts[at])
        elif not (at in grammar.bound or at in grammar.keys or (at and kinds[at - 1] in (".", ":", "::", "goto"))):
            read.add(grammar.texts[at])
    names = ",".join(f'"{name}"' for name in sorted(read - own))
    return f"__w_type(_ENV,{{{names}}});" if names else ""


def _add_points(tokens: Tokens, statements: list[int]) -> None:
    """A yield point before each of these; not before what was erased: it may be all that follows a label."""
    for at in statements:
        if not tokens.texts[at].isspace() and tokens.texts[at]:
            tokens.texts[at] = POINT + tokens.texts[at]


def _places(tokens: Tokens, name: str) -> Iterator[int]:
    """The tokens that are the name ``name``, without those erased."""
    at = -1
    while True:
        try:
            at = tokens.texts.index(name, at + 1)
        except ValueError:
            return
        if tokens.kinds[at] == NAME:
            yield at
