"""What was typed at a prompt, made a chunk of Lua: types erased, yield points in place, as any program.

An expression gives its values; ``= expression`` does too. A ``local`` at the top of what was typed outlives it: it is
made a variable of the prompt, so that lines of a program can be pasted one by one (``<close>`` stays a local).
"""

from __future__ import annotations

from node.lua.dialect import LuaSyntaxError, analyse, transform
from node.lua.dialect.tokens import Tokens

CHUNK = "prompt"
LONGEST = 64 * 1024
"""Bytes of one input."""

_OPENS = frozenset(("function", "do", "if", "repeat"))
_CLOSES = frozenset(("end", "until"))
_AT_END = ("the end of the chunk", "is never closed")
"""How the dialect says that it wanted more."""


class Incomplete(LuaSyntaxError):
    """The text is the beginning of a chunk: more is to come."""


class LineTooLong(ValueError):
    """More than a prompt takes at once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def __str__(self) -> str:
        return f"the input has {self.size} bytes; a prompt takes {LONGEST}: put it into an entry and `use` that"


def prepare(text: str) -> str:
    """``text`` as Lua that returns what is to be shown.

    Raises LineTooLong, Incomplete when more is to come, and LuaSyntaxError.
    """
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > LONGEST:
        raise LineTooLong(size)
    stripped = text.lstrip()
    is_marked = stripped.startswith("=") and not stripped.startswith("==")
    try:
        return transform(f"return {stripped[1:] if is_marked else text}", CHUNK)
    except LuaSyntaxError as error:
        as_expression = error
    if is_marked:
        raise _seen(as_expression) from None
    try:
        return analyse(text, CHUNK, _keep_locals).text
    except LuaSyntaxError as error:
        raise _seen(as_expression if _wants_more(as_expression) else error) from None


def _wants_more(error: LuaSyntaxError) -> bool:
    return any(sign in error.message for sign in _AT_END)


def _seen(error: LuaSyntaxError) -> LuaSyntaxError:
    return Incomplete(error.chunk, error.line, error.message) if _wants_more(error) else error


def _keep_locals(tokens: Tokens) -> None:
    """Make the outermost ``local`` assignments to globals."""
    live = [at for at, text in enumerate(tokens.texts) if text.strip()]
    depth = 0
    for position, at in enumerate(live):
        kind = tokens.kinds[at]
        if kind in _OPENS:
            depth += 1
        elif kind in _CLOSES:
            depth -= 1
        elif kind == "local" and depth == 0:
            _make_global(tokens, live[position:])


def _make_global(tokens: Tokens, statement: list[int]) -> None:
    """``statement`` begins with ``local``; what is to be closed stays one."""
    kinds, texts = [*(tokens.kinds[at] for at in statement[:400]), "", "", ""], tokens.texts
    if kinds[1] == "function":
        texts[statement[0]] = " " * len("local")
        return
    after, attributes = 2, []
    while kinds[after] in ("<", ","):
        if kinds[after] == ",":
            after += 2
        elif texts[statement[after + 1]] == "close":
            return
        else:
            attributes += statement[after : after + 3]
            after += 3
    texts[statement[0]] = ";    "  # what came before can't go on here
    for at in attributes:
        texts[at] = " " * len(texts[at])
    if kinds[after] != "=":
        texts[statement[after - 1]] += " = nil"
