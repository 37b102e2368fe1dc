"""The modules of the role instance_power, found as Ansible finds them: beside what they share."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import ansible.module_utils

ROLE = Path(__file__).parents[2] / "roles" / "instance_power"
ansible.module_utils.__path__.append(str(ROLE / "module_utils"))
sys.path.insert(0, str(ROLE / "library"))

ec2_instance_claim = importlib.import_module("ec2_instance_claim")
ec2_instance_stop = importlib.import_module("ec2_instance_stop")
instance_power_look = importlib.import_module("ansible.module_utils.instance_power_look")
