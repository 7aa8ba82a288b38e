"""Typed Lua to plain Lua 5.4: types erased in place, yield points added, syntax checked.

``transform`` gives the text a VM loads; ``analyse`` gives it with what else the pass
learned. Every line number of the source stays true. What only a compiler can know (an
unknown goto label, ``break`` outside a loop) is left to Lua's own ``load``.

    syntax    LuaSyntaxError
    tokens    the scanner
    types     the grammar of type expressions, which are skipped
    grammar   the grammar of statements and expressions, which drives the rest
    chunk     the public verbs
"""

from node.lua.dialect.chunk import Chunk as Chunk
from node.lua.dialect.chunk import analyse as analyse
from node.lua.dialect.chunk import transform as transform
from node.lua.dialect.syntax import LuaSyntaxError as LuaSyntaxError

__all__ = ["Chunk", "LuaSyntaxError", "analyse", "transform"]
