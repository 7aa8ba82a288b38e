"""Projects: directories of YAML and Lua files read into entries.

load.py         load_project, the stages in order
layout.py       wippy.lock: sources and local modules
definitions.py  YAML files -> drafts; inline.py file://
modules.py versions.py
                modules in use
overrides.py paths.py linking.py
                the stages that change drafts
draft.py        an entry with the places its parts were written
"""

from node.project.load import Project as Project
from node.project.load import load_project as load_project
