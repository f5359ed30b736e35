"""Pictures as they are decoded: images and videos of all kinds, and one line for what is none."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import builders
import numpy as np
import pytest
import soundfile
from PIL import Image

from audiograft import images
from audiograft.images import Video, check_video, load_image, load_video, media_name
from audiograft.types import ImageError

RED, BLUE = (250, 10, 10), (10, 10, 250)


def halves(width: int = 24, height: int = 16) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def colour(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(np.asarray(picture)[y, x].tolist())


def bright(picture: Image.Image, x: int, y: int) -> int:
    return int(np.asarray(picture)[y, x].mean())


def header(width: int, height: int) -> bytes:
    """A PNG that states a size and holds no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_images_of_all_kinds_are_rgb(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(halves(), form))
    for source in (path, str(path), path.read_bytes()):
        picture = load_image(source)
        assert (picture.mode, picture.size) == ("RGB", (24, 16))
        assert np.allclose(colour(picture, 3, 8), RED, atol=12)
        assert np.allclose(colour(picture, 20, 8), BLUE, atol=12)


def test_a_picture_is_turned_as_its_orientation_says() -> None:
    assert load_image(halves()).tobytes() == halves().tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise: what is on the left comes to the top
    picture = load_image(encoded(halves(), "JPEG", exif=exif))
    assert picture.size == (16, 24)
    assert np.allclose(colour(picture, 8, 3), RED, atol=12)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_a_size_is_that_of_the_picture_as_it_is_seen(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = encoded(halves(), form, exif=exif)
    assert images.image_size(picture) == load_image(picture).size == ((16, 24) if orientation >= 5 else (24, 16))


def test_a_size_needs_no_pixels() -> None:
    assert images.image_size(header(640, 480)) == (640, 480)
    with pytest.raises(ImageError, match="damaged or cut off"):
        load_image(header(640, 480))
    for broken, message in ((b"", "is empty"), (b"text", "not an image"), (header(20_000, 20_000), "megapixels")):
        with pytest.raises(ImageError, match=message):
            images.image_size(broken)


def test_what_is_transparent_is_white() -> None:
    clear = halves().convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    grey = Image.new("LA", (4, 4), (0, 128))
    palette = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    assert colour(load_image(encoded(clear)), 3, 3) == (255, 255, 255)
    assert bright(load_image(encoded(grey)), 1, 1) == 127
    seen = load_image(encoded(palette, "PNG", transparency=palette.getpixel((0, 0))))
    assert (colour(seen, 3, 8), colour(seen, 20, 8)) == ((255, 255, 255), BLUE)


def test_more_than_8_bits_keep_their_shades() -> None:
    shades = np.array([[0, 20_000, 40_000, 65_535]], dtype=np.uint16)
    picture = load_image(encoded(Image.fromarray(shades)))
    assert np.asarray(picture)[0, :, 0].tolist() == pytest.approx([0, 78, 156, 255], abs=1)
    assert bright(load_image(encoded(Image.new("1", (2, 2), 1))), 0, 0) == 255
    assert np.allclose(colour(load_image(encoded(halves().convert("CMYK"), "TIFF")), 3, 8), RED, atol=12)


def test_of_several_frames_the_first_is_the_image() -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in (RED, BLUE)]
    assert np.allclose(colour(load_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])), 4, 4), RED, atol=12)


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, builders.tone(0.2), 16_000, format="WAV")
    return buffer.getvalue()


def film(
    path: Path | io.BytesIO, shades: list[int], rate: int = 10, width: int = 32, height: int = 16, codec: str = "ffv1", form: str = "matroska"
) -> Any:
    """A video of grey frames, the left half black."""
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p" if codec == "ffv1" else "yuv420p"
        for shade in shades:
            pixels = np.full((height, width, 3), shade, dtype=np.uint8)
            pixels[:, : width // 2] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def film_bytes(*arguments: Any, **options: Any) -> bytes:
    return bytes(film(io.BytesIO(), *arguments, **options).getvalue())


def noise() -> Image.Image:
    """Of so many colours that their table is long."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))


BAD_IMAGES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "is empty (0 bytes): make or copy it again", "empty"),
    "text": (lambda: b"# no picture\n" * 20, "not an image, or damaged at its start: give PNG, JPEG", "unreadable"),
    "cut PNG": (lambda: encoded(builders.picture(90, 200, 200))[:-60], "damaged or cut off (", "unreadable"),
    "cut JPEG": (lambda: encoded(builders.picture(90, 200, 200), "JPEG")[:300], "damaged or cut off (", "unreadable"),
    "broken pixels": (lambda: header(20, 20), "damaged or cut off (", "unreadable"),
    "giant": (lambda: header(9000, 9000), "9000 x 9000 is 81 megapixels, and at most 64 are taken: make it smaller", "giant"),
    "bomb that Pillow warns of": (lambda: header(12_000, 10_000), "12000 x 10000 is 120 megapixels, and at most 64 are taken", "giant"),
    "bomb that Pillow refuses": (lambda: header(60_000, 60_000), "more than 64 megapixels: make it smaller", "giant"),
    "no pixels": (lambda: header(0, 9), "", "unreadable"),
    "sound": (wav, "is sound, no image: give it as a clip, without --image (in Python as audio=)", "unreadable"),
    "video": (lambda: film_bytes([10, 20]), "is a video, no image: give it as a video, with --video or videos=", "unreadable"),
    "phone's own": (
        lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\7" * 200,
        "is an image of a kind that is not read here (HEIC), or damaged: save it as JPEG or PNG",
        "unreadable",
    ),
    "cut GIF": (lambda: encoded(noise(), "GIF")[:200], "not an image, or damaged at its start: give PNG, JPEG", "unreadable"),
    "a program's work": (lambda: encoded(noise(), "EPS"), "is a drawing (EPS) and no picture: save it as PNG", "unreadable"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    make, said, kind = BAD_IMAGES[case]
    path = tmp_path / "a.png"
    path.write_bytes(make())
    for source, name in ((path, str(path)), (make(), "<bytes>")):
        with pytest.raises(ImageError) as error:
            load_image(source)
        assert str(error.value).startswith(f"{name}: {said}")
        assert "\n" not in str(error.value)
        assert error.value.kind == kind


def test_a_giant_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(halves())
    monkeypatch.setattr(images, "MAX_PIXELS", 300)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *args: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="24 x 16 is 0 megapixels"):
        load_image(content)


@pytest.mark.parametrize("load", [load_image, load_video, images.image_size, check_video])
def test_what_can_not_be_opened_is_one_line(tmp_path: Path, load: Callable[[Any], Any]) -> None:
    for source, said, kind in (
        (tmp_path / "none.png", "no such file: check the path", "missing"),
        (tmp_path, "is a folder: name a file in it", "unreadable"),
        ("https://example.org/a.png", "^https://example.org/a.png is an address, and addresses are never fetched: download it first", "missing"),
        ("a\0b", "can't be opened", "unreadable"),
    ):
        with pytest.raises(ImageError, match=said) as error:
            load(source)
        assert error.value.kind == kind
    with pytest.raises(ImageError, match="ndarray is no .*: give a path, the bytes of a file, or a binary file"):
        load(np.zeros((4, 4, 3), dtype=np.uint8))
    (tmp_path / "a.txt").write_text("x")
    with (tmp_path / "a.txt").open() as file, pytest.raises(ImageError, match="a.txt: opened as text: open it in binary mode, 'rb'"):
        load(file)


def test_an_image_without_pixels_is_one_line() -> None:
    with pytest.raises(ImageError, match=r"<image>: has no pixels \(0 x 5\)") as error:
        load_image(Image.new("RGB", (0, 5)))
    assert error.value.kind == "empty"


def test_open_binary_files_are_read_from_their_start_and_stay_open(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(halves()))
    for path, load in ((tmp_path / "a.png", load_image), (film(tmp_path / "a.mkv", [200] * 5), load_video)):
        with path.open("rb") as file:
            assert media_name(file) == str(path)
            file.seek(9)
            first, again = load(file), load(file)
            assert not file.closed
        assert np.array_equal(*(np.asarray(seen.frames if isinstance(seen, Video) else seen) for seen in (first, again)))
    assert load_image(io.BytesIO(encoded(halves()))).tobytes() == halves().tobytes()
    assert media_name(io.BytesIO()) == "<file>"
    with pytest.raises(ImageError, match=r"<file>: is empty \(0 bytes\)"):
        load_image(io.BytesIO())


def shades_of(video: Video) -> list[int]:
    return [int(frame[8, -2, 0]) for frame in video.frames]


def test_frames_are_taken_at_equal_distances(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", list(range(0, 200, 5)))  # 40 frames, 4 s
    video = load_video(path)
    assert (video.frames.shape, video.frames.dtype, video.fps, video.name) == ((8, 16, 32, 3), np.uint8, 2.0, str(path))
    assert shades_of(video) == pytest.approx(list(range(0, 200, 25)), abs=3)
    assert int(video.frames[:, :, :8].max()) < 6
    few = load_video(path.read_bytes(), max_frames=3)
    assert shades_of(few) == pytest.approx([0, 65, 130], abs=3)
    assert (few.fps, few.name) == (0.75, "<bytes>")
    assert len(load_video(path, fps=0.01).frames) == 1
    every = load_video(path, fps=100)
    assert (len(every.frames), every.fps) == (40, 10.0)


@pytest.mark.parametrize(("name", "codec", "form"), [("a.mp4", "mpeg4", "mp4"), ("a.webm", "libvpx-vp9", "webm"), ("a.avi", "mpeg4", "avi")])
def test_the_usual_containers_are_read(tmp_path: Path, name: str, codec: str, form: str) -> None:
    video = load_video(film(tmp_path / name, list(range(0, 200, 10)), codec=codec, form=form))
    assert shades_of(video) == pytest.approx([0, 50, 100, 150], abs=16)
    assert video.fps == pytest.approx(2.0, rel=0.06)


def test_a_gif_that_moves_is_a_video(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (shade,) * 3) for shade in (0, 80, 160, 240)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    assert shades_of(load_video(tmp_path / "a.gif")) == pytest.approx([0, 80, 160, 240], abs=12)


def test_a_video_that_lies_on_its_side_is_set_upright(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", [240] * 4, codec="mpeg4", form="mp4")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", content[place : place + 36])[0] == 1 << 16
    # A quarter, clockwise, as phones write it: what lies on the left comes to the top.
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    video = load_video(bytes(content))
    assert video.frames.shape[1:] == (32, 16, 3)
    assert int(video.frames[0, 4].max()) < 30
    assert int(video.frames[0, 28].min()) > 200


def test_large_frames_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mkv", list(range(0, 200, 5)))
    monkeypatch.setattr(images, "_MAX_VIDEO_PIXELS", 4 * 32 * 16)
    assert shades_of(load_video(path)) == pytest.approx([0, 50, 100, 150], abs=3)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match=r"a.mkv: 32 x 16 is 0 megapixels, and at most .* make it smaller") as error:
        load_video(path)
    assert error.value.kind == "giant"


def test_a_video_is_in_memory_once(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", list(range(0, 200, 5)), width=160, height=96)
    load_video(path, max_frames=1)  # what is imported takes memory too
    tracemalloc.start()
    try:
        video = load_video(path, fps=100)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(video.frames) == 40
    assert peak_bytes < 1.5 * video.frames.nbytes


def no_frames() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        container.start_encoding()
    return buffer.getvalue()


BAD_VIDEOS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty (0 bytes)"),
    "no frames": (no_frames, "holds no frames: record or export it again"),
    "text": (lambda: b"# no video\n" * 20, "not a video, or damaged: give MP4"),
    "sound": (wav, "is sound without pictures: give it as a clip, without --video (in Python as audio=)"),
    "image": (lambda: encoded(halves()), "is an image: give it as an image, with --image or images="),
    "noise in a container": (lambda: film_bytes([9] * 4, codec="mpeg4", form="mp4")[:200] + b"\7" * 900, "holds no video: name a file with pictures"),
}


@pytest.mark.parametrize("case", BAD_VIDEOS)
def test_a_bad_video_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    make, said = BAD_VIDEOS[case]
    path = tmp_path / "a.mp4"
    path.write_bytes(make())
    with pytest.raises(ImageError) as error:
        load_video(path)
    assert str(error.value).startswith(f"{path}: {said}")
    assert "\n" not in str(error.value)


def test_the_header_of_a_video_is_checked_without_decoding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_frame_times", lambda *arguments: pytest.fail("all of it was read"))
    check_video(film(tmp_path / "a.mkv", [10, 20]))
    for content, said in (
        (wav(), "is sound without pictures: give it as a clip"),
        (encoded(halves()), "is an image: give it as an image"),
        (b"# no video\n" * 20, "not a video, or damaged"),
        (b"", "is empty"),
    ):
        with pytest.raises(ImageError, match=said):
            check_video(content)
    monkeypatch.setattr(images, "MAX_PIXELS", 300)
    with pytest.raises(ImageError, match="32 x 16 is 0 megapixels"):
        check_video(tmp_path / "a.mkv")


def test_importing_it_decodes_nothing() -> None:
    code = "import sys; import audiograft.images; print([name for name in ('PIL', 'numpy', 'av', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
