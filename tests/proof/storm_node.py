"""`qsm-node serve` as it is, but for the physics: `tests.proof.plays.tally` stands in for it.

python -m tests.proof.storm_node never serve --config FILE
"""

from __future__ import annotations

import sys

from tests.proof.plays import tally

if __name__ == "__main__":
    from dicom_node.commands import main
    from dicom_node.daemon import Daemon

    defaults = Daemon.__init__.__kwdefaults__
    assert defaults is not None
    defaults["work"] = tally
    sys.exit(main(sys.argv[2:]))
