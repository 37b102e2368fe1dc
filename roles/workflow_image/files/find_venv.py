"""Name the virtual environment for some requirements and this interpreter; tell how it is.

Run by the interpreter that virtual environments are to be made with: find_venv.py DIRECTORY REQUIREMENTS
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

directory = Path(sys.argv[1]).expanduser().resolve()
version = ".".join(map(str, sys.version_info[:3]))
key = hashlib.sha256(Path(sys.argv[2]).read_bytes() + sys.base_prefix.encode()).hexdigest()[:12]
venv = directory / ("python" + version + "-" + key)
place = next(folder for folder in (directory, *directory.parents) if folder.exists())
answer = {
    "version": version,
    "enough": sys.version_info >= (3, 11),
    "ensurepip": importlib.util.find_spec("ensurepip") is not None,
    "directory": str(directory),
    "path": str(venv),
    "complete": (venv / "complete").exists(),
    "free_mb": shutil.disk_usage(str(place)).free // 2**20,
    "mount": str(next(folder for folder in (place, *place.parents) if os.path.ismount(str(folder)))),
}
print(json.dumps(answer))
