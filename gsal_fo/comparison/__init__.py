"""Comparing strategies by simulation on images that already have labels (`gsal compare`)."""
