"""Supervision trees: the processes behind ``process.supervisor``, whose children live on any node.

definition.py   what an entry says, for the core
places.py       which node a child goes to
watchers.py     who watches a process of the node itself
requests.py     what is asked of others and not answered yet
runs.py         one run of each child: where it lives, and since when it can't be reached
children.py     the processes of one supervisor: spawned, ended, lost
overseer.py     one supervisor: performs what the core decides
commands.py     start_child and the like, asked of a supervisor
contact.py      what is certain of a node that could not be reached
guard.py        the children of owned supervisors act under its claim
root.py         a supervisor that starts by itself
trees.py        all supervisors of this node, and how they are reached
"""

from node.trees.contact import HOST as HOST
from node.trees.definition import Definitions as Definitions
from node.trees.guard import Guard as Guard
from node.trees.root import Root as Root
from node.trees.trees import Trees as Trees
