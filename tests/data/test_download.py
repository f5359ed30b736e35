"""Downloads against a server on this machine: resumed, checked, recorded, and each failure one line that names the mend."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import FileServer, serving

from audiograft.data import download as module
from audiograft.data.download import Download, fetch
from audiograft.types import ConfigError, DataError

CONTENT = bytes(range(256)) * 4000
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    monkeypatch.delenv(module.MIRROR_VARIABLE, raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as shop:
        shop.files["corpus.bin"] = CONTENT
        yield shop


def wanted(server: FileServer, checksum: str | None = MD5) -> Download:
    return Download(f"{server.address}/corpus.bin", "corpus.bin", checksum, unpack=False)


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_fetched_once(server: FileServer, tmp_path: Path) -> None:
    path = fetch(wanted(server), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "corpus.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(wanted(server), path.parent) == path
    assert server.requests == [("corpus.bin", "")]
    assert not list(path.parent.glob("*.part*"))


def test_progress_reaches_the_end_and_is_said_on_stderr_by_default(server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[int, int | None]] = []
    fetch(wanted(server), tmp_path / "a", on_bytes=lambda have, total: heard.append((have, total)))
    assert heard[0] == (0, len(CONTENT))
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert capfd.readouterr() == ("", "")
    fetch(wanted(server), tmp_path / "b")
    assert capfd.readouterr() == ("", "fetching corpus.bin, 1.0 MB\n")


def test_a_broken_stream_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [400_000, 300_000, None]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=400000-", "bytes=700000-"]


def test_a_line_that_breaks_often_but_gets_on_is_not_given_up(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [100_000] * 10
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 11


def test_a_server_without_ranges_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [400_000, None]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=400000-"]


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [400_000] * 100
    with pytest.raises(DataError, match=r"broke off at 0\.4 MB \(1\.0 MB were announced\): run it again") as error:
        fetch(wanted(server), tmp_path)
    one_line(error)
    assert len(server.requests) == 5


def test_another_run_goes_on_with_what_there_is(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [400_000] + [0] * 4
    with pytest.raises(DataError, match="run it again, it goes on from there"):
        fetch(wanted(server), tmp_path)
    assert (tmp_path / "corpus.bin.part").stat().st_size == 400_000
    assert not (tmp_path / "corpus.bin").exists()
    server.requests.clear()
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("corpus.bin", "bytes=400000-")]


def test_a_file_that_changed_meanwhile_is_not_joined_to_the_old_part(server: FileServer, tmp_path: Path) -> None:
    server.tags["corpus.bin"] = '"first"'
    server.cut_after = [400_000] + [0] * 4
    with pytest.raises(DataError):
        fetch(wanted(server, None), tmp_path)
    server.files["corpus.bin"], server.tags["corpus.bin"] = CONTENT[::-1], '"second"'
    assert fetch(wanted(server, None), tmp_path).read_bytes() == CONTENT[::-1]
    assert not list(tmp_path.glob("*.part*"))


def test_a_part_that_is_all_there_is_taken(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "corpus.bin.part").write_bytes(CONTENT)
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "corpus.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_fails_for_a_while_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [500, 503, 429]
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_goes_on_failing_is_one_line(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [500] * 9
    with pytest.raises(DataError, match=r"corpus\.bin: broke off at 0 bytes \(HTTP 500 Internal Server Error\): run it again") as error:
        fetch(wanted(server), tmp_path)
    one_line(error)
    assert len(server.requests) == 5


def test_a_file_that_is_gone_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(DataError, match=r"HTTP 404 Not Found: name a mirror, or fetch it by hand as .*corpus\.bin$") as error:
        fetch(wanted(server), tmp_path)
    one_line(error)
    assert len(server.requests) == 1


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError, match=rf"^http://127\.0\.0\.1:{port}/x: broke off at 0 bytes \(.*refused\): run it again"):
        fetch(Download(f"http://127.0.0.1:{port}/x", "x", None), tmp_path)


def test_wrong_bytes_are_put_aside_and_never_used(server: FileServer, tmp_path: Path) -> None:
    server.files["corpus.bin"] = b"<html>please log in</html>"
    with pytest.raises(DataError, match=rf"corpus\.bin\.wrong: is md5:\w+, but {MD5} was published: run it again") as error:
        fetch(wanted(server), tmp_path)
    one_line(error)
    assert not (tmp_path / "corpus.bin").exists()
    server.files["corpus.bin"] = CONTENT
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


def test_a_file_that_was_put_there_by_hand_is_checked_and_used(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "corpus.bin").write_bytes(CONTENT)
    fetch(wanted(server), tmp_path)
    assert server.requests == []
    (tmp_path / "corpus.bin").write_bytes(b"else")
    with pytest.raises(DataError, match=r"\.wrong: is"):
        fetch(wanted(server), tmp_path)


def test_without_a_published_checksum_the_first_one_seen_counts(server: FileServer, tmp_path: Path) -> None:
    path = fetch(wanted(server, None), tmp_path)
    record = json.loads((tmp_path / "corpus.bin.fetched.json").read_text(encoding="utf-8"))
    assert record["checksum"] == "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    path.unlink()
    server.files["corpus.bin"] = b"another edition"
    with pytest.raises(DataError, match=r"came the first time: if the corpus has a new edition, delete .*corpus\.bin\.fetched\.json$") as error:
        fetch(wanted(server, None), tmp_path)
    one_line(error)
    (tmp_path / "corpus.bin.fetched.json").unlink()
    assert fetch(wanted(server, None), tmp_path).read_bytes() == b"another edition"


def test_a_file_that_changed_on_the_disk_is_seen_though_its_size_is_the_same(server: FileServer, tmp_path: Path) -> None:
    path = fetch(wanted(server, None), tmp_path)
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(DataError, match="came the first time"):
        fetch(wanted(server, None), tmp_path)


def test_a_length_that_nobody_states_is_taken_as_it_comes(server: FileServer, tmp_path: Path) -> None:
    server.lengths = False
    assert fetch(wanted(server), tmp_path).read_bytes() == CONTENT


def test_an_archive_is_unpacked_and_may_then_be_deleted(server: FileServer, tmp_path: Path) -> None:
    server.files["c.zip"] = zipped(**{"corpus/a.txt": b"a"})
    archive = Download(f"{server.address}/c.zip", "c.zip")
    assert fetch(archive, tmp_path) == tmp_path
    assert (tmp_path / "corpus/a.txt").read_bytes() == b"a"
    (tmp_path / "c.zip").unlink()
    fetch(archive, tmp_path)
    assert len(server.requests) == 1


def test_an_archive_that_was_not_unpacked_whole_is_unpacked_again(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["c.zip"] = zipped(**{"corpus/a.txt": b"a", "corpus/b.txt": b"b"})
    archive = Download(f"{server.address}/c.zip", "c.zip")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("audiograft.data.archives.shutil.move", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(archive, tmp_path)
    assert not (tmp_path / "corpus").exists()
    fetch(archive, tmp_path)
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == ["a.txt", "b.txt"]
    assert len(server.requests) == 1


def test_a_dangerous_archive_leaves_nothing(server: FileServer, tmp_path: Path) -> None:
    server.files["c.zip"] = zipped(**{"fine.txt": b"a", "../../etc/passwd": b"root::0:0::/:/bin/sh"})
    with pytest.raises(DataError, match=r"member '\.\./\.\./etc/passwd' would be written outside the folder"):
        fetch(Download(f"{server.address}/c.zip", "c.zip"), tmp_path / "in" / "corpus")
    assert sorted(path.name for path in (tmp_path / "in" / "corpus").iterdir() if path.suffix != ".lock") == ["c.zip"]
    assert not (tmp_path / "etc").exists()


def test_a_mirror_stands_in_for_the_address(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = Download("http://127.0.0.1:9/never", "corpus.bin", MD5, unpack=False)
    assert fetch(far, tmp_path / "a", mirror=server.address + "/").read_bytes() == CONTENT
    monkeypatch.setenv(module.MIRROR_VARIABLE, server.address)
    assert fetch(far, tmp_path / "b").read_bytes() == CONTENT
    with pytest.raises(ConfigError, match=r"^elsewhere: no address of a mirror: give one that begins with https://$"):
        fetch(far, tmp_path / "c", mirror="elsewhere")


def test_a_disk_that_is_full_is_one_line_and_what_there_is_stays(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "corpus.bin.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"corpus\.bin: can't be written \(No space left on device\): free space") as error:
        fetch(wanted(server), tmp_path)
    one_line(error)
    assert len(server.requests) == 1


def test_a_disk_that_is_too_small_is_seen_before(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"needs 1\.0 MB, and .* has 1000 bytes left: free space$"):
        fetch(wanted(server), tmp_path)
    assert not (tmp_path / "corpus.bin.part").exists()


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """One that may be read and not written: as nobody where the tests run as root, who may write anywhere."""
    with tempfile.TemporaryDirectory() as folder:
        user = os.geteuid()
        os.chmod(folder, 0o555)
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)
        os.chmod(folder, 0o755)


def test_a_folder_that_may_not_be_written_is_one_line(server: FileServer, closed_folder: Path) -> None:
    with pytest.raises(DataError, match=r"can't be written \(Permission denied\)"):
        fetch(wanted(server), closed_folder / "below")


def test_two_that_want_the_same_file_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    server.files["c.tar"] = tarred("corpus/a.bin", CONTENT * 5)
    archive = Download(f"{server.address}/c.tar", "c.tar")
    failures: list[Exception] = []

    def worker() -> None:
        try:
            fetch(archive, tmp_path)
            assert (tmp_path / "corpus/a.bin").stat().st_size == 5 * len(CONTENT)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(server.requests) == 1


def tarred(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def test_a_broken_record_names_itself(server: FileServer, tmp_path: Path) -> None:
    record = tmp_path / "corpus.bin.fetched.json"
    record.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"corpus\.bin\.fetched\.json: can't be read \(.*\): delete it"):
        fetch(replace(wanted(server), checksum=None), tmp_path)
