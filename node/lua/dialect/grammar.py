"""The grammar of statements and expressions: checks the syntax, erases types, adds yield points.

Recursive descent over the scanner's lists; precedence doesn't matter to what is erased, so
an expression is read as a flat row of operands and operators. All work is done in place:
a type becomes white space, a yield point is appended to the token it follows. Where an
erased token was all that kept two statements apart (``x = y :: T`` before ``(f)()``), a
semicolon takes its place.

Yield points stand at the head of each loop and function body and before each ``goto``
that goes back. No program runs for ever without passing one.
"""

from __future__ import annotations

from typing import NoReturn

from node.lua.dialect.tokens import EOF, NAME, NUMBER, STRING, Tokens
from node.lua.dialect.types import MAX_DEPTH, TYPE_STARTS, TypeGrammar

POINT = " __w_b=__w_b-1 if __w_b<0 then __w_b=__w_y() end "

_DO, _REPEAT, _CLOSE, _GOTO = "do" + POINT, "repeat" + POINT, ")" + POINT, POINT + "goto"
_ATOMS = frozenset((NUMBER, STRING, "nil", "true", "false", "..."))
_UNARY = frozenset(("not", "-", "#", "~"))
_BINARY = frozenset(
    ("or", "and", "<", ">", "<=", ">=", "~=", "==", "|", "~", "&", "<<", ">>", "..", "+", "-", "*", "/", "//", "%", "^")
)
_SUFFIXES = frozenset((".", ":", "[", "(", "{", STRING, "!"))
_ARGUMENTS = frozenset(("(", "{", STRING))
_AFTER = frozenset(("::", "!", NAME))  # what may be a cast or an assertion behind an expression
_BLOCK_ENDS = frozenset(("end", "else", "elseif", "until", EOF))
_COMPARING = frozenset(("<", ">", "<=", ">=", "~=", "=="))
_STRAIGHT = 64
"""Tokens of a block after which a point goes between two statements: each of them may be slow on huge values."""
MAX_COMPARISONS = 64
"""Of values that are no literals, in one statement: between them no point can be."""


class Grammar(TypeGrammar):
    """One pass over a chunk; the tokens are changed in place and the attributes say what was seen."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        self.most_locals = 0  # an upper bound for every function of the chunk
        self.bound: set[int] = set()  # tokens that name a new local or a parameter
        self.assigned: set[int] = set()  # tokens that name a variable which is given a value
        self.keys: set[int] = set()  # tokens that name a field in a table constructor
        self.aliases: set[str] = set()  # the names of the type statements
        self.points: list[int] = []  # statements that get a point before them
        self._comparisons = 0  # of the statement being read
        self._locals = 0  # of the function being read
        self._labels: set[str] = set()
        self._targets: set[str] | None = None
        self._statements = {
            "local": self._local,
            "if": self._if,
            "return": self._return,
            "for": self._for,
            "function": self._function,
            "while": self._while,
            "repeat": self._repeat,
            "do": self._do,
            "break": self._step,
            ";": self._step,
            "goto": self._goto,
            "::": self._label,
            "(": self._call_or_assignment,
        }

    def read(self) -> None:
        """Read the whole chunk. Raises LuaSyntaxError."""
        at = self._block(0, 1)
        if self.kinds[at] != EOF:
            self._refuse(at, f"unexpected {self.tokens.near(at)}: no open block it could belong to")
        self.most_locals = max(self.most_locals, self._locals)

    # statements

    def _block(self, at: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            self.too_deep(at)
        kinds = self.kinds
        statement = self._statements.get
        last = at
        while True:
            kind = kinds[at]
            self._comparisons = 0
            if at - last > _STRAIGHT and (kind == NAME or kind == "local"):
                self.points.append(at)
                last = at
            if kind == NAME:
                at = self._name(at, depth)
            elif read := statement(kind):
                at = read(at, depth)
            elif kind in _BLOCK_ENDS:
                return at
            else:
                self._refuse(at, f"expected a statement, found {self.tokens.near(at)}")

    def _end(self, at: int, opened: int) -> int:
        if self.kinds[at] != "end":
            line = self.tokens.line(opened)
            word = self.kinds[opened]
            self._refuse(at, f"expected 'end' to close the '{word}' of line {line}, found {self.tokens.near(at)}")
        return at + 1

    def _step(self, at: int, depth: int) -> int:
        return at + 1

    def _local(self, at: int, depth: int) -> int:
        kinds, bound = self.kinds, self.bound
        at += 1
        if kinds[at] == "function":
            bound.add(at + 1)
            self._locals += 1
            return self._body(self.expect(at + 1, NAME, "the name of the function"), depth, at)
        while True:
            if kinds[at] != NAME:
                self._refuse(at, f"expected a name after 'local', found {self.tokens.near(at)}")
            bound.add(at)
            self._locals += 1
            at += 1
            kind = kinds[at]
            if kind == "<" or kind == ":":
                at = self._attribute_and_type(at, depth)
                kind = kinds[at]
            if kind == "=":
                return self._expressions(at + 1, depth)
            if kind != ",":
                return at
            at += 1

    def _attribute_and_type(self, at: int, depth: int) -> int:
        kinds = self.kinds
        if kinds[at] == "<":
            at = self._attribute(at)
        if kinds[at] == ":":
            at = self._annotation(at, depth)
            if kinds[at] == "<":
                at = self._attribute(at)
        return at

    def _attribute(self, at: int) -> int:
        if self.texts[at + 1] not in ("const", "close"):
            self._refuse(at + 1, f"unknown attribute {self.tokens.near(at + 1)}; expected <const> or <close>")
        return self.expect(at + 2, ">")

    def _annotation(self, at: int, depth: int) -> int:
        after = self.type(at + 1, depth + 1)
        self.tokens.erase(at, after)
        return after

    def _if(self, at: int, depth: int) -> int:
        kinds = self.kinds
        opened = at
        while True:
            at = self.expression(at + 1, depth + 1)
            at = self._block(self.expect(at, "then", "'then' after the condition"), depth + 1)
            if kinds[at] == "elseif":
                continue
            if kinds[at] == "else":
                at = self._block(at + 1, depth + 1)
            return self._end(at, opened)

    def _return(self, at: int, depth: int) -> int:
        kinds = self.kinds
        at += 1
        if kinds[at] not in _BLOCK_ENDS and kinds[at] != ";":
            at = self._expressions(at, depth)
        if kinds[at] == ";":
            at += 1
        if kinds[at] not in _BLOCK_ENDS:
            self._refuse(at, f"expected the block to end after 'return', found {self.tokens.near(at)}")
        return at

    def _loop_body(self, at: int, depth: int, opened: int) -> int:
        after = self.expect(at, "do", f"'do' of the '{self.kinds[opened]}' loop")
        self.texts[at] = _DO
        return self._end(self._block(after, depth + 1), opened)

    def _while(self, at: int, depth: int) -> int:
        return self._loop_body(self.expression(at + 1, depth + 1), depth, at)

    def _for(self, at: int, depth: int) -> int:
        kinds = self.kinds
        opened = at
        at = self._for_name(at + 1, depth)
        if kinds[at] == "=":
            at = self.expression(at + 1, depth + 1)
            at = self.expression(self.expect(at, ",", "',' and the limit of the loop"), depth + 1)
            if kinds[at] == ",":
                at = self.expression(at + 1, depth + 1)
        else:
            while kinds[at] == ",":
                at = self._for_name(at + 1, depth)
            at = self._expressions(self.expect(at, "in", "'=' or 'in' after the names of the loop"), depth)
        return self._loop_body(at, depth, opened)

    def _for_name(self, at: int, depth: int) -> int:
        after = self.expect(at, NAME, "a name after 'for'")
        self.bound.add(at)
        self._locals += 5  # the name and up to four hidden locals of the loop
        return self._annotation(after, depth) if self.kinds[after] == ":" else after

    def _do(self, at: int, depth: int) -> int:
        return self._end(self._block(at + 1, depth + 1), at)

    def _repeat(self, at: int, depth: int) -> int:
        opened = at
        self.texts[at] = _REPEAT
        at = self._block(at + 1, depth + 1)
        if self.kinds[at] != "until":
            line = self.tokens.line(opened)
            self._refuse(at, f"expected 'until' to close the 'repeat' of line {line}, found {self.tokens.near(at)}")
        return self.expression(at + 1, depth + 1)

    def _function(self, at: int, depth: int) -> int:
        kinds = self.kinds
        opened = at
        at = self.expect(at + 1, NAME, "the name of the function")
        if kinds[at] not in (".", ":"):
            self.assigned.add(opened + 1)
        while kinds[at] == ".":
            at = self.expect(at + 1, NAME, "a name after '.'")
        if kinds[at] == ":":
            at = self.expect(at + 1, NAME, "the name of the method after ':'")
        return self._body(at, depth, opened)

    def _goto(self, at: int, depth: int) -> int:
        after = self.expect(at + 1, NAME, "the name of a label after 'goto'")
        if self.texts[at + 1] in self._labels:
            self.texts[at] = _GOTO
        return after

    def _label(self, at: int, depth: int) -> int:
        after = self.expect(at + 1, NAME, "the name of the label")
        self._labels.add(self.texts[at + 1])
        return self.expect(after, "::", "'::' after the name of the label")

    def _name(self, at: int, depth: int) -> int:
        if self.texts[at] in ("type", "export"):
            named = at + 1
            if self.texts[at] == "export" and self.texts[named] == "type":
                named += 1
            if (named > at + 1 or self.texts[at] == "type") and self.kinds[named] == NAME:
                return self._type_statement(at, named, depth)
        return self._call_or_assignment(at, depth)

    def _type_statement(self, at: int, named: int, depth: int) -> int:
        kinds = self.kinds
        self.aliases.add(self.texts[named])
        after = named + 1
        if kinds[after] == "<":
            after = self.type_parameters(after, depth + 1)
        after = self.type(self.expect(after, "=", "'=' and a type"), depth + 1)
        self.tokens.erase(at, after)
        return self._part(at, after)

    def _call_or_assignment(self, at: int, depth: int) -> int:
        kinds = self.kinds
        after = self._operand(at, depth)
        kind = kinds[after]
        if kind != "=" and kind != ",":
            if not self._is_call(at, after):
                found = self.tokens.near(after)
                self._refuse(after, f"expected '=' or a call, an expression alone is no statement; found {found}")
            return after
        self._check_target(at, after)
        while kind == ",":
            at = after + 1
            if kinds[at] != NAME and kinds[at] != "(":
                self._refuse(at, f"expected a variable, found {self.tokens.near(at)}")
            after = self._operand(at, depth)
            self._check_target(at, after)
            kind = kinds[after]
        return self._expressions(self.expect(after, "=", "'=' of the assignment"), depth)

    def _is_call(self, at: int, after: int) -> bool:
        last = after - 1
        while self.kinds[last] == "!":
            last -= 1
        return last > at and self.kinds[last] in (")", "}", STRING) and not self._is_group(at, after)

    def _is_group(self, at: int, after: int) -> bool:
        """Whether the operand is nothing but one pair of parentheses."""
        if self.kinds[at] != "(":
            return False
        open_groups = 0
        for here in range(at, after):
            kind = self.kinds[here]
            open_groups += (kind == "(") - (kind == ")")
            if open_groups == 0:
                return all(kind == "!" for kind in self.kinds[here + 1 : after])
        return False

    def _check_target(self, at: int, after: int) -> None:
        if self._is_call(at, after) or self._is_group(at, after):
            self._refuse(after, "can't assign to a call or to an expression in parentheses")
        if after == at + 1:
            self.assigned.add(at)

    # expressions

    def _expressions(self, at: int, depth: int) -> int:
        at = self.expression(at, depth + 1)
        while self.kinds[at] == ",":
            at = self.expression(at + 1, depth + 1)
        return at

    def expression(self, at: int, depth: int) -> int:
        """Read operands and the operators between them."""
        if depth > MAX_DEPTH:
            self.too_deep(at)
        kinds = self.kinds
        while True:
            kind = kinds[at]
            while kind in _UNARY:
                at += 1
                kind = kinds[at]
            if kind == NAME:
                at += 1
                if kinds[at] in _SUFFIXES:
                    at = self._suffixes(at, depth)
            elif kind in _ATOMS:
                at += 1
            elif kind == "{":
                at = self._table(at, depth + 1)
            elif kind == "function":
                at = self._body(at + 1, depth, at)
            elif kind == "(":
                at = self._operand(at, depth)
            else:
                self._refuse(at, f"expected an expression, found {self.tokens.near(at)}")
            kind = kinds[at]
            if kind in _AFTER:
                at = self._casts(at, depth)
                kind = kinds[at]
            if kind in _COMPARING and kinds[at + 1] not in _ATOMS:
                self._compare(at)
            elif kind not in _BINARY:
                return at
            at += 1

    def _operand(self, at: int, depth: int) -> int:
        """Read a name or an expression in parentheses with all that is indexed and called on it."""
        if self.kinds[at] == "(":
            opened = at
            at = self.expression(at + 1, depth + 1)
            if self.kinds[at] != ")":
                self._unclosed(at, opened, ")")
        at += 1
        return self._suffixes(at, depth) if self.kinds[at] in _SUFFIXES else at

    def _suffixes(self, at: int, depth: int) -> int:
        kinds = self.kinds
        while True:
            kind = kinds[at]
            if kind == ".":
                at = at + 2 if kinds[at + 1] == NAME else self.expect(at + 1, NAME, "a name after '.'")
            elif kind == "(":
                at = self._arguments(at, depth)
            elif kind == ":":
                if kinds[at + 1] != NAME or kinds[at + 2] not in _ARGUMENTS:
                    self._no_method(at)
                at += 2
            elif kind == "[":
                opened = at
                at = self.expression(at + 1, depth + 1)
                if kinds[at] != "]":
                    self._unclosed(at, opened, "]")
                at += 1
            elif kind == STRING:
                at += 1
            elif kind == "{":
                at = self._table(at, depth + 1)
            elif kind == "!" and not self._is_not_equal(at):
                self.tokens.erase(at, at + 1)
                at += 1
            else:
                return at

    def _arguments(self, at: int, depth: int) -> int:
        kinds = self.kinds
        opened = at
        at += 1
        if kinds[at] == ")":
            return at + 1
        at = self.expression(at, depth + 1)
        while kinds[at] == ",":
            at = self.expression(at + 1, depth + 1)
        if kinds[at] != ")":
            self._unclosed(at, opened, ")")
        return at + 1

    def _table(self, at: int, depth: int) -> int:
        kinds, keys = self.kinds, self.keys
        opened = at
        at += 1
        while kinds[at] != "}":
            kind = kinds[at]
            if kind == NAME and kinds[at + 1] == "=":
                keys.add(at)
                at += 2
            elif kind == "[":
                at = self.expect(self.expression(at + 1, depth + 1), "]")
                at = self.expect(at, "=", "'=' after the key")
            at = self.expression(at, depth)
            kind = kinds[at]
            if kind != "," and kind != ";":
                if kind != "}":
                    self._unclosed(at, opened, "}")
                break
            at += 1
        return at + 1

    def _body(self, at: int, depth: int, opened: int) -> int:
        """Read the parameters and the block of a function."""
        kinds = self.kinds
        if kinds[at] == "<":
            after = self.type_parameters(at, depth + 1)
            self.tokens.erase(at, after)
            at = after
        at = self.expect(at, "(", "'(' and the parameters of the function")
        while kinds[at] != ")":
            at = self._parameter(at, depth)
            if kinds[at] != ",":
                break
            at += 1
            if kinds[at] == ")":
                self._refuse(at, "expected a parameter after ',', found ')'")
        closed = at
        at = self.expect(at, ")", "')' or ',' after a parameter")
        if kinds[at] == ":":
            after = self.types(at + 1, depth + 1)
            self.tokens.erase(at, after)
            at = after
        self.texts[closed] = _CLOSE
        outer, self._locals = self._locals, 0
        at = self._end(self._block(at, depth + 1), opened)
        self.most_locals = max(self.most_locals, self._locals)
        self._locals = outer
        return at

    def _parameter(self, at: int, depth: int) -> int:
        kinds = self.kinds
        if kinds[at] == NAME:
            self.bound.add(at)
        elif kinds[at] != "...":
            self._refuse(at, f"expected the name of a parameter, found {self.tokens.near(at)}")
        last = kinds[at] == "..."
        at += 1
        if kinds[at] == "?":
            self.tokens.erase(at, at + 1)
            at += 1
        if kinds[at] == ":":
            at = self._annotation(at, depth)
        if last and kinds[at] == ",":
            self._refuse(at, "expected ')' after '...', found ','")
        return at

    # casts and assertions

    def _casts(self, at: int, depth: int) -> int:
        """Erase the casts ``:: T`` and ``as T`` and the assertions ``!`` behind an expression."""
        kinds = self.kinds
        while True:
            kind = kinds[at]
            if kind == "!" and not self._is_not_equal(at):
                self.tokens.erase(at, at + 1)
                at += 1
            elif (kind == "::" and not self._is_label(at)) or (kind == NAME and self._is_as(at)):
                after = self.type(at + 1, depth + 1)
                self.tokens.erase(at, after)
                at = self._part(at, after)
            else:
                return at

    def _part(self, erased: int, at: int) -> int:
        """Keep what follows an erased type from being read as a call of what stands before it."""
        if self.kinds[at] == "(":
            self.texts[erased] = ";" + self.texts[erased][1:]
        return at

    def _is_as(self, at: int) -> bool:
        return (
            self.texts[at] == "as"
            and self.tokens.same_line(at)
            and self.tokens.same_line(at + 1)
            and self.kinds[at + 1] in TYPE_STARTS
        )

    def _is_label(self, at: int) -> bool:
        """Tell the label ``::name::`` from two casts in a row, ``:: A :: B``.

        It is a label when a goto names it, or when no type follows on the same line.
        """
        kinds, texts = self.kinds, self.texts
        if kinds[at + 1] != NAME or kinds[at + 2] != "::":
            return False
        if kinds[at + 3] not in TYPE_STARTS or not self.tokens.same_line(at + 3):
            return True
        return texts[at + 1] in self._goto_targets()

    def _goto_targets(self) -> set[str]:
        if self._targets is None:
            self._targets = {self.texts[at + 1] for at, kind in enumerate(self.kinds) if kind == "goto"}
        return self._targets

    def _is_not_equal(self, at: int) -> bool:
        return self.kinds[at + 1] in ("=", "==") and not self.tokens.gaps[at + 1]

    # refusals

    def _refuse(self, at: int, message: str) -> NoReturn:
        self.tokens.refuse(at, message)

    def _compare(self, at: int) -> None:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._refuse(at, f"more than {MAX_COMPARISONS} comparisons in one statement; write several")

    def _no_method(self, at: int) -> NoReturn:
        hint = "arguments of a method call (a type annotation belongs to 'local', a parameter or a loop)"
        if self.kinds[at + 1] != NAME:
            self._refuse(at + 1, f"expected the name of a method after ':', found {self.tokens.near(at + 1)}")
        self._refuse(at + 2, f"expected the {hint}, found {self.tokens.near(at + 2)}")

    def _unclosed(self, at: int, opened: int, closer: str) -> NoReturn:
        line = self.tokens.line(opened)
        place = "" if line == self.tokens.line(at) else f" to close the {self.kinds[opened]!r} of line {line}"
        self._refuse(at, f"expected {closer!r}{place}, found {self.tokens.near(at)}")
