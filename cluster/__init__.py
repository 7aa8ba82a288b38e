"""What all machines of a cluster agree on.

    pid, envelope, errors, types     values and protocols
    subjects, keys                   every NATS subject and etcd key
    bus, connection, credentials     the two NATS connections of a node
    frame, session, link, links      ordered delivery between nodes: wire form, pure cores, shell
    bucket, feed                     NATS KV: conditional puts; changes in order, resumed
    door                             one message from outside to one process
    events, patterns                 application events for subscribers on all nodes
    etcd/                            client: kv, txn, watch that resumes, lease
    members, fencing                 who is alive; stop before the lease ends
    registry/                        entries, changesets, versions, operator overlay
    configuration                    the overlay as operators and programs see it
    names, claims, owned             owned facts in etcd
    placement, supervision           pure decision cores
    migration/                       the move of a process between nodes (pure)
    embedded, guardian               local nats-server and etcd
    client                           for programs outside the cluster
    tasks, handlers                  owned background work; observers that can't stop the observed

It knows NATS and etcd and nothing of Lua, HTTP or YAML files, and never imports ``node``.
"""
