"""The one image reader against Pillow's own conversions, plain arithmetic, and files that are broken by hand."""

import io
import os
import pickle
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from gsal_fo import images
from gsal_fo.images import ImageError, open_upright, orientation, raw_size, read_image, upright_size

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)  # 10 wide, 6 high


def exif(turn):
    out = Image.Exif()
    out[0x0112] = turn
    return out


def chunk(kind, data, crc=None):
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def png(*extra, pixels=COLOR):
    """A PNG file with more chunks before its pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(extra) + data[at:]


def header(width, height, depth=8, color=2):
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def by_the_book(path):
    """The slow way: every step by Pillow's own functions, deep values in double precision."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):
        deep = np.asarray(image).astype(np.float64)
        low, high = np.percentile(deep[np.isfinite(deep)], (0.1, 99.9))
        gray = np.clip((np.nan_to_num(deep, nan=low) - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
        return np.stack([gray] * 3, 2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def kinds():
    gray = Image.fromarray(COLOR[..., 0])
    color = Image.fromarray(COLOR)
    alpha = color.convert("RGBA")
    alpha.putalpha(gray)
    deep = RNG.integers(900, 4000, (6, 10)).astype(np.uint16)
    floats = RNG.normal(0, 5, (6, 10)).astype(np.float32)
    floats[0, 0], floats[1, 1] = np.nan, -1e30
    yield "color.png", color, {}
    yield "color.jpg", color, {"quality": 90}
    yield "color.bmp", color, {}
    yield "color.webp", color, {"lossless": True}
    yield "gray.png", gray, {}
    yield "gray.jpg", gray, {}
    yield "bits.png", gray.convert("1"), {}
    yield "palette.png", color.convert("P"), {}
    yield "palette.gif", color.convert("P"), {}
    yield "clear palette.png", color.convert("P"), {"transparency": 3}
    yield "clear gray.png", gray, {"transparency": 7}
    yield "alpha.png", alpha, {}
    yield "gray alpha.png", alpha.convert("LA"), {}
    yield "print.jpg", color.convert("CMYK"), {"quality": 90}
    yield "print.tif", color.convert("CMYK"), {}
    yield "lab.tif", color.convert("LAB"), {}
    yield "ycc.jpg", color.convert("YCbCr"), {}
    yield "frames.gif", color.convert("P"), {"save_all": True, "append_images": [gray.convert("P")]}
    yield "frames.png", color, {"save_all": True, "append_images": [ImageOps.invert(color)]}
    yield "pages.tif", color, {"save_all": True, "append_images": [ImageOps.invert(color)]}
    yield "deep.png", Image.fromarray(deep), {}
    yield "deep.tif", Image.fromarray(deep), {}
    yield "deep.pgm", Image.fromarray(deep), {}
    yield "deeper.tif", Image.fromarray(deep.astype(np.int32) * 70000 - 2**27), {}
    yield "floats.tif", Image.fromarray(floats), {}
    yield "even.png", Image.fromarray(np.full((6, 10), 700, np.uint16)), {}
    for turn in range(1, 9):
        yield f"turn{turn}.jpg", color, {"exif": exif(turn), "quality": 90}
        yield f"turn{turn}.png", color, {"exif": exif(turn)}
        yield f"turn{turn}.webp", color, {"exif": exif(turn), "lossless": True}
        yield f"turn{turn}.tif", color, {"tiffinfo": {0x0112: turn}}
        yield f"deep turn{turn}.png", Image.fromarray(deep), {"exif": exif(turn)}


@pytest.mark.parametrize(("name", "image", "how"), [pytest.param(*k, id=k[0]) for k in kinds()])
def test_every_kind_of_image_comes_out_as_pillow_shows_it(tmp_path, name, image, how):
    path = tmp_path / name
    image.save(path, **how)
    got, _ = read_image(path)
    if name == "even.png":
        want = np.zeros((6, 10, 3), np.uint8)  # nothing differs: nothing to stretch
    else:
        want = by_the_book(path)
    assert got.dtype == np.uint8 and got.flags.writeable
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.asarray(open_upright(path)), want)
    assert upright_size(path) == want.shape[1::-1]
    turn = int(name.split("turn")[1][0]) if "turn" in name else 1
    assert orientation(path) == turn and raw_size(path) == (10, 6)
    assert upright_size(path) == ((6, 10) if turn > 4 else (10, 6))


def test_gray_color_and_exif_come_out_as_upright_rgb(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    Image.fromarray(pixels).save(tmp_path / "color.png")
    np.testing.assert_array_equal(read_image(tmp_path / "color.png")[0], pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png")[0], np.repeat(pixels[..., :1], 3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png")[0], np.rot90(pixels, -1))


def test_sixteen_bits_use_the_range_that_is_there(tmp_path):
    ramp = np.linspace(1000, 5000, 64 * 64).astype(np.uint16).reshape(64, 64)  # 12-bit data in a 16-bit file
    ramp[0, 0] = 65535  # one hot pixel
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    got = read_image(tmp_path / "deep.png")[0][..., 0].astype(int)
    want = (ramp.astype(float) - 1000) / 4000 * 255
    assert np.abs(got - want).ravel()[5:-5].max() < 3  # 0.1 % at either end is clipped


def test_transparency_lies_on_black(tmp_path):
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    image.save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png")[0][0], [[200, 100, 50], [0, 0, 0]])


def test_the_digest_is_of_the_file_not_of_its_name(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    Image.new("L", (4, 4), 1).save(tmp_path / "c.png")
    digests = [read_image(tmp_path / f"{n}.png")[1] for n in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_infinite_pixels_are_black_and_white_and_no_warning(tmp_path):
    floats = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    floats[2, 2], floats[3, 3], floats[4, 4] = np.inf, -np.inf, np.nan
    Image.fromarray(floats).save(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "n.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = read_image(tmp_path / "f.tif")[0][..., 0]
        assert not read_image(tmp_path / "n.tif")[0].any()
    assert got[2, 2] == 255 and got[3, 3] == got[4, 4] == 0


BROKEN_METADATA = {
    "EXIF that is no EXIF": chunk(b"eXIf", b"b'Exif'"),
    "EXIF that ends early": chunk(b"eXIf", exif(6).tobytes()[6:16]),
    "EXIF with a wrong checksum": chunk(b"eXIf", exif(6).tobytes()[6:], crc=7),
    "empty EXIF": chunk(b"eXIf", b""),
    "raw profile that is no hex": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 6\nnot hex\n"),
    "text with a wrong checksum": chunk(b"tEXt", b"a\0b", crc=7),
    "color profile that is no zlib stream": chunk(b"iCCP", b"icc\0\0nothing"),
    "color profile of an unknown kind": chunk(b"iCCP", b"icc\0\7nothing"),
    "text of many megabytes": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1))),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short size in meters": chunk(b"pHYs", b"\0"),
}


@pytest.mark.parametrize("extra", BROKEN_METADATA.values(), ids=BROKEN_METADATA.keys())
def test_broken_metadata_leaves_a_png_readable_and_unturned(tmp_path, extra):
    path = tmp_path / "a.png"
    path.write_bytes(png(extra))
    np.testing.assert_array_equal(read_image(path)[0], COLOR)
    assert (upright_size(path), raw_size(path), orientation(path)) == ((10, 6), (10, 6), 1)


def test_whole_exif_counts_beside_another_broken_chunk(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(chunk(b"eXIf", exif(6).tobytes()[6:]), chunk(b"tEXt", b"a\0b", crc=7)))
    np.testing.assert_array_equal(read_image(path)[0], np.rot90(COLOR, -1))
    assert (upright_size(path), raw_size(path), orientation(path)) == ((6, 10), (10, 6), 6)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path, value):
    Image.fromarray(COLOR).save(tmp_path / "a.png", exif=exif(value))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], COLOR)
    assert orientation(tmp_path / "a.png") == 1


def test_a_scan_beyond_pillows_limit_is_read_and_its_size_known(tmp_path):
    path = tmp_path / "scan.png"
    Image.new("1", (14000, 13500), 1).save(path)  # 189 million pixels
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert upright_size(path) == (14000, 13500)
    got, _ = read_image(path)
    assert got.shape == (13500, 14000, 3) and got.min() == 255


def test_what_would_not_fit_into_memory_is_refused_by_its_header(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(header(30000, 30000))
    assert upright_size(path) == (30000, 30000)
    with pytest.raises(ImageError, match=r"30,000 x 30,000 pixels, and at most 536,870,912 are read; cut it") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    path.write_bytes(header(23170, 23170))  # within the limit: memory decides, then the missing pixels do
    with pytest.raises(ImageError) as caught:
        read_image(path)
    fits = psutil.virtual_memory().available > 32 * 23170**2
    assert ("truncated or damaged" if fits else "GiB are free") in caught.value.reason


def test_memory_that_is_not_there_is_said_before_a_byte_is_decoded(tmp_path, monkeypatch):
    Image.new("L", (9000, 9000)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "BYTES_PER_PIXEL", 2**20)  # as on a machine with little of it
    with pytest.raises(ImageError, match=r"9,000 x 9,000 pixels, which takes about 79101.6 GiB"):
        read_image(tmp_path / "a.png")


UNREADABLE = {
    "empty": (b"", "the file is empty"),
    "text": (b"not an image", "not an image that Pillow can read"),
    "no pixels": (png()[:60], "truncated or damaged"),
    "signature alone": (png()[:8], "not an image"),
    "size of zero": (header(0, 5), "not an image|nothing to see|truncated"),
    "absurd size": (header(2**31 - 1, 2**31 - 1), "at most"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
    "stub": (b"\x89HDF\r\n\x1a\n" + bytes(99), "nothing to see"),
    "broken PSD": (b"8BPS\0\1" + bytes(20), "truncated or damaged|not an image"),
    "broken ICNS": (b"icns\0\0\0\x10ic07\0\0\0\x08", "truncated or damaged|not an image"),
    "broken FITS": (b"SIMPLE  =                    T" + b" " * 50, "truncated or damaged|not an image"),
    "broken DDS": (b"DDS " + struct.pack("<I", 124) + bytes(120), "truncated or damaged|not an image|nothing"),
    "broken QOI": (b"qoif" + struct.pack(">IIBB", 5, 5, 3, 0), "truncated or damaged"),
    "broken JPEG 2000": (b"\xff\x4f\xff\x51" + bytes(40), "truncated or damaged|not an image|nothing"),
    "broken TIFF": (b"II*\0\x08\0\0\0\xff\xff" + bytes(99), "truncated or damaged|not an image"),
}


@pytest.mark.parametrize(("data", "reason"), UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_image_is_one_sentence_that_names_the_file(tmp_path, data, reason):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    text = str(caught.value)
    assert text == f"the image {path} cannot be used: {caught.value.reason}"
    assert len(caught.value.reason) < 250 and text.isprintable()


def test_a_file_that_cannot_be_opened_says_why(tmp_path):
    for path, reason in [
        (tmp_path / "gone.png", "the file is missing"),
        (tmp_path, "the file cannot be read (Is a directory)"),
        (tmp_path / ("x" * 300), "the file cannot be read (File name too long)"),
        (tmp_path / "a\0b.png", "the file cannot be read (embedded null byte)"),
    ]:
        for ask in (read_image, open_upright, upright_size, raw_size, orientation):
            with pytest.raises(ImageError) as caught:
                ask(path)
            assert caught.value.reason == reason


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="no ordinary file"):
        read_image(tmp_path / "a.png")


def test_a_file_of_many_gigabytes_is_refused_by_its_length(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(5 * 2**30)  # sparse
    with pytest.raises(ImageError, match=r"5,368,709,120 bytes, and at most 4,294,967,296 are read"):
        read_image(tmp_path / "a.png")


def test_warnings_as_errors_change_nothing(tmp_path):
    Image.new("1", (12000, 9000), 1).save(tmp_path / "a.png")  # Pillow alone warns of 108 million pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png")[0].all()


def test_an_error_crosses_processes_with_its_words():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "the file is empty")))
    assert (str(error), error.reason) == ("the image a.png cannot be used: the file is empty", "the file is empty")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "bmp", "jp2", "ico", "tga", "pcx", "avif"])
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_an_image_or_an_image_error(tmp_path, suffix):
    path, rng = tmp_path / f"a.{suffix}", np.random.default_rng(1)
    how = {"exif": exif(6)} if suffix in ("png", "jpg", "webp", "tif") else {}
    Image.fromarray(np.resize(COLOR, (16, 16, 3))).save(path, **how)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        data = whole.copy()
        at = rng.integers(0, min(len(data), 200), rng.integers(1, 6))
        data[at] = rng.integers(0, 256, len(at))
        path.write_bytes(data[: len(data) if rng.random() < 0.7 else rng.integers(1, len(data))].tobytes())
        for ask in (read_image, upright_size, raw_size, orientation):
            try:
                ask(path)
            except ImageError as error:
                assert len(error.reason) < 250 and error.reason.isprintable()


def test_nobody_else_opens_image_files():
    root = Path(images.__file__).parents[1]
    files = [p for d in ("gsal_fo", "lightning_modules", "plugins") for p in (root / d).rglob("*.py")]
    assert len(files) > 100
    opens = re.compile(r"\bImage\.open\(|cv2\.imread|imageio|torchvision\.io|plt\.imread")
    assert [p.name for p in files if opens.search(p.read_text(encoding="utf-8"))] == []
