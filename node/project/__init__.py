"""Projects: directories of YAML and Lua files read into entries.

load.py         load_project, the stages in order
layout.py       wippy.lock: directories, pins, replacements
definitions.py  YAML files -> drafts; inline.py file://
modules.py finding.py contents.py versions.py
                modules in use: which, where, what they consist of
overrides.py paths.py linking.py
                the stages that change drafts
draft.py        an entry with the places its parts were written
resolving.py installing.py lockfile.py
                wippy add and install: decided, carried out, pinned
"""

from node.project.load import Project as Project
from node.project.load import load_project as load_project
