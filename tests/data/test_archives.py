"""Archives are unpacked whole or not at all, and never outside the folder that was named."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from audiograft.data.archives import ArchiveError, unpack
from audiograft.types import DataError

Member = tuple[str, bytes | str]
"""A name, and content or what a symbolic link leads to."""


def tarred(path: Path, *members: Member | tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info, content = tarfile.TarInfo(member[0]), member[1]
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *members: Member) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if isinstance(content, str) else stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


CORPUS: tuple[Member, ...] = (("corpus/one.txt", b"1" * 3_000_000), ("corpus/deep/two.txt", b"2"), ("corpus/empty.txt", b""))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("c.zip", lambda path: zipped(path, *CORPUS)),
        ("c.tar", lambda path: tarred(path, *CORPUS)),
        ("c.tar.gz", lambda path: tarred(path, *CORPUS, mode="w:gz")),
        ("c.tgz", lambda path: tarred(path, *CORPUS, mode="w:gz")),
        ("c.tar.bz2", lambda path: tarred(path, *CORPUS, mode="w:bz2")),
    ],
)
def test_each_format_is_unpacked_whole_and_again(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    archive = write(tmp_path / name)
    for _ in range(2):
        unpack(archive, tmp_path / "out")
        assert files(tmp_path / "out") == {key: content for key, content in CORPUS if isinstance(content, bytes)}
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["corpus"]


def test_two_archives_of_one_corpus_share_their_folder(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        unpack(tarred(tmp_path / f"{name}.tar", (f"Speech/{name}/a.txt", name.encode()), ("Speech/README", name.encode())), tmp_path / "out")
    assert files(tmp_path / "out") == {"Speech/dev/a.txt": b"dev", "Speech/train/a.txt": b"train", "Speech/README": b"dev"}


OUTSIDE = ["../../etc/passwd", "/etc/passwd", "fine/../../x", "..\\..\\x", "C:\\x", "C:/x", "\\\\host\\share", ".."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("write", [tarred, zipped])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str, write: Callable[..., Path]) -> None:
    (tmp_path / "deep/down").mkdir(parents=True)
    archive = write(tmp_path / "deep/down/c", ("fine.txt", b"a"), (name, b"evil"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArchiveError, match="would be written outside the folder: nothing was unpacked") as error:
        unpack(archive, tmp_path / "deep/down/out")
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "deep/down/out"])


@pytest.mark.parametrize("target", ["../secret", "/etc", "inner/../../secret"])
@pytest.mark.parametrize("write", [tarred, zipped])
def test_a_link_that_leads_outside_is_refused(tmp_path: Path, target: str, write: Callable[..., Path]) -> None:
    archive = write(tmp_path / "c", ("inner/fine.txt", b"a"), ("link", target))
    with pytest.raises(ArchiveError, match="member 'link' links to .* outside the folder"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_through_another_link_is_followed_to_its_end(tmp_path: Path) -> None:
    # By its letters `inner/up/../..` is the folder itself; but `inner/up` leads to the folder, and two steps up from there is outside.
    archive = tarred(tmp_path / "c.tar", ("inner/a", b"a"), ("out", "inner/up/../../secret"), ("inner/up", ".."))
    with pytest.raises(ArchiveError, match="member 'out' links to"):
        unpack(archive, tmp_path / "out")


def test_nothing_is_written_through_a_link_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    archive = tarred(tmp_path / "c.tar", ("door", "../secret"), ("door/x", b"evil"))
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "secret").iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_links_inside_are_kept(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "c.tar", ("a/x.txt", b"x"), ("b/y.txt", "../a/x.txt"), special("b/z.txt", tarfile.LNKTYPE, "a/x.txt"))
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == {"a/x.txt": b"x", "b/y.txt": b"x", "b/z.txt": b"x"}
    assert os.readlink(tmp_path / "out/b/y.txt") == "../a/x.txt"


@pytest.mark.parametrize("target", ["/etc/passwd", "../passwd", "missing"])
def test_a_hard_link_to_what_the_archive_does_not_hold_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "passwd").write_bytes(b"secret")
    with pytest.raises(ArchiveError, match="member"):
        unpack(tarred(tmp_path / "c.tar", special("x", tarfile.LNKTYPE, target)), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ArchiveError, match="member 'dev/null' is no file"):
        unpack(tarred(tmp_path / "c.tar", ("a", b"a"), special("dev/null", kind)), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["c.tar", "c.tar.gz", "c.tar.bz2", "c.zip"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_cut_archive_is_refused_whole(tmp_path: Path, name: str, keep: float) -> None:
    mode = {"c.tar.gz": "w:gz", "c.tar.bz2": "w:bz2"}.get(name, "w")
    members = [(f"file-{number}.bin", os.urandom(20_000)) for number in range(9)]
    archive = zipped(tmp_path / name, *members) if name == "c.zip" else tarred(tmp_path / name, *members, mode=mode)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content.rstrip(b"\0")))])
    with pytest.raises(ArchiveError, match="damaged, or no zip or tar archive .*: delete it and fetch it again") as error:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_tar_cut_between_two_members_or_with_a_broken_header_is_seen(tmp_path: Path) -> None:
    # tarfile reads both as the end of the archive.
    archive = tarred(tmp_path / "c.tar", *((f"file-{number}", b"x" * 512) for number in range(9)))
    content = archive.read_bytes()
    for damaged in (content[: 5 * 1024], content[: 5 * 1024] + b"\xff" * 512 + content[5 * 1024 + 512 :]):
        archive.write_bytes(damaged)
        with pytest.raises(ArchiveError, match="damaged"):
            unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["c.tar.gz", "c.zip"])
def test_a_flipped_bit_is_seen(tmp_path: Path, name: str) -> None:
    members = [(f"file-{number}.bin", os.urandom(20_000)) for number in range(9)]
    archive = zipped(tmp_path / name, *members) if name == "c.zip" else tarred(tmp_path / name, *members, mode="w:gz")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack(archive, tmp_path / "out")


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out/a").mkdir(parents=True)
    with pytest.raises(DataError, match="is a folder") as error:
        unpack(tarred(tmp_path / "c.tar", ("a", b"a")), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_missing_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.zip: can't be unpacked into .* \(No such file or directory\)"):
        unpack(tmp_path / "none.zip", tmp_path / "out")


@pytest.mark.parametrize("write", [tarred, zipped])
def test_unpacking_does_not_hold_a_member_in_memory(tmp_path: Path, write: Callable[..., Path]) -> None:
    archive = write(tmp_path / "c", ("big.bin", bytes(30_000_000)))
    tracemalloc.start()
    unpack(archive, tmp_path / "out")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 6_000_000
    assert (tmp_path / "out/big.bin").stat().st_size == 30_000_000


def test_the_members_of_a_tar_that_are_done_with_are_forgotten(tmp_path: Path) -> None:
    peaks = []
    for n_members in (100, 3000):
        archive = tarred(tmp_path / f"{n_members}.tar", *((f"member-{number}", b"") for number in range(n_members)))
        tracemalloc.start()
        unpack(archive, tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2900 * 250  # a TarInfo takes more; what is left is the list of names that are moved
