"""Lightning workers of gsal-fo: batches, devices and weights around the math of ``gsal_fo``."""
