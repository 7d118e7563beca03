"""Mutated graphs, vocabularies, settings, images: each is read, or refused in one short sentence that names the file.

The suite reads a few; GSAL_FUZZ=2000 reads that many of each, GSAL_FUZZ_SEED chooses others.
"""

import io
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsal_fo import config, images
from gsal_fo.concepts.build import file as graph_file
from gsal_fo.concepts.build.vocabulary import Vocabulary
from gsal_fo.concepts.graph import ConceptGraph
from tests.fuzz.mutating import mangled

COUNT = int(os.environ.get("GSAL_FUZZ") or 40)
SEED = int(os.environ.get("GSAL_FUZZ_SEED") or 1)
SLOW = 10.0  # seconds of this process alone
DATA = Path(config.__file__).parent
GRAPHS = [p.read_bytes() for p in sorted((DATA / "graphs").glob("*.yaml"))]
WORDS = [(DATA / "vocabularies" / "default.yaml").read_bytes()]
PARTS = (
    *(b"&a ", b"*a", b"<<: *a", b"&a [*a]", b"!!python/name:os.system", b"!!int x", b"!!int", b"!!binary", b"!!set"),
    *(b"!!timestamp x", b"!!float x", b"!!omap", b"[", b"{", b"]", b"}", b": ", b"? ", b"- ", b"\t", b"|", b">", b"'"),
    *(b'"\\ud800"', b'"\\ud83d\\ude00"', b"~", b".inf", b"9" * 5000, b"\n---\n", b"%YAML 2.0\n", b"#", b"\xe2\x80\xa8"),
    *(b"yes", b"@", b"`", b"0x_", b"2024-99-99", b"=", b"<<", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\\x00", b"\xc2\x85"),
)


def odd_yaml(raw: bytes, rng: random.Random) -> bytes:
    """The text mangled, with pieces of YAML put in, once or over and over."""
    out = bytearray(mangled(raw, rng) if rng.random() < 0.5 else raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        out[at:at] = rng.choice(PARTS) * rng.choice((1, 1, 1, 3, 300))
    return bytes(out)


def graph_of(path: Path) -> None:
    """A graph that is taken can be written, read back, recorded, and be added to or refuses to."""
    graph = ConceptGraph.load(path)
    assert ConceptGraph.from_dict(graph.to_dict()).to_dict() == graph.to_dict()
    json.dumps(graph.to_dict(), ensure_ascii=False).encode()
    more = {"zz new": ({"coarse": "zz family", "abstract": [], "prompts": ["x"]}, "new")}
    text = graph_file.append(path.read_text(encoding="utf-8-sig"), more, source=str(path))
    assert set(graph_file.check(text, path).fine) == {*graph.fine, "zz new"}


YAML = {
    "graph": (GRAPHS, graph_of),
    "vocabulary": (WORDS, Vocabulary.load),
    "settings": (
        [b"diffusion: {t: 0.4, draws: 4}\ndetector:\n  nms_iou: 0.5\nworkers: 2\n"],
        lambda path: config.load_yaml(config.ScoreConfig, path),
    ),
    "labels": ([b"void\ncrack\n# odd\nscratch\n"], graph_file.read_labels),
}


@pytest.mark.parametrize("kind", YAML)
def test_a_mutated_text_file_is_read_or_one_short_sentence(tmp_path, kind):
    seeds, read = YAML[kind]
    rng, path = random.Random(f"{SEED} {kind}"), tmp_path / "f.yaml"
    for seed in seeds:  # that mutants are refused says something only where what they are made from is read
        path.write_bytes(seed)
        read(path)
    wrong, taken = [], 0
    for k in range(COUNT):
        path.write_bytes(raw := odd_yaml(rng.choice(seeds), rng))
        started = time.process_time()
        try:
            read(path)
            taken += 1
        except ValueError as error:
            text = str(error)
            if not text.startswith(str(path)) or len(text) - len(str(path)) > 300 or not text.isprintable():
                wrong.append((k, raw[:300], text[:300]))
        except Exception as error:
            wrong.append((k, raw[:300], f"{type(error).__name__}: {error}"[:300]))
        if time.process_time() - started > SLOW:
            wrong.append((k, raw[:300], "slow"))
    assert wrong == []
    assert taken < COUNT, "some are refused"


def pictures() -> dict[str, bytes]:
    """A small image in each format, turned where a format can say so."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 100)
    kinds = {
        "png": (Image.fromarray(pixels), {"exif": exif}),
        "jpg": (Image.fromarray(pixels), {"exif": exif, "comment": "c", "dpi": (72, 72)}),
        "tif": (Image.fromarray(pixels), {"tiffinfo": {0x0112: 6}}),
        "webp": (Image.fromarray(pixels), {"exif": exif}),
        "gif": (Image.fromarray(pixels).convert("P"), {"save_all": True, "append_images": [deep.convert("P")]}),
        "bmp": (Image.fromarray(pixels), {}),
        "jp2": (Image.fromarray(pixels), {}),
        "ico": (Image.fromarray(pixels), {}),
        "pgm": (deep, {}),
    }
    out = {}
    for suffix, (image, how) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, Image.registered_extensions()[f".{suffix}"], **how)
        out[suffix] = buffer.getvalue()
    return out


@pytest.mark.parametrize(("suffix", "raw"), pictures().items(), ids=pictures().keys())
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_image_is_read_or_one_short_sentence(tmp_path, suffix, raw):
    rng, path = random.Random(f"{SEED} {suffix}"), tmp_path / f"f.{suffix}"
    for _ in range(COUNT):
        path.write_bytes(mangled(raw, rng) or b"x")
        started = time.process_time()
        for ask in (images.read_image, images.upright_size, images.raw_size, images.orientation):
            try:
                ask(path)
            except images.ImageError as error:
                assert str(path) in str(error) and len(error.reason) < 250 and error.reason.isprintable()
        assert time.process_time() - started < SLOW
