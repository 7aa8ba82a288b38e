"""What one machine of a cluster does.

    main, settings                   boot order; frozen configuration
    cli                              the command line
    project, kinds                   the application's files, and what entries mean
    lua, host, modules               the Lua dialect and kernel, the VMs, the modules processes use
    router, supervisor, admin        where envelopes go, which services run here, what clients ask
    metrics, probes, logs            how it is watched

It builds on ``cluster``, which never imports it.
"""
