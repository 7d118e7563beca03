"""The worker's entry; ``--embedded OUT`` makes the embedded model instead."""

import sys

from lightning_modules import worker
from lightning_modules.fit_diffusion import embedded
from lightning_modules.fit_diffusion.run import fit_run


def main() -> int:
    """Exit code of the worker or of the making."""
    if "--embedded" in sys.argv:
        return embedded.main()
    return worker.main("fit", fit_run, module="lightning_modules.fit_diffusion")


if __name__ == "__main__":
    sys.exit(main())
