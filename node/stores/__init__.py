"""Key-value stores: what an entry of a ``store.*`` kind is at run time.

contract.py     what a store is: Store, Item, Page, Info, and the failures it may tell
memory.py       store.memory: in this node only
etcd.py         store.kv.raft: in etcd, shared by all nodes
crdt.py         store.kv.crdt: a copy in every node, in step by way of NATS KV
  cell.py         one write, and which of two is the later (pure)
  copy.py         the cells of a namespace on this node (pure)
  replication.py  between a copy and its bucket in NATS
  namespaces.py   the copies of this node, shared by the entries of a namespace
stores.py       the stores of this node, brought to what the registry says
"""

from node.stores.contract import Fence as Fence
from node.stores.contract import Info as Info
from node.stores.contract import Item as Item
from node.stores.contract import Page as Page
from node.stores.contract import Precondition as Precondition
from node.stores.contract import Store as Store
from node.stores.crdt import CrdtStore as CrdtStore
from node.stores.etcd import EtcdStore as EtcdStore
from node.stores.memory import MemoryStore as MemoryStore
from node.stores.namespaces import Namespaces as Namespaces
from node.stores.stores import Stores as Stores
