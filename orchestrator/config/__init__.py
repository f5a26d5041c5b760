"""The configuration: from a YAML file to a `RunConfig` in which every choice is made.

document.py     the file as keys and values, with `--set` over it
run_config.py   the validated tree, and the parts that it stands for
errors.py       what is wrong, in the words of the file
loading.py      document -> RunConfig; what may change on resume
checks.py       data that is there, architectures within the limits
resolution.py   automatic choices, made once
"""

from across.orchestrator.config.errors import ConfigError
from across.orchestrator.config.loading import load_config
from across.orchestrator.config.run_config import RunConfig

__all__ = ["ConfigError", "RunConfig", "load_config"]
