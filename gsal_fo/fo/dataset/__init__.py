"""The dataset as GSAL reads and writes it: field names, the pool, labels, bulk writes, run folders."""
