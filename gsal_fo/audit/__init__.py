"""The ledger of what was selected, and the proof that its picks follow from what is stored."""
