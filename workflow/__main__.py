"""``python -m workflow`` is ``run_workflow``."""

import sys

from workflow.cli import main

sys.exit(main())
