"""METHOD.md sections 4 and 5 again in plain Python loops, from the text alone: the reference of the tests."""

import math

Image = tuple[float, float, list[tuple[float, float, float]]]  # E, V, proposals (E, V, bonus)


def z(values: list[float]) -> list[float]:
    """Eq. 11."""
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    return [0.0 if std < 1e-12 else (v - mean) / (std + 1e-8) for v in values]


def scores(images: list[Image], *, alpha=0.5, beta=0.5, gamma=0.5, eta=0.5, lam=1.0, p=3.0, rarity="mean") -> dict:
    """Every quantity of Eq. 7 to 10 and 2, with proposals flattened in image order."""
    owners = [i for i, (_, _, proposals) in enumerate(images) for _ in proposals]
    flat = [proposal for _, _, proposals in images for proposal in proposals]
    z_e, z_v = z([e for e, _, _ in images]), z([v for _, v, _ in images])
    image = [alpha * a + beta * b for a, b in zip(z_e, z_v, strict=True)]  # (7)
    z_e, z_v = z([e for e, _, _ in flat]), z([v for _, v, _ in flat])
    proposal = z([alpha * a + beta * b for a, b in zip(z_e, z_v, strict=True)])  # (8)
    z_b = z([b for _, _, b in flat])
    u = [min(4.0, max(-4.0, d + gamma * b)) + 4.0 for d, b in zip(proposal, z_b, strict=True)]
    local, s, decisive = [], [], []
    for i in range(len(images)):
        own = [j for j, owner in enumerate(owners) if owner == i]
        local.append((sum(u[j] ** p for j in own) / len(own)) ** (1 / p))  # (9)
        bonuses = [flat[j][2] for j in own]
        s.append(max(bonuses) if rarity == "max" else sum(bonuses) / len(bonuses))
        decisive.append(max(own, key=lambda j: u[j]))
    z_l, z_d, z_s = z(local), z(image), z(s)
    g = z([eta * a + (1 - eta) * b for a, b in zip(z_l, z_d, strict=True)])  # (10)
    total = [a + lam * b for a, b in zip(g, z_s, strict=True)]  # (2)
    return {
        "score": total,
        "difficulty": g,
        "rarity": z_s,
        "local": z_l,
        "image": z_d,
        "proposal": proposal,
        "value": u,
        "decisive": decisive,
    }
