"""The far end of a link: a program that is sent over as text, obeys one request after another, and leaves nothing behind.

It needs Python 3.6 and the standard library, so that an interpreter that is too old can still say so. Both ends speak in
frames: one byte of kind, four bytes of length, the content. To the agent go `r` (a request, JSON), `d` (data) and `.` (a sign
of life); from it come `h` (who it is), `o` and `e` (stdout and stderr of a command, or data) and `x` (how a request ended).

Whatever runs here ends when the other end closes the connection, is silent for too long, or the deadline of the request passes.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time

GREETING = b"\0edgetune-agent-1\n"
PIECE = 1 << 16
SILENCE_S = 40.0
"""Seconds without a sign of life after which a request is given up: the other machine lost its power, or the link broke."""
IDLE_S = 900.0
"""The same between requests."""
LOCK_S = 60.0
"""How long an earlier attempt at the same upload is waited for; a little longer than it can take to notice its own end."""
FLUSH_S = 5.0
OOM_SCORE = b"500"
PR_SET_PDEATHSIG = 1
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Refusal(Exception):
    """What this machine does not do, in words for the other end.

    Args:
        text: the reason.
        number: of the operating system's error, or 0.
    """

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


class Agent:
    """One connection: requests are obeyed one after another, while a thread watches the other end."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        # Nothing that runs here may write between the frames.
        os.dup2(2, 1)
        self._writing = threading.Lock()
        self._heard = time.monotonic()
        self._arrived = queue.Queue(maxsize=64)  # type: queue.Queue[tuple[bytes, bytes]]
        self._busy = False
        self._child = None  # type: int | None
        self._timed_out = False

    def serve(self) -> None:
        """Greet, then obey until the connection closes."""
        self._write(GREETING)
        self._send(b"h", _whoami())
        threading.Thread(target=self._watch, daemon=True).start()
        while True:
            kind, content = self._arrived.get()
            # Data that a failed request has left over is dropped.
            if kind == b"r":
                self._heard, self._busy = time.monotonic(), True
                ended = self._ended(json.loads(content.decode("utf-8")))
                if ended.get("errno") == errno.ECONNABORTED:
                    self._leave()
                self._busy = False
                self._send(b"x", ended)

    def _ended(self, asked: "dict[str, Any]") -> "dict[str, Any]":
        try:
            if asked["do"] == "run":
                return self._run(asked["command"], asked["deadline_s"], asked["stdin_bytes"])
            if asked["do"] == "put":
                return self._receive(asked["path"], asked["size"], asked["sha256"])
            return self._give(asked["path"])
        except Refusal as fault:
            return {"error": str(fault), "errno": fault.number}
        except OSError as fault:
            place = ": " + os.fsdecode(fault.filename) if fault.filename else ""
            return {"error": (fault.strerror or str(fault)) + place, "errno": fault.errno or 0}

    # --- the connection

    def _watch(self) -> None:
        """Take in what arrives; end everything when nothing does any more."""
        while True:
            limit = SILENCE_S if self._busy else IDLE_S
            left = self._heard + limit - time.monotonic()
            ready, _, _ = select.select([0], [], [], min(max(left, 0.0), SILENCE_S))
            if not ready and left <= 0:
                self._leave()
            if ready:
                frame = self._read_frame()
                if frame is None:
                    self._hang_up()
                elif frame[0] != b".":
                    self._arrived.put(frame)
                self._heard = time.monotonic()

    def _hang_up(self) -> None:
        """Leave, once what has arrived of a file is written: a later attempt goes on from there."""
        self._end_child()
        if self._busy and self._child is None:
            self._arrived.put((b"", b""))
            time.sleep(FLUSH_S)
        self._leave()

    def _leave(self) -> None:
        self._end_child()
        os._exit(1)

    def _end_child(self) -> None:
        child = self._child
        if child is not None:
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)

    def _read_frame(self) -> "tuple[bytes, bytes] | None":
        head = self._read(5)
        if head is None:
            return None
        content = self._read(struct.unpack(">I", head[1:])[0])
        return None if content is None else (head[:1], content)

    def _read(self, count: int) -> "bytes | None":
        pieces = []
        while count:
            piece = os.read(0, min(count, PIECE))
            if not piece:
                return None
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        with self._writing:
            try:
                while view:
                    view = view[os.write(self._out, view) :]
            except OSError:
                self._leave()

    def _send(self, kind: bytes, content: "Any") -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode("utf-8")
        self._write(kind + struct.pack(">I", len(content)) + content)

    def _next_data(self) -> bytes:
        kind, content = self._arrived.get()
        if not kind:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the link broke")
        if kind != b"d":
            raise Refusal("the agent expected data")
        return content

    # --- run

    def _run(self, command: "list[str]", deadline_s: float, stdin_bytes: int) -> "dict[str, Any]":
        self._timed_out = False
        before = _oom_kills()
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin_bytes else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_be_first_to_go,
        )
        self._child = child.pid
        timer = threading.Timer(deadline_s, self._expire)
        timer.daemon = True
        timer.start()
        pumps = [_Pump(self._send, child.stdout, b"o"), _Pump(self._send, child.stderr, b"e")]
        self._feed(child.stdin, stdin_bytes)
        if hasattr(os, "waitid"):
            # Its number stays its own until it is waited for, so that the group which is ended is the right one.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        else:
            child.wait()
        timer.cancel()
        self._end_child()
        self._child = None
        child.wait()
        for pump in pumps:
            pump.finish()
        after = _oom_kills()
        out_of_memory = before is not None and after is not None and after > before
        return {"returncode": child.returncode, "timed_out": self._timed_out, "out_of_memory": out_of_memory}

    def _expire(self) -> None:
        self._timed_out = True
        self._end_child()

    def _feed(self, pipe: "Any", count: int) -> None:
        """Hand on what the command is to read; it may end without having read it."""
        wanted = True
        while count > 0:
            piece = self._next_data()
            count -= len(piece)
            try:
                if wanted:
                    pipe.write(piece)
            except OSError:
                wanted = False
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()

    # --- put and get

    def _receive(self, path: str, size: int, sha256: str) -> "dict[str, Any]":
        """Take in a file: what is there already is said, the rest arrives, and only a whole file gets its name."""
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        part = path + ".part"
        with _locked(part) as file:
            if os.path.isfile(path) and os.path.getsize(path) == size and _digest(path).hexdigest() == sha256:
                os.unlink(part)
                os.utime(path)  # used: what has not been for long may be thrown away
                return {"had": True}
            start = self._agree(file, part, size)
            digest = _digest(part) if start else hashlib.sha256()
            file.truncate(start)
            file.seek(start)
            left = size - start
            while left > 0:
                piece = self._next_data()
                file.write(piece)
                digest.update(piece)
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                os.unlink(part)
                raise Refusal(f"{path} arrived with another digest")
            os.rename(part, path)
        _sync(folder)
        return {"had": False, "resumed_at": start}

    def _agree(self, file: "Any", part: str, size: int) -> int:
        """Say what an earlier attempt left, and return from where on the rest will come: from its end, or from the start."""
        there = os.path.getsize(part)
        if there > size:
            file.truncate(0)
            there = 0
        disk = os.statvfs(part)
        free = disk.f_bavail * disk.f_frsize
        if free < size - there:
            raise Refusal(f"{os.path.dirname(part)} has {free} bytes free, {size - there} are needed", errno.ENOSPC)
        self._send(b"h", {"there": there, "sha256": _digest(part).hexdigest()})
        return int(json.loads(self._next_data().decode("utf-8"))["start"])

    def _give(self, path: str) -> "dict[str, Any]":
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while True:
                piece = file.read(PIECE)
                if not piece:
                    return {"sha256": digest.hexdigest()}
                digest.update(piece)
                self._send(b"o", piece)


class _Pump:
    """Hands on what a command writes to one of its pipes."""

    def __init__(self, send: "Any", pipe: "Any", kind: bytes) -> None:
        self._send, self._pipe, self._kind = send, pipe, kind
        self._waiting = self._over = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            self._waiting = True
            piece = os.read(self._pipe.fileno(), PIECE)
            self._waiting = False
            if not piece or self._over:
                return
            self._send(self._kind, piece)

    def finish(self) -> None:
        """Wait for the rest; but not for a process that left the group and holds the pipe open without writing."""
        for patience in (2.0, 0.5):
            self._thread.join(patience)
            while self._thread.is_alive() and not self._waiting:
                self._thread.join(0.1)
        self._over = True


def _whoami() -> "dict[str, Any]":
    return {
        "version": list(sys.version_info[:3]),
        "python": sys.executable,
        "home": os.path.expanduser("~"),
        "pid": os.getpid(),
    }


def _be_first_to_go() -> None:
    """Between fork and exec: end with the agent, and be what the kernel takes when the memory runs out."""
    try:
        handle = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(handle, OOM_SCORE)
        os.close(handle)
    except OSError:
        pass
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _libc() -> "Any":
    try:
        import ctypes

        return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    except (ImportError, OSError):
        return None


LIBC = _libc()


def _oom_kills() -> "int | None":
    """Return how many processes this kernel has killed for memory since it started, or None if it does not tell."""
    try:
        with open("/proc/vmstat") as file:
            lines = [line.split() for line in file if line.startswith("oom_kill ")]
    except OSError:
        return None
    return int(lines[0][1]) if lines else None


@contextlib.contextmanager
def _locked(part: str) -> "Iterator[Any]":
    """Open the file that an upload grows in, once no earlier attempt writes to it any more."""
    end = time.monotonic() + LOCK_S
    while True:
        with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as fault:
                if fault.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            else:
                # The earlier attempt may have ended well meanwhile: then this is not the part any more, but the file itself.
                if os.path.exists(part) and os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                    yield file
                    return
        if time.monotonic() > end:
            raise Refusal(f"another upload to {part} is under way")
        time.sleep(0.2)


def _digest(path: str) -> "Any":
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            piece = file.read(1 << 20)
            if not piece:
                return digest
            digest.update(piece)


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    Agent().serve()
