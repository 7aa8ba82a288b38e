"""What all machines of a cluster agree on.

    pid, envelope, errors, types     values and protocols
    subjects, keys                   every NATS subject and etcd key
    bus, link, links                 NATS connections; ordered delivery between nodes
    etcd/                            client: kv, txn, watch that resumes, lease
    members, fencing                 who is alive; stop before the lease ends
    registry/                        entries, changesets, versions, operator overlay
    names, claims                    owned facts in etcd
    placement, supervision           pure decision cores
    embedded                         local nats-server and etcd
    client                           for programs outside the cluster

It knows NATS and etcd and nothing of Lua, HTTP or YAML files, and never imports ``node``.
"""
