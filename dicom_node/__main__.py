"""`python -m dicom_node` is `qsm-node`."""

import sys

from dicom_node.commands import main

sys.exit(main())
