"""Where Lua runs: one VM with many processes per host entry, each VM in a thread of its own.

boundary    the items that cross between Python and the kernel, and how values are converted
sources     the Lua text a VM is made of
kernel      a VM without a thread: make it, step it
vm          the thread around it: what the node posts to and gets batches from
prodding    cuts short what lasts too long in a step, from outside
watchdog    tells of a VM that does not come back from a step
"""

from node.host.kernel import VmConfig as VmConfig
from node.host.vm import Vm as Vm
from node.host.vm import VmGone as VmGone
from node.host.vm import VmStats as VmStats
from node.host.watchdog import Watchdog as Watchdog

__all__ = ["Vm", "VmConfig", "VmGone", "VmStats", "Watchdog"]
