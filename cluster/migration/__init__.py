"""The move of a process from one node to another: pure cores of everybody who has to do with it.

core           one process as one node knows it; where what is addressed to it goes
departure      the node it leaves: reserve, mark, freeze, flush, send, abort
arrival        the node it comes to: commit, and read when the outcome is unknown
tombstone      a node it left: forwarding, and the watchers that still look there
redirect       a node that sends to it: what waits until the old way is empty
relays         flushes on their way through
watches        who here is to hear of its end
numbers        messages over two ways stay in order
transactions   what is asked of etcd, exactly
items          what is addressed to it, and what nodes say to each other
actions        what a core asks of its shell
"""

from cluster.migration.core import MoveCore as MoveCore
from cluster.migration.core import Place as Place
from cluster.migration.numbers import Stamps as Stamps
