"""``wippy console``: a prompt that is a process of the cluster.

verb       the verb: which node, which way of reading
attached   the session with the node, across outages
answers    what the prompt's process asks the client for
editor     a terminal: editing, history, completion
words      what is completed at the cursor
reading    input that is no terminal
"""

from node.cli.prompt.verb import console as console

__all__ = ["console"]
