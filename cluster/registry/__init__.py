"""The registry: a log of changesets in etcd, and every node's copy of it.

entry.py value.py      an entry and what it may hold
changeset.py order.py  operations applied whole; who is brought up first
state.py index.py      one version: look-ups
filter.py pattern.py automaton.py characters.py
                       searches in linear time
overlay.py origins.py  what the operator lays over an entry; what was changed at run time
record.py store.py     the log's values, and reading it
upload.py commit.py snapshot.py collect.py floor.py
                       writing it: blobs, versions, snapshots, garbage, kinds in use
retry.py offloop.py    requests repeated; work beside the event loop
replica.py chunks.py history.py
                       a node's copy, and the versions before
publish.py             files into the registry
registry.py outside.py Registry, what everybody uses; for programs that are no node
folding.py status.py   the overlay in a running cluster, and what became of it
"""

from cluster.registry.changeset import Changeset as Changeset
from cluster.registry.changeset import Create as Create
from cluster.registry.changeset import Delete as Delete
from cluster.registry.changeset import Fold as Fold
from cluster.registry.changeset import Operation as Operation
from cluster.registry.changeset import Update as Update
from cluster.registry.changeset import build_delta as build_delta
from cluster.registry.changeset import parse_operation as parse_operation
from cluster.registry.collect import Collector as Collector
from cluster.registry.collect import Keep as Keep
from cluster.registry.collect import collect as collect
from cluster.registry.commit import Validator as Validator
from cluster.registry.entry import Entry as Entry
from cluster.registry.entry import Origin as Origin
from cluster.registry.entry import id_text as id_text
from cluster.registry.entry import split_id as split_id
from cluster.registry.entry import with_default_ns as with_default_ns
from cluster.registry.filter import Filter as Filter
from cluster.registry.floor import Floor as Floor
from cluster.registry.floor import read_floor as read_floor
from cluster.registry.folding import Folding as Folding
from cluster.registry.history import Change as Change
from cluster.registry.history import Step as Step
from cluster.registry.history import changes_between as changes_between
from cluster.registry.order import creation_order as creation_order
from cluster.registry.order import references as references
from cluster.registry.outside import open_registry as open_registry
from cluster.registry.publish import Difference as Difference
from cluster.registry.publish import Mode as Mode
from cluster.registry.publish import PublishResult as PublishResult
from cluster.registry.publish import PushConflict as PushConflict
from cluster.registry.publish import Take as Take
from cluster.registry.record import VersionInfo as VersionInfo
from cluster.registry.record import VersionNotFound as VersionNotFound
from cluster.registry.registry import Registry as Registry
from cluster.registry.registry import Restored as Restored
from cluster.registry.state import ABSENT as ABSENT
from cluster.registry.state import RegistryState as RegistryState
from cluster.registry.status import OverlayStatus as OverlayStatus
from cluster.registry.status import Verdict as Verdict
