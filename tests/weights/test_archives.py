"""Archives of modules: what a module has comes out, and nothing else does or stays."""

import contextlib
import gzip
import io
import random
import tarfile
import tempfile
import zlib

import pytest

from biggan.errors import InputError
from biggan.weights.containers import archives
from biggan.weights.containers.graph_def import GRAPH
from mutations import read_damaged


@contextlib.contextmanager
def unpacked(path):
    with path.open("rb") as file, archives.unpacked(file, path) as folder:
        yield folder


DATA = "variables/variables.data-00000-of-00001"
MODULE = {"saved_model.pb": b"graph", "variables/variables.index": b"index", DATA: b"data" * 500}


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files; at the end of a test it must be empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def member(name, contents=b"", **attributes):
    """A member and what it holds; attributes are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.size = len(contents)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, contents


def module(prefix="", files=MODULE):
    return [member(prefix + name, contents) for name, contents in files.items()]


def write(path, members, **options):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", **options) as archive:
        for info, contents in members:
            archive.addfile(info, io.BytesIO(contents) if contents else None)
    return path


def contents_of(path):
    with unpacked(path) as folder:
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        return {name: file.read_bytes() for name, file in files.items()}


@pytest.mark.parametrize("name", ["module.tar.gz", "module.tar", "download"])
@pytest.mark.parametrize("prefix", ["", "./", "biggan-128/", "./biggan-128/", "variables/"])
def test_a_module_wherever_it_lies(tmp_path, name, prefix):
    others = [
        member(prefix + "tfhub_module.pb", b"\x08\x03"),
        member(prefix + "variables", type=tarfile.DIRTYPE),
        member(prefix + "assets/old/saved_model.pb", b"none of it"),
        member("README", b"none of it"),
    ]
    assert contents_of(write(tmp_path / name, others + module(prefix))) == MODULE


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_the_formats_of_tar(tmp_path, kind):
    top = "a" * 90 + "/"
    members = [*module(top), member("b" * 80 + "/" + "c" * 90, b"a long name")]
    assert contents_of(write(tmp_path / "module.tar.gz", members, format=kind)) == MODULE


def test_a_mistake_in_what_was_unpacked_names_the_archive(tmp_path):
    path = write(tmp_path / "module.tar", module())
    with pytest.raises(InputError) as raised, unpacked(path) as folder:
        raise InputError(f"{folder / GRAPH} is not right")
    assert str(raised.value) == f"{path}/{GRAPH} is not right"


def test_nothing_stays_when_the_user_of_it_fails(tmp_path):
    path = write(tmp_path / "module.tar", module())
    with pytest.raises(ZeroDivisionError), unpacked(path):
        raise ZeroDivisionError


def refused(path, message):
    with pytest.raises(InputError, match=message) as raised, unpacked(path):
        pass
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([member("/etc/passwd")], "member '/etc/passwd' is outside"),
        ([member("../saved_model.pb")], "member '../saved_model.pb' is outside"),
        ([member("a/../../b")], "is outside"),
        ([member("a", type=tarfile.SYMTYPE, linkname="/etc")], "neither a plain file nor a folder"),
        ([member("a", type=tarfile.LNKTYPE, linkname="b")], "neither a plain file nor a folder"),
        ([member("a", type=tarfile.CHRTYPE)], "neither a plain file nor a folder"),
        ([member("a", type=tarfile.FIFOTYPE)], "neither a plain file nor a folder"),
        ([member("a\nb", type=tarfile.FIFOTYPE)], r"member 'a\\nb' is neither"),
        ([member("a", size=5 << 30)], "claims to have 5368709120 bytes"),
        ([member("saved_model.pb", b"x")], "more than one saved_model.pb"),
        ([member("./saved_model.pb", b"x")], "more than one saved_model.pb"),
        ([member("top/saved_model.pb", b"x")], "more than one saved_model.pb"),
        ([member("top/variables/variables.data-00001-of-00002")], "more than one folder"),
        ([member(f"{i}") for i in range(1000)], "is one of more than 1000"),
    ],
)
def test_what_no_module_holds_is_refused(tmp_path, others, message):
    refused(write(tmp_path / "module.tar.gz", module() + others), message)


def test_sparse_members_are_refused(tmp_path):
    headers = {"GNU.sparse.size": "5000", "GNU.sparse.map": "5000,0"}
    hole = member(DATA, pax_headers=headers)
    path = write(tmp_path / "module.tar", [*module()[:2], hole], format=tarfile.PAX_FORMAT)
    refused(path, "is neither a plain file nor a folder")


def test_a_folder_is_not_taken_for_a_file(tmp_path):
    members = [member("saved_model.pb", type=tarfile.DIRTYPE), *module()[1:]]
    refused(write(tmp_path / "module.tar", members), "holds no TF Hub module")


@pytest.mark.parametrize("missing", [[], ["saved_model.pb"], ["variables/variables.index"]])
def test_an_archive_without_a_module_is_refused(tmp_path, missing):
    files = {name: MODULE[name] for name in MODULE if name not in missing and missing}
    path = write(tmp_path / "other.tar.gz", [member("README", b"x"), *module(files=files)])
    refused(path, "holds no TF Hub module: no saved_model.pb with variables/variables.index")


@pytest.mark.parametrize(
    "contents",
    [b"", b"some text", bytes(4000), gzip.compress(b"text", mtime=0), b"\x1f\x8b", b"\x1f\x8b\x08"],
)
def test_what_is_no_archive_is_refused(tmp_path, contents):
    path = tmp_path / "module.tar.gz"
    path.write_bytes(contents)
    refused(path, "is not a whole .tar.gz or .tar|holds no TF Hub module")


def test_a_full_disk_is_an_error_of_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    refused(write(tmp_path / "module.tar.gz", module()), "No space left on device")


@pytest.mark.parametrize("name", [DATA, "README"])
def test_bombs_are_refused_while_they_unpack(tmp_path, temporary, name):
    """A hundred megabytes of zeros pack to a hundred kilobytes."""
    path = tmp_path / "module.tar.gz"
    write(path, [*module()[:2], member(name, bytes(100 << 20))])
    assert path.stat().st_size < 200_000
    refused(path, "claims to have 104857600 bytes")


@pytest.mark.parametrize(
    ("kind", "members", "behind"),
    [
        (tarfile.PAX_FORMAT, [*module(), *(member(f"{i}", bytes(1 << 20)) for i in range(100))], 0),
        (tarfile.PAX_FORMAT, module(), 100 << 20),
        (tarfile.PAX_FORMAT, [member("x" * (8 << 20)), *module()], 0),
        (tarfile.GNU_FORMAT, [member("x" * (8 << 20)), *module()], 0),
    ],
    ids=["small pieces", "behind the end", "in a header", "in a header of GNU's"],
)
def test_bombs_are_refused_wherever_they_are(tmp_path, kind, members, behind):
    path = write(tmp_path / "module.tar.gz", members, format=kind)
    with path.open("ab") as file:
        file.write(gzip.compress(bytes(behind)) if behind else b"")
    refused(path, "contents are too large for a module")


def test_headers_within_headers_are_refused(tmp_path):
    one = tarfile.TarInfo("x")
    one.type = tarfile.XHDTYPE
    path = tmp_path / "module.tar"
    path.write_bytes(one.tobuf() * 1900)
    refused(path, "is not a whole .tar.gz or .tar")


def test_no_damage_passes(tmp_path):
    files = {**MODULE, DATA: random.Random(6).randbytes(3000)}
    path = write(tmp_path / "module.tar.gz", module(files=files))
    found = list(read_damaged(contents_of, path, 150))
    assert found.count(None) > 130
    assert all(each in (None, files) for each in found)  # damaged was gzip's date or name


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_damaged_headers_are_no_crash(tmp_path, kind):
    """Bare tar has no checksum but that of a header, which is made right again here."""
    path = write(tmp_path / "module.tar", [member("y" * 200), *module("é/")], format=kind)
    whole = path.read_bytes()
    headers = [i for i in range(0, len(whole), 512) if whole[i + 257 : i + 262] == b"ustar"]
    randoms = random.Random(7)
    for _ in range(150):
        data = bytearray(whole)
        start = randoms.choice(headers)
        for _ in range(randoms.randrange(1, 4)):
            if randoms.randrange(4):
                data[start + randoms.randrange(512)] = randoms.randrange(256)
            else:
                data[start + 512 + randoms.randrange(200)] = randoms.choice(b"0123456789= \n")
        header = bytearray(data[start : start + 512])
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
        path.write_bytes(data)
        with contextlib.suppress(InputError):
            contents_of(path)


def test_a_wrong_checksum_at_the_very_end_is_seen(tmp_path):
    path = write(tmp_path / "module.tar.gz", module())
    data = bytearray(path.read_bytes())
    assert zlib.crc32(gzip.decompress(data)).to_bytes(4, "little") == data[-8:-4]
    data[-5] ^= 1
    path.write_bytes(data)
    refused(path, "is not a whole .tar.gz or .tar .*CRC check failed")
