"""Configuration of a node, parsed once at the edge and frozen.

schema.py    what can be set: Settings and its sections
load.py      from .wippy.yaml, environment and --set: load_settings
describe.py  the list of all settings, for documentation
"""

from node.settings.load import ENVIRONMENT as ENVIRONMENT
from node.settings.load import default_node_name as default_node_name
from node.settings.load import load_settings as load_settings
from node.settings.schema import Settings as Settings
