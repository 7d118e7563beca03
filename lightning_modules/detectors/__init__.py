"""Detectors: what proposes boxes."""
