"""`python -m tunesmith`, the form that launchers such as `accelerate launch -m` need."""

import sys

from tunesmith.cli import main

sys.exit(main())
