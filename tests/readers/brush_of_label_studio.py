"""A mask as the bytes of Label Studio's brush, by its own converter; run by its interpreter: MASK.npy -> JSON."""

import json
import sys

import numpy as np
from label_studio_sdk.converter import brush

print(json.dumps(brush.mask2rle(np.load(sys.argv[1]))))
