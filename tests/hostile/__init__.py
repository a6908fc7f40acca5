"""Shares and images made to do harm, by Hypothesis; `make hostile EXAMPLES=10000` makes many more.

Without a number the same few are made at every run. What once failed stays as an `@example`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

EXAMPLES = int(os.environ.get("SMEARWATCH_HOSTILE_EXAMPLES", "0"))


def hostile(few: int) -> settings:
    """A `few` examples in an everyday run, as many as were asked for in a long one."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
