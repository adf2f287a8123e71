"""Digests of files, and the check that a bundle is exactly what was built."""

import hashlib


def sha256_file(path):
    # type: (...) -> str
    """Return the sha256 of a file as 64 hexadecimal digits, reading it in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
