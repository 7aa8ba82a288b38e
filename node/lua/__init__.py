"""The Lua side of a node: the dialect's translator (Python) and the kernel's sources (Lua).

``dialect`` turns typed Lua into plain Lua 5.4. ``kernel/*.lua`` is package data: read it
with ``importlib.resources``, it runs inside a Lua VM and never in Python.
"""
