"""etcd for asyncio: reads, writes, transactions, leases, and a watch that survives.

client.py       Etcd: the calls
watch.py        PrefixWatch: one ordered watch that resumes
history.py      what a watch knows (pure)
room.py         whether etcd is full, or nobody compacts it
values.py       what goes in and comes out
errors.py       refusals of etcd (Unavailable and OutcomeUnknown are cluster.errors')
connection.py   members, login, repeating
rpc_pb2.py      generated from rpc.proto
"""

from cluster.etcd.client import Etcd as Etcd
from cluster.etcd.connection import Tls as Tls
from cluster.etcd.errors import Compacted as Compacted
from cluster.etcd.errors import EtcdRefused as EtcdRefused
from cluster.etcd.errors import LeaseGone as LeaseGone
from cluster.etcd.errors import NoSpace as NoSpace
from cluster.etcd.errors import PermissionDenied as PermissionDenied
from cluster.etcd.errors import TooLarge as TooLarge
from cluster.etcd.room import Room as Room
from cluster.etcd.values import Batch as Batch
from cluster.etcd.values import Compare as Compare
from cluster.etcd.values import Delete as Delete
from cluster.etcd.values import Get as Get
from cluster.etcd.values import KeyEvent as KeyEvent
from cluster.etcd.values import KeyValue as KeyValue
from cluster.etcd.values import Lease as Lease
from cluster.etcd.values import LeaseInfo as LeaseInfo
from cluster.etcd.values import Put as Put
from cluster.etcd.values import Range as Range
from cluster.etcd.values import Status as Status
from cluster.etcd.values import TxnResult as TxnResult
from cluster.etcd.watch import PrefixWatch as PrefixWatch
from cluster.etcd.watch import WatchStats as WatchStats
