"""The verbs of the registry.

opening.py       the cluster's registry for a verb; versions as people write them
entries.py       list, show
changes.py       what differs between two states, entry by entry (pure)
drawing.py       such differences as text for people
comparing.py     diff
pushing.py       push, and the push of a saved file
settling.py      waiting until the nodes have a version
versions.py      history, rollback
following.py     watch
"""

from node.cli.registry.comparing import diff as diff
from node.cli.registry.entries import list_ as list_
from node.cli.registry.entries import show as show
from node.cli.registry.following import watch as watch
from node.cli.registry.pushing import push as push
from node.cli.registry.versions import history as history
from node.cli.registry.versions import rollback as rollback
