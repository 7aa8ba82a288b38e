"""The modules of the Lua API: what a process gets from ``require``.

contract.py         what a module's Python half is: Module, Caller, Stream, LuaError
dispatch.py         runs them for the VMs: Dispatcher
halves.py           the names that can be required; the Lua halves (NAME.lua beside NAME.py)
registry.py events.py env.py store.py io.py logger.py names.py supervisor.py
                    one Python half each
"""

from node.modules.contract import Caller as Caller
from node.modules.contract import LuaError as LuaError
from node.modules.contract import Module as Module
from node.modules.contract import Stream as Stream
from node.modules.contract import Vm as Vm
from node.modules.dispatch import Dispatcher as Dispatcher
from node.modules.halves import MODULES as MODULES
from node.modules.halves import load_halves as load_halves
