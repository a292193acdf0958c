"""What a shard holds, against webdataset and tarfile, and what is said of broken ones."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_iterator

from tokenmix.data.tars import read_contents


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write(path: Path, files: dict[str, bytes] | list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files.items() if isinstance(files, dict) else files:
            add(tar, name, content)
    return path


def webdataset_reads(path: Path) -> list[dict]:
    with path.open("rb") as stream:  # webdataset.WebDataset would leave it open
        files = [file | {"__url__": str(path)} for file in tar_file_iterator(stream)]
    return list(group_by_keys(files))


def read(path: Path) -> dict[str, tuple[bytes, int | str]]:
    content = path.read_bytes()
    return {
        sample.name: (content[sample.offset : sample.offset + sample.size], sample.label)
        for sample in read_contents(path).samples
    }


_NAMES = st.from_regex(r"(a\.b/|deep/er/|)[a-z_é]{1,4}", fullmatch=True)
_KINDS = st.sets(st.sampled_from(["jpg", "JPEG", "png", "cls", "json", "txt", "seg.png"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.lists(st.tuples(_NAMES, _KINDS), max_size=12, unique_by=lambda sample: sample[0]),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]),
)
def test_same_samples_as_webdataset(samples, form, tmp_path):
    files: dict[str, bytes] = {}
    for number, (key, kinds) in enumerate(samples):
        special = {"cls": str(number).encode(), "json": json.dumps({"label": 100 + number}).encode()}
        files |= {f"{key}.{kind}": special.get(kind, f"{key} {kind}".encode() * number) for kind in sorted(kinds)}
    path = write(tmp_path / "x.tar", files, form)
    expected = {}
    for sample in webdataset_reads(path):
        kinds = [kind for kind in ("jpg", "jpeg", "png") if kind in sample]
        if kinds and ("cls" in sample or "json" in sample):
            label = int(sample["cls"]) if "cls" in sample else json.loads(sample["json"])["label"]
            expected[sample["__key__"]] = (sample[kinds[0]], label)
    contents = read_contents(path)
    found = {name.rpartition(".")[0]: value for name, value in read(path).items()}
    assert found == expected
    assert contents.damage == ""
    used = {name.rpartition(".")[0] for name in (sample.name for sample in contents.samples)}
    assert {key for key, kinds in samples if kinds} == used | {key for key, _ in contents.skipped}


def test_labels(tmp_path):
    labels = {
        "a.cls": b" 7\n",
        "b.cls": b"tabby cat",
        "c.json": b'{"cls": 3, "other": [1]}',
        "d.json": b'{"label": "dog"}',
        "e.cls": b"-1",
        "f.cls": b"",
        "g.json": b"{",
        "h.json": b'{"label": true}',
        "i.json": b"[" * 100_000,
        "j.cls": b"\xff",
        "k.txt": b"1",
        "l.json": b" " * (2**20 + 1),
    }
    files = [pair for name, text in labels.items() for pair in ((f"{name[0]}.jpg", b"x"), (name, text))]
    contents = read_contents(write(tmp_path / "x.tar", files))
    assert [sample.label for sample in contents.samples] == [7, "tabby cat", 3, "dog"]
    assert dict(contents.skipped) == {
        "e": "no label: its class is -1",
        "f": "no label: .cls is empty",
        "g": "no label: .json is not JSON",
        "h": "no label: .json has no 'label' or 'cls'",
        "i": "no label: .json is not JSON",
        "j": "no label: .cls is not UTF-8",
        "k": "no label: neither .cls nor .json",
        "l": "no label: .json has 1,048,577 bytes",
    }


def test_what_is_no_sample(tmp_path):
    path = tmp_path / "x.tar"
    files = [("__meta__.json", b"{}"), ("._a.jpg", b"x"), ("README", b"x"), ("a.txt", b"x"), ("a.cls", b"1")]
    write(path, [*files, ("b.jpg", b"x"), ("b.jpg", b"y"), ("b.cls", b"1")])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("c.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.txt"
        tar.addfile(link)
    contents = read_contents(path)
    assert contents.samples == []
    assert contents.skipped == [("a", "no picture, only .txt, .cls"), ("b", "two of its files have the same name")]


@pytest.fixture
def whole(tmp_path) -> Path:
    files = [pair for i in range(4) for pair in ((f"{i}.jpg", bytes([i]) * 700), (f"{i}.cls", b"1"))]
    return write(tmp_path / "whole.tar", files)


def test_every_truncation_is_noticed(whole, tmp_path):
    """A sample takes 2 x 512 + 1,024 + 512 bytes; the end mark begins after four."""
    content, cut = whole.read_bytes(), tmp_path / "cut.tar"
    for length in [*range(0, 4 * 2560 + 512, 128), 2560 + 1, 4 * 2560 + 511]:
        cut.write_bytes(content[:length])
        contents = read_contents(cut)
        assert contents.damage, length
        # Complete are the samples whose .cls is there up to its one byte.
        assert len(contents.samples) == sum(length >= 2560 * i + 2048 + 1 for i in range(4)), length
    cut.write_bytes(content[: 2560 * 2 + 600])
    assert read_contents(cut).damage == "it ends after 5,720 bytes, within 2.jpg: what follows 1.jpg is lost"


def test_a_broken_header_is_noticed(whole):
    """The module tarfile alone takes it for the end of the archive."""
    content = bytearray(whole.read_bytes())
    content[2560 * 2 + 3] ^= 1
    whole.write_bytes(content)
    with tarfile.open(whole) as tar:
        assert len(tar.getmembers()) == 4
    contents = read_contents(whole)
    assert contents.damage == "the header at byte 5,120 is broken: what follows 1.jpg is lost"
    assert len(contents.samples) == 2


def test_what_is_no_tar(tmp_path, whole):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "a.jpg", b"x")
    assert "it is compressed" in read_contents(path).damage
    path.write_bytes(b"<html>not found</html>" * 100)
    assert "it is no whole tar file" in read_contents(path).damage
    path.write_bytes(b"")
    assert read_contents(path).damage == "it is empty: all is lost"
    write(path, {})
    assert read_contents(path) == ([], [], "")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 12_000), value=st.integers(0, 255), length=st.integers(0, 12_000))
def test_garbage_never_raises(place, value, length, whole):
    content = bytearray(whole.read_bytes())
    content[min(place, len(content) - 1)] = value
    path = whole.with_name("garbage.tar")
    path.write_bytes(content[:length])
    contents = read_contents(path)
    assert all(sample.offset + sample.size <= length for sample in contents.samples)
