"""`python -m kernel_env.sandbox`: a JSON object with every layer, "" where it stands on this machine, else why it does not."""

from __future__ import annotations

import json

from kernel_env.processes import become_subreaper
from kernel_env.sandbox import Layer, Plan, interpreter_paths, tried

become_subreaper()
found = tried(Plan(tuple(Layer), interpreter_paths()))
print(json.dumps({layer.value: found.missing.get(layer.value, "") for layer in Layer}))
