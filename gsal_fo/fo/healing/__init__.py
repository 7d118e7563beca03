"""What killed commands of older versions have left in a dataset: found, named, and mended where that is safe."""

from gsal_fo.fo.healing.doctor import examine, mend
from gsal_fo.fo.healing.finding import Finding

__all__ = ["Finding", "examine", "mend"]
