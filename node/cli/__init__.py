"""The command line: ``wippy``. One file per family of verbs.

    app           the verbs, put together
    places        finding the cluster: flags, environment, .wippy/cluster.json
    gateway       running a verb against that cluster
    failures      errors as one line and an exit code
    console       tables for people, JSON for programs
    run, up       a node; a development cluster
    project       init, version
    look, act     nodes, ps, names, services; send, call, spawn, cancel, terminate
    registry, config   the registry and the operator overlay

Modules here import little at the top: ``wippy --help`` must be instant. What a verb needs
is imported when it runs.
"""

from node.cli.app import main as main
