"""Write docs/observables.md: ``python -m kerneltrack.observables > docs/observables.md``."""

import sys

from kerneltrack.observables import catalogue
from kerneltrack.observables.listing import markdown

sys.stdout.write(markdown(catalogue()))
