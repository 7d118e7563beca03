"""The five-minute demo and its simulated labeler."""
