"""What is asked of an OCI registry, with the standard library: blobs and manifests, there and back."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from edgetune.errors import ArtefactError, TargetError

__all__ = ["Registry"]

DEADLINE_S = 60.0
PIECE = 1 << 20
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
CREDENTIALS = "EDGETUNE_REGISTRY_AUTH"
"""The environment variable that holds USER:PASSWORD for a registry; nothing else is read, nothing is kept."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects of blobs to a store, without the registry's credentials."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """Return the next request, without Authorization if it leaves the host."""
        new = super().redirect_request(*args)
        old: urllib.request.Request = args[0]
        if new is not None and urllib.parse.urlsplit(new.full_url).netloc != urllib.parse.urlsplit(old.full_url).netloc:
            new.remove_header("Authorization")
        return new


class Registry:
    """One repository of a registry: HTTPS, but for a registry on this machine.

    Args:
        host: with its port.
        name: of the repository.
        actions: what tokens are asked for: `pull` or `pull,push`.
    """

    def __init__(self, host: str, name: str, actions: str) -> None:
        self._base = f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{name}"
        self._host, self._scope = host, f"repository:{name}:{actions}"
        self._authorization = ""
        self._opener = urllib.request.build_opener(_Redirects)

    def put_blob(self, digest: str, content: bytes) -> None:
        """Store bytes, unless they are there already.

        Raises:
            TargetError: the registry cannot be reached or does not take them.
        """
        if self._ask("HEAD", f"/blobs/{digest}", accept=(200, 404)).status == 200:
            return
        started = self._ask("POST", "/blobs/uploads/", accept=(202,))
        place = urllib.parse.urljoin(f"{self._base}/", started.headers["Location"] or "")
        joint = "&" if urllib.parse.urlsplit(place).query else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{place}{joint}digest={urllib.parse.quote(digest, safe='')}", content, headers, accept=(201,))

    def put_manifest(self, tag: str, kind: str, content: bytes) -> None:
        """Store a manifest under a tag.

        Raises:
            TargetError: the registry cannot be reached or does not take it.
        """
        self._ask("PUT", f"/manifests/{tag}", content, {"Content-Type": kind}, accept=(201,))

    def get_manifest(self, reference: str, kind: str, most_bytes: int) -> bytes:
        """Return a manifest.

        Raises:
            TargetError: the registry cannot be reached or does not have it.
            ArtefactError: it is larger than a manifest may be.
        """
        content = self._ask("GET", f"/manifests/{reference}", headers={"Accept": kind}, most_bytes=most_bytes).content
        if len(content) > most_bytes:
            raise ArtefactError(f"{self._host}: the manifest is larger than the cap of {most_bytes} bytes")
        return content

    def get_blob(self, digest: str, size: int, path: Path) -> None:
        """Write a blob to a file, if it is what its digest says.

        Raises:
            TargetError: the registry cannot be reached or does not have it.
            ArtefactError: it sent something else.
        """
        content = self._ask("GET", f"/blobs/{digest}", most_bytes=size).content
        if len(content) != size or f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise ArtefactError(f"{self._host} sent something else for {path.name}", remedy="do not use that registry")
        path.write_bytes(content)

    def _ask(
        self,
        method: str,
        place: str,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        accept: tuple[int, ...] = (200,),
        most_bytes: int = PIECE,
    ) -> _Answer:
        url = place if place.startswith("http") else self._base + place
        answer = self._send(method, url, content, headers or {}, most_bytes)
        if answer.status == 401:
            self._authorization = self._authorized(answer.headers.get("WWW-Authenticate") or "")
            answer = self._send(method, url, content, headers or {}, most_bytes)
        if answer.status not in accept:
            raise TargetError(
                f"{self._host}: {method} {urllib.parse.urlsplit(url).path}: {answer.status}, {_reason(answer.content)}",
                remedy=f"check the name; a registry that asks who you are reads {CREDENTIALS}=USER:PASSWORD",
            )
        return answer

    def _send(self, method: str, url: str, content: bytes | None, headers: dict[str, str], most_bytes: int) -> _Answer:
        request = urllib.request.Request(url, data=content, method=method, headers=headers)
        if self._authorization and urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self._base).netloc:
            request.add_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=DEADLINE_S) as answer:
                return _Answer(answer.status, answer.headers, b"" if method == "HEAD" else answer.read(most_bytes + 1))
        except urllib.error.HTTPError as fault:
            with fault:
                return _Answer(fault.code, fault.headers, fault.read(PIECE))
        except (OSError, HTTPException) as fault:
            reason = getattr(fault, "reason", None) or fault
            raise TargetError(
                f"the registry {self._host} cannot be reached: {reason}", remedy="check its name and that it runs"
            ) from fault

    def _authorized(self, challenge: str) -> str:
        """Return the header for a registry that asks who is there: a token of its own service, or the user's credentials."""
        given = os.environ.get(CREDENTIALS, "")
        basic = f"Basic {base64.b64encode(given.encode()).decode()}" if given else ""
        scheme, _, rest = challenge.partition(" ")
        facts = dict(CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in facts:
            return basic
        query = urllib.parse.urlencode({"service": facts.get("service", ""), "scope": facts.get("scope", self._scope)})
        realm = facts["realm"]
        if urllib.parse.urlsplit(realm).scheme != "https" and not _is_loopback(urllib.parse.urlsplit(realm).netloc):
            raise TargetError(f"{self._host} sends for tokens to {realm}, which is not https")
        request = urllib.request.Request(f"{realm}?{query}", headers={"Authorization": basic} if basic else {})
        try:
            with self._opener.open(request, timeout=DEADLINE_S) as answer:
                content = json.loads(answer.read(PIECE))
            return f"Bearer {content.get('token') or content['access_token']}"
        except (OSError, HTTPException, ValueError, KeyError, AttributeError) as fault:
            raise TargetError(f"{self._host} gives no token: {fault}", remedy=f"set {CREDENTIALS}=USER:PASSWORD") from fault


class _Answer:
    """What a registry said."""

    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content


def _is_loopback(host: str) -> bool:
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _reason(content: bytes) -> str:
    try:
        return "; ".join(f"{one['code']} {one.get('message', '')}".strip() for one in json.loads(content)["errors"])[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return content[:100].decode("utf-8", "replace").strip() or "nothing"
