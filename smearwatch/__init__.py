"""Smearwatch: the hands-off night worker on single-cell image exports of blood smears.

Research software, not a medical device.
"""

__version__ = "0.1.0"
