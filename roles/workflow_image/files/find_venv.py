"""Name the virtual environment for some requirements and this interpreter, and tell whether it is complete.

Run by the interpreter that virtual environments are to be made with: find_venv.py DIRECTORY REQUIREMENTS
"""

import hashlib
import importlib.util
import json
import os
import sys

directory = os.path.realpath(os.path.expanduser(sys.argv[1]))
with open(sys.argv[2], "rb") as file:
    requirements = file.read()
version = ".".join(map(str, sys.version_info[:3]))
key = hashlib.sha256(requirements + sys.base_prefix.encode()).hexdigest()[:12]
venv = os.path.join(directory, "python" + version + "-" + key)
answer = {
    "version": version,
    "enough": sys.version_info >= (3, 11),
    "ensurepip": importlib.util.find_spec("ensurepip") is not None,
    "directory": directory,
    "path": venv,
    "complete": os.path.exists(os.path.join(venv, "complete")),
}
print(json.dumps(answer))
