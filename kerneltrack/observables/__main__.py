"""Write docs/observables.md: ``python -m kerneltrack.observables > docs/observables.md``."""

import sys

from kerneltrack.observables.listing import markdown
from kerneltrack.observables.registry import catalogue

sys.stdout.write(markdown(catalogue()))
