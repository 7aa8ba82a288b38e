"""Kinds of entries: what their data must look like, and whether a set of entries can be run.

table.py        KINDS this version runs, LATER those it knows by name
lua.py hosts.py service.py env.py store.py plain.py lifecycle.py
                the models, one file per family
model.py        their base and shared field types
placeholders.py ${env:NAME|default}
decode.py       entry -> model
code.py         Lua entries for a VM: code_package
commands.py     meta.command
check.py relations.py
                every problem of an entry, of a registry state
"""

from cluster.registry.order import references as references
from node.kinds.check import Checker as Checker
from node.kinds.check import check_entry as check_entry
from node.kinds.check import check_state as check_state
from node.kinds.code import GLOBALS as GLOBALS
from node.kinds.code import code_package as code_package
from node.kinds.code import imported_ids as imported_ids
from node.kinds.code import is_code as is_code
from node.kinds.commands import Command as Command
from node.kinds.commands import commands as commands
from node.kinds.decode import decode as decode
from node.kinds.env import FileStorage as FileStorage
from node.kinds.env import MemoryStorage as MemoryStorage
from node.kinds.env import OsStorage as OsStorage
from node.kinds.env import RouterStorage as RouterStorage
from node.kinds.env import StaticStorage as StaticStorage
from node.kinds.env import Variable as Variable
from node.kinds.hosts import ProcessHost as ProcessHost
from node.kinds.hosts import TerminalHost as TerminalHost
from node.kinds.lifecycle import Lifecycle as Lifecycle
from node.kinds.lifecycle import Restart as Restart
from node.kinds.lua import Code as Code
from node.kinds.lua import Function as Function
from node.kinds.lua import Library as Library
from node.kinds.lua import Process as Process
from node.kinds.model import Kind as Kind
from node.kinds.model import KindModel as KindModel
from node.kinds.placeholders import Lookup as Lookup
from node.kinds.plain import RegistryEntry as RegistryEntry
from node.kinds.service import Placement as Placement
from node.kinds.service import ProcessService as ProcessService
from node.kinds.store import ClusterStore as ClusterStore
from node.kinds.store import MemoryStore as MemoryStore
from node.kinds.table import CAPABILITY as CAPABILITY
from node.kinds.table import KINDS as KINDS
from node.kinds.table import LATER as LATER
