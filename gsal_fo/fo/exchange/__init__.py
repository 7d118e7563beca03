"""Batches out to the labelers and labels back."""
