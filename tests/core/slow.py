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


def z_by_group(values: list[float], groups: list[int], shrink: float) -> list[float]:
    """Section 4, ``normalize="concept"``: a group's mean and variance, shrunk toward the pool's by its size."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
    out = []
    for v, group in zip(values, groups, strict=True):
        m, s2 = mean, variance
        if group >= 0:
            own = [w for w, g in zip(values, groups, strict=True) if g == group]
            m_g = math.fsum(own) / len(own)
            s2_g = math.fsum((w - m_g) ** 2 for w in own) / len(own)
            m = (len(own) * m_g + shrink * mean) / (len(own) + shrink)
            s2 = (len(own) * s2_g + shrink * variance) / (len(own) + shrink)
        std = math.sqrt(s2)
        out.append(0.0 if std < 1e-12 else (v - m) / (std + 1e-8))
    return out


Nodes = dict[str, tuple[str, list[str]]]  # fine -> (family, attributes)


def coverage(nodes: Nodes, labels: dict[str, int]) -> dict[str, int]:
    """Section 1: every node's labeled instances."""
    counts: dict[str, int] = {}
    for fine, (family, attributes) in nodes.items():
        for node in [fine, family, *attributes]:
            counts[node] = counts.get(node, 0) + labels.get(fine, 0)
    return counts


def bonus(nodes: Nodes, labels: dict[str, int], *, rarity="quantile", q=0.2, delta=0.5) -> dict[str, float]:
    """Eq. 4 with all levels, attributes summed."""
    counts = coverage(nodes, labels)
    levels = [list(nodes), [c for c, _ in nodes.values()], [a for _, own in nodes.values() for a in own]]

    def weight(node: str) -> float:
        level = next(names for names in levels if node in names)
        values = sorted(counts[v] for v in set(level))
        if rarity == "graded":
            return 1.0 if values[-1] == 0 else 1 - counts[node] / values[-1]
        return 1.0 if counts[node] <= values[int(q * (len(values) - 1))] else 0.0

    return {
        fine: weight(fine) + weight(family) + delta * sum(weight(a) for a in attributes)
        for fine, (family, attributes) in nodes.items()
    }


def ddim(z: float, eps: float, t: int, steps: int, alpha_bar: list[float], model) -> float:
    """Section 4: one number, noised to ``t`` and walked down to 0 (Song et al. 2021, Eq. 12 with sigma 0)."""
    x = math.sqrt(alpha_bar[t]) * z + math.sqrt(1 - alpha_bar[t]) * eps
    for i in range(steps):
        now, after = round(t * (steps - i) / steps), round(t * (steps - i - 1) / steps)
        x0 = model(x, now)
        noise = (x - math.sqrt(alpha_bar[now]) * x0) / math.sqrt(1 - alpha_bar[now])
        last = i == steps - 1
        x = x0 if last else math.sqrt(alpha_bar[after]) * x0 + math.sqrt(1 - alpha_bar[after]) * noise
    return x


def region(cells: list[list[float]], box: list[float], how: str) -> float:
    """Section 4, ``regions="maps"``: one map inside one box (x, y, w, h in shares), "mean" by covered area, "topk" the
    top 5 % of the touched cells."""
    rows, columns = len(cells), len(cells[0])
    x, y, w, h = box
    touched = []
    for r in range(rows):
        for c in range(columns):
            across = min(x + w, (c + 1) / columns) - max(x, c / columns)
            down = min(y + h, (r + 1) / rows) - max(y, r / rows)
            if across > 1e-9 and down > 1e-9:
                touched.append((cells[r][c], across * down))
    if how == "mean":
        return sum(v * a for v, a in touched) / sum(a for _, a in touched)
    values = sorted((v for v, _ in touched), reverse=True)
    return (
        values[0]
        if how == "max"
        else sum(values[: max(1, round(0.05 * len(values)))]) / max(1, round(0.05 * len(values)))
    )
