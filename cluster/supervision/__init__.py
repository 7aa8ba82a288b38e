"""Supervision, decided: when what ended is started again, in which order, and when to give up.

backoff.py   how long to wait before starting again
service.py   one process of a service
specs.py     what a supervisor is told of its children and itself
events.py    what happens to a supervisor, and what it wants done
rate.py      how many restarts are too many
child.py     what is known of one child
plan.py      what is done one step after the other
branch.py    one supervisor and its children

All of it is pure: times and random numbers come in with the events.
"""

from cluster.supervision.backoff import Backoff as Backoff
from cluster.supervision.branch import Branch as Branch
from cluster.supervision.child import Child as Child
from cluster.supervision.child import Phase as Phase
from cluster.supervision.service import Action as Action
from cluster.supervision.service import CancelStart as CancelStart
from cluster.supervision.service import ChildAdopted as ChildAdopted
from cluster.supervision.service import ChildExited as ChildExited
from cluster.supervision.service import ChildStarted as ChildStarted
from cluster.supervision.service import Event as Event
from cluster.supervision.service import GiveUp as GiveUp
from cluster.supervision.service import KillChild as KillChild
from cluster.supervision.service import RestartPolicy as RestartPolicy
from cluster.supervision.service import ServiceState as ServiceState
from cluster.supervision.service import StartChild as StartChild
from cluster.supervision.service import StartRequested as StartRequested
from cluster.supervision.service import StopChild as StopChild
from cluster.supervision.service import StopRequested as StopRequested
from cluster.supervision.service import StopTimedOut as StopTimedOut
from cluster.supervision.service import Supervision as Supervision
from cluster.supervision.specs import AutoShutdown as AutoShutdown
from cluster.supervision.specs import BranchSpec as BranchSpec
from cluster.supervision.specs import ChildSpec as ChildSpec
from cluster.supervision.specs import Restart as Restart
from cluster.supervision.specs import Strategy as Strategy
