"""Processes that move between nodes: what ``cluster.migration`` decides is done here.

moving        the whole: what the node asks and tells, what the watch says
moved         one process
cores         the table of them, with those that decide
traffic       what is sent to them, and what nodes and VMs say of them
departures    those that leave
arrivals      those that come
taking        whether this node could run one that wants to come
performing    what a core asks for
guests        those that came, as owned work
settling      when nothing comes through for those that left
transacting   what is asked of etcd
wire          what nodes say to each other
"""

from node.moving.departures import WITHIN as WITHIN
from node.moving.moved import Outcome as Outcome
from node.moving.moving import Around as Around
from node.moving.moving import Moving as Moving
from node.moving.taking import Taking as Taking
