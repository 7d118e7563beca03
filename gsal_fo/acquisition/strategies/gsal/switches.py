"""GSAL's ablations by name: the same code, with parts switched off (docs/method.md section 5)."""

from gsal_fo.acquisition.strategies.gsal.strategy import Gsal


class DiffusionOnly(Gsal):
    """Difficulty alone: gamma = lambda = 0."""

    name, title, paper = "diffusion_only", "GSAL, difficulty alone", ""


class SymbolicOnly(Gsal):
    """Rarity alone: Z(S)."""

    name, title, paper = "symbolic_only", "GSAL, rarity alone", ""


class NoRarity(Gsal):
    """Difficulty alone, with equal quotas over the assigned concepts."""

    name, title, paper = "no_rarity", "GSAL, quotas instead of rarity", ""


class ImageOnly(Gsal):
    """The difficulty of the image as a whole: eta = 0."""

    name, title, paper = "image_only", "GSAL, image difficulty", ""


class ProposalOnly(Gsal):
    """The difficulty of the proposals: eta = 1."""

    name, title, paper = "proposal_only", "GSAL, proposal difficulty", ""


class ClipOnly(Gsal):
    """Rarity of the assigned labels alone: level F, no difficulty."""

    name, title, paper = "clip_only", "GSAL, label rarity alone", ""
