"""The node's end of ``wippy console``: prompts that are processes, each fed by one client.

A console is a Lua process of the node (entry ``node:console``, in a VM of its own) and a session that a client opened
through the control subject. Lines never are messages: they come as queries that carry the session's secret, from the
client that opened it, are turned into Lua here and go into the process through a stream that only Python feeds. The
program of the entry has no power by itself: its module answers only processes that a session started.

    sessions   what clients ask: open, line, stop, poll, complete, answer, close
    session    one console: its process, what it said and nobody has fetched yet
    module     the Python half of the prompt's module
    lines      what was typed, as a chunk of Lua
    program    the entry, its package and the Lua halves (*.lua)
"""

from node.console.lines import Incomplete as Incomplete
from node.console.lines import LineTooLong as LineTooLong
from node.console.lines import prepare as prepare
from node.console.module import ConsoleModule as ConsoleModule
from node.console.program import HOST_ENTRY as HOST_ENTRY
from node.console.program import PROMPT as PROMPT
from node.console.program import console_halves as console_halves
from node.console.program import prompt_package as prompt_package
from node.console.sessions import Consoles as Consoles
from node.console.sessions import Surroundings as Surroundings

__all__ = [
    "HOST_ENTRY",
    "PROMPT",
    "ConsoleModule",
    "Consoles",
    "Incomplete",
    "LineTooLong",
    "Surroundings",
    "console_halves",
    "prepare",
    "prompt_package",
]
