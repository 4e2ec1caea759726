"""A folder on storage that pyarrow opens by URI: an S3-compatible server, GCS, HDFS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from tune_jobs.errors import StoreError, UserError

# On these an object appears whole when its upload is closed; elsewhere it is renamed into place.
OBJECT_STORES = ("s3", "gcs", "abfs")


def is_remote(address: str) -> bool:
    """Whether `address` is a URI of something other than this machine's files."""
    return "://" in address and not address.startswith("file://")


def joined(address: str, name: str) -> str:
    """`name` inside the folder at `address`; a URI's query stays at its end."""
    if "://" not in address:
        return str(Path(address) / name)
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


@dataclass(frozen=True)
class RemoteFolder:
    """A folder's `address` as the user gave it, its filesystem, and its path there."""

    address: str
    filesystem: Any
    path: str

    @classmethod
    def open(cls, address: str) -> RemoteFolder:
        """Open a URI such as `s3://bucket/runs`, also with `?endpoint_override=host:port`.

        Credentials come from the environment; one that stands in the URI is refused, since the
        configuration is recorded. Raises UserError.
        """
        if "@" in urlsplit(address).netloc:
            raise UserError(
                f"--runs-dir {without_credentials(address)}: credentials do not belong in a URI, "
                "which is recorded; give them in the environment (AWS_ACCESS_KEY_ID, ...)"
            )
        try:
            filesystem, path = fs.FileSystem.from_uri(address)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"--runs-dir {address}: pyarrow cannot open it ({error}); give a folder, or a URI "
                "such as s3://bucket/runs"
            ) from error
        return cls(address, filesystem, path.rstrip("/"))

    def key(self, name: str) -> str:
        """The full path of a file of this folder."""
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        found = self._tried("be read", lambda: self.filesystem.get_file_info(self.key(name)))
        return bool(found.type == fs.FileType.File)

    def written_at(self, name: str) -> float:
        """Seconds since 1970 by the storage's clock, 0 where there is no such file."""
        info = self._tried("be read", lambda: self.filesystem.get_file_info(self.key(name)))
        return float(info.mtime_ns or 0) / 1e9

    def read(self, name: str) -> bytes | None:
        """The file's content; None where there is no such file. Raises StoreError."""
        return self._tried("be read", lambda: self._read(name)) if self.exists(name) else None

    def _read(self, name: str) -> bytes:
        with self.filesystem.open_input_file(self.key(name)) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Put the file, whole or not at all. Raises StoreError."""
        self._tried("be written", lambda: self._write(self.key(name), content))

    def _write(self, key: str, content: bytes) -> None:
        whole_on_close = self.filesystem.type_name in OBJECT_STORES
        target = key if whole_on_close else f"{key}.tmp"
        if not whole_on_close:
            self.filesystem.create_dir(key.rsplit("/", 1)[0], recursive=True)
        with self.filesystem.open_output_stream(target) as stream:
            stream.write(content)
        if not whole_on_close:
            self.filesystem.move(target, key)

    def delete(self, name: str) -> None:
        if self.exists(name):
            self._tried("be written", lambda: self.filesystem.delete_file(self.key(name)))

    def names(self, under: str = "") -> list[str]:
        """The files that lie directly in this folder, or in its folder `under`."""
        place = self.key(under) if under else self.path
        selector = fs.FileSelector(place, allow_not_found=True)
        found = self._tried("be listed", lambda: self.filesystem.get_file_info(selector))
        names = (info.base_name for info in found if info.type == fs.FileType.File)
        return sorted(name for name in names if not name.endswith(".tmp"))

    def _tried(self, what: str, action: Any) -> Any:
        try:
            return action()
        except OSError as error:
            raise StoreError(
                f"{self.address} cannot {what} ({error}); check the address, that the bucket "
                "exists, and the credentials in the environment"
            ) from error


def without_credentials(address: str) -> str:
    """The URI without what stands before `@`, to be shown."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]))
