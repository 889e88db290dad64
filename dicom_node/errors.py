"""The errors of the node.

NodeError
├── InvalidConfiguration   node.toml: every fault at once, each with its line of remedy
├── UnreadableObject       bytes that are no DICOM object we can store or index
├── NotConvertible         a group that is no acquisition after all; the reason names the cause
│   └── Contradicted       one whose phase cannot be what its header says; the reason names both hypotheses
├── IllegalTransition      a job was asked for a move that the table does not have
└── PeerFailure            a destination refused or broke off; what it answered
    ├── Unreachable        one with which no association can be had; nothing was asked of it
    └── NotTaken           what it sent is nothing that the node takes; asking again would not help
"""


class NodeError(Exception):
    """The root of this package's errors."""


class InvalidConfiguration(NodeError, ValueError):
    """A configuration that cannot be run."""


class UnreadableObject(NodeError, ValueError):
    """Bytes that are no DICOM object the node can store or index."""


class NotConvertible(NodeError):
    """A group of instances from which no acquisition can be made."""


class Contradicted(NotConvertible):
    """An acquisition whose phase cannot be what its header says, by physics; somebody has to look."""


class IllegalTransition(NodeError):
    """A move that the transition table does not have."""


class PeerFailure(NodeError):
    """A peer refused or broke off."""


class Unreachable(PeerFailure):
    """A peer with which no association can be had: it says nothing of what was to be asked."""


class NotTaken(PeerFailure):
    """What a peer sent when it was asked is nothing that the node takes: the same would come again."""
