"""GSAL itself: the scores of Eq. 2 and 7 to 10, the sentence for a pick, and the terms of its score."""
