"""GSAL's switches: what each ablation and each placebo of docs/method.md section 5 leaves in and takes out."""

from collections.abc import Mapping
from dataclasses import dataclass

from gsal_fo.config import GsalParams


@dataclass(frozen=True)
class Ablation:
    """What takes part: ``rarity`` (gamma and lambda), ``difficulty`` in the score, ``eta`` where the switch sets it,
    ``quotas`` over assigned concepts instead of the top, ``levels`` where the switch sets them."""

    rarity: bool = True
    difficulty: bool = True
    eta: float | None = None
    quotas: bool = False
    levels: str | None = None


WHOLE = Ablation()
ABLATIONS: Mapping[str, Ablation] = {
    "diffusion_only": Ablation(rarity=False),
    "symbolic_only": Ablation(difficulty=False),
    "no_rarity": Ablation(rarity=False, quotas=True),
    "image_only": Ablation(eta=0.0),
    "proposal_only": Ablation(eta=1.0),
    "clip_only": Ablation(difficulty=False, levels="F"),
}


def ablation_of(params: GsalParams) -> Ablation:
    """The switches that ``params.strategy`` names; all of the method where it names none of them."""
    return ABLATIONS.get(params.strategy, WHOLE)


def weights(params: GsalParams) -> tuple[float, float, float]:
    """gamma, lambda and eta under the switches."""
    switches = ablation_of(params)
    gamma, lam = (params.gamma, params.lam) if switches.rarity else (0.0, 0.0)
    return gamma, lam, params.eta if switches.eta is None else switches.eta
