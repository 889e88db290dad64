"""Who this implementation says it is, on the network and in the files it writes (PS3.7 D.3.3.2, PS3.10 7.1)."""

from __future__ import annotations

from pydicom.uid import UID

IMPLEMENTATION_CLASS_UID = UID("2.25.230383181917207452459322264886021648727")
"""Derived from a UUID (PS3.5 B.2); the same for every version of the node."""
IMPLEMENTATION_VERSION_NAME = "QSM_NODE_0.1"
RESEARCH_ONLY = "For research, not for diagnosis."
VERIFICATION = UID("1.2.840.10008.1.1")
"""The Verification SOP class, C-ECHO (PS3.4 A.4)."""
