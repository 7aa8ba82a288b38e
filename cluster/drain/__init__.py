"""How a node is emptied, decided: what becomes of each process and service, and what is done next.

events      what there is, what happens, what is to be done, how far it is
residents   the processes and services that are still here
core        the decisions

All of it is pure: what there is on the node comes in, actions go out.
"""

from cluster.drain.core import AT_ONCE as AT_ONCE
from cluster.drain.core import Drain as Drain
from cluster.drain.events import Action as Action
from cluster.drain.events import CallOff as CallOff
from cluster.drain.events import Cancel as Cancel
from cluster.drain.events import Care as Care
from cluster.drain.events import Deadline as Deadline
from cluster.drain.events import Event as Event
from cluster.drain.events import GiveUp as GiveUp
from cluster.drain.events import HandedOver as HandedOver
from cluster.drain.events import HandOver as HandOver
from cluster.drain.events import Kill as Kill
from cluster.drain.events import Left as Left
from cluster.drain.events import Look as Look
from cluster.drain.events import Move as Move
from cluster.drain.events import MoveEnded as MoveEnded
from cluster.drain.events import Process as Process
from cluster.drain.events import Progress as Progress
from cluster.drain.events import Targets as Targets
