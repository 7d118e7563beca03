"""GSAL: rank the unlabeled images of an object-detection pool by difficulty and concept rarity."""

__version__ = "0.1.0"
