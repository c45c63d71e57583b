"""Zygote: imports the preload modules once, then forks one child for each run that the agent asks for.

Standard input is a socket pair to the agent (SOCK_SEQPACKET, one JSON object a packet). No user code ever runs in this
process, and it keeps no secret: the child that runs user code inherits its memory.

    agent  -> zygote  {"op": "run", "token": 7, "folder": "/tmp/runs/…", "cpu": 300} with [control, stdout, stderr]
                      {"op": "warm", "token": 8, "folder": "/tmp/runs/…"} with [socket]
                      {"op": "spawn"} with [socket]
                      {"op": "kill", "token": 7}    {"op": "ping", "nonce": 3}
    zygote -> agent   {"event": "ready", …}         {"event": "failed", "message": "…"}   before the first run
                      {"event": "started", "token": 7, "pid": 4711}
                      {"event": "ended", "token": 7, "code": 0} or {…, "signal": 9}   when no process of the run is left
                      {"event": "pong", "nonce": 3, "anonymous": 31457280}

A child that is forked by "warm" confines itself, initialises CUDA, says so on its own socket and waits there for a run:

    worker -> agent   {"event": "warm", "free": …, "total": …} or {"event": "failed", "message": "…"}
    agent  -> worker  {"cpu": 300} with [control, stdout, stderr]

One that is forked by "spawn" is a zygote of its own on that socket; it begins with {"event": "standby", "pid": 4712, …}.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import platform
import select
import signal
import socket
import sys
import traceback
import warnings
from typing import Any, Callable, NoReturn

import _chimera_devices as devices
import _chimera_execute as execute
import _chimera_sandbox as sandbox

MAXIMUM_PACKET = 1 << 16
PR_SET_CHILD_SUBREAPER = 36
PR_SET_DUMPABLE = 4


class Zygote:
    """Forks, reaps and reports."""

    def __init__(self, agent: socket.socket, policy: sandbox.Policy) -> None:
        self.policy = policy
        self.streams = make_streams()
        self.begin(agent)

    def begin(self, agent: socket.socket) -> None:
        """With no child yet."""
        self.agent = agent
        self.groups: dict[int, int] = {}  # process group of a run -> token
        self.statuses: dict[int, int] = {}  # process group of a run -> wait status of its first process
        self.standbys: set[int] = set()
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.poll = select.poll()
        self.poll.register(self.agent, select.POLLIN)
        self.poll.register(self.wake_read, select.POLLIN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # What its runs leave behind becomes its own child, and ends with them.
        sandbox.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def serve(self) -> None:
        """Until the agent closes its end."""
        while True:
            ready = {fd for fd, _ in self.poll.poll()}
            if self.wake_read in ready:
                try:
                    os.read(self.wake_read, 4096)
                except BlockingIOError:
                    pass
                self.reap()
            if self.agent.fileno() in ready:
                packet, fds, _, _ = socket.recv_fds(self.agent, MAXIMUM_PACKET, 3)
                if not packet:
                    return
                self.answer(json.loads(packet), fds)

    def answer(self, request: dict[str, Any], fds: list[int]) -> None:
        match request["op"]:
            case "run":
                self.fork(request["token"], fds, lambda parent: self.become_run(request, fds, parent))
            case "warm":
                self.fork(request["token"], fds, lambda parent: self.become_worker(request, fds, parent))
            case "spawn":
                self.spawn(fds)
            case "kill":
                for group, token in self.groups.items():
                    if token == request["token"]:
                        kill(group)
            case "ping":
                self.tell(event="pong", nonce=request["nonce"], anonymous=anonymous())

    def fork(self, token: int, fds: list[int], become: Callable[[int], NoReturn]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            become(parent)
        for fd in fds:
            os.close(fd)
        self.groups[pid] = token
        self.tell(event="started", token=token, pid=pid)

    def spawn(self, fds: list[int]) -> None:
        """Forks a zygote that outlives this one. It has neither its socket nor its children."""
        (fd,) = fds
        pid = os.fork()
        if pid != 0:
            os.close(fd)
            self.standbys.add(pid)
            return
        signal.set_wakeup_fd(-1)
        for old in (self.wake_read, self.wake_write, self.agent.detach()):
            os.close(old)
        self.begin(socket.socket(fileno=fd))
        self.tell(event="standby", pid=os.getpid(), anonymous=anonymous())

    def become_run(self, request: dict[str, Any], fds: list[int], parent: int) -> NoReturn:
        """In the child: never returns, and never lets an error reach the zygote's loop."""
        code = 70
        try:
            self.forget()
            control = sandbox.take_descriptors(fds)
            try:
                sandbox.enter(self.policy, request["folder"], request["cpu"], parent)
            except BaseException as error:  # noqa: BLE001 - whatever it is, no user code may run
                execute.tell(control, {"kind": "refused", "message": f"{type(error).__name__}: {error}"})
                os._exit(code)
            gc.enable()
            code = execute.serve_run(control, self.streams, self.policy.confines_signals)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)

    def become_worker(self, request: dict[str, Any], fds: list[int], parent: int) -> NoReturn:
        """In the child: confined before the driver starts threads, which would else be left out."""
        code = 70
        try:
            self.forget()
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            agent = socket.socket(fileno=sandbox.take_descriptors([*fds, null, null]))
            try:
                status = sandbox.enter_ahead(self.policy, request["folder"], parent)
                told = {"event": "warm", **devices.warm_up()}
                sandbox.limit_memory(self.policy, status)
            except BaseException as error:  # noqa: BLE001 - told to the agent
                told = {"event": "failed", "message": f"{type(error).__name__}: {error}"[:4096]}
            agent.send(json.dumps(told).encode())
            packet, given, _, _ = socket.recv_fds(agent, MAXIMUM_PACKET, 3)
            if not packet or told["event"] == "failed":
                os._exit(code)
            agent.detach()  # Its number becomes the control socket's.
            control = sandbox.take_descriptors(given)
            sandbox.begin_ahead(json.loads(packet)["cpu"])
            gc.enable()
            code = execute.serve_run(control, self.streams, self.policy.confines_signals)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)

    def forget(self) -> None:
        """In a child: what belongs to the zygote alone."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.agent.detach()

    def reap(self) -> None:
        """Ends what is left of runs whose first process is gone, and reports a run when nothing of it is left."""
        self.standbys -= {pid for pid in self.standbys if os.waitpid(pid, os.WNOHANG) != (0, 0)}
        for group in list(self.groups):
            if group not in self.statuses:
                # Looked at without being reaped: as long as it is a zombie, its number cannot become another's.
                if os.waitid(os.P_PID, group, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    continue
                kill(group)
                _, self.statuses[group] = os.waitpid(group, 0)
            if self.is_gone(group):
                status = self.statuses.pop(group)
                token = self.groups.pop(group)
                if os.WIFSIGNALED(status):
                    self.tell(event="ended", token=token, signal=os.WTERMSIG(status))
                else:
                    self.tell(event="ended", token=token, code=os.WEXITSTATUS(status))

    @staticmethod
    def is_gone(group: int) -> bool:
        """Descendants become children of this process when their own parent dies; they cannot leave their group."""
        while True:
            try:
                if os.waitpid(-group, os.WNOHANG) == (0, 0):
                    return False
            except ChildProcessError:
                break
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return False

    def tell(self, **message: Any) -> None:
        self.agent.send(json.dumps(message, separators=(",", ":")).encode())


def make_streams() -> execute.Streams:
    """With pipes in the places of standard output and error for the moment."""
    pipe = os.pipe2(os.O_CLOEXEC)
    kept = {place: os.dup(place) for place in (1, 2)}
    for place in kept:
        os.dup2(pipe[1], place)
    try:
        return execute.Streams()
    finally:
        for place, before in kept.items():
            os.dup2(before, place)
            os.close(before)
        for end in pipe:
            os.close(end)


def kill(group: int) -> None:
    """Every process of a run. The first one may not have made its group yet."""
    for send in (os.killpg, os.kill):
        try:
            send(group, signal.SIGKILL)
        except ProcessLookupError:
            pass


def anonymous() -> int:
    """What this process holds of memory that is no file's, in bytes."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
        return sandbox.memory_held(status.read())["RssAnon"]


def packages() -> dict[str, str]:
    """Installed distributions; the one that `import` would find first wins. Their folders' names say what they are:
    reading the metadata of each would take longer than everything else at the start."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            continue
        for entry in entries:
            stem, kind = os.path.splitext(entry)
            if kind == ".dist-info":
                name, _, version = stem.rpartition("-")
            elif kind == ".egg-info":
                # Such a name may end in the interpreter's version and the platform.
                name, _, version = stem.partition("-")
                version = version.partition("-")[0]
            else:
                continue
            if name and version:
                found.setdefault(name.lower().replace("_", "-").replace(".", "-"), version)
    return found


def interpreter_folders() -> list[str]:
    """What the interpreter itself is made of, and every folder it imports from."""
    candidates = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    candidates += [path for path in sys.path if os.path.isabs(path)]
    return sorted({path for path in candidates if os.path.exists(path) and os.path.realpath(path) != "/"})


def main(configuration: dict[str, Any]) -> None:
    agent = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, sandbox.CONTROL + 1))
    # Stays open: it is number 3 if that was free, so from here on nothing arrives in the places that a run's descriptors take.
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        policy = sandbox.Policy(configuration["policy"], interpreter_folders())
        for module in configuration["preload"]:
            importlib.import_module(module)
        policy.fix_limits()
        zygote = Zygote(agent, policy)
        ready = {
            "event": "ready",
            "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
            "packages": packages(),
            "languages": execute.languages(),
            "confined": policy.confined,
            "landlock": policy.landlock_abi,
            "limits": policy.limits,
            "anonymous": anonymous(),
        }
        sandbox.enter_zygote(policy)
    except BaseException as error:  # noqa: BLE001 - told to the agent, which decides when to try again
        traceback.print_exc()
        agent.send(json.dumps({"event": "failed", "message": f"{type(error).__name__}: {error}"[:4096]}).encode())
        return
    sandbox.prctl(PR_SET_DUMPABLE, 0)
    # What exists now is never collected: a collection in a child would write to, and so copy, every page of it.
    gc.collect()
    gc.disable()
    gc.freeze()
    # A large environment does not fit one packet: the packages travel in parts before the rest.
    names = sorted(ready["packages"])
    for start in range(0, len(names), 200):
        part = {name: ready["packages"][name] for name in names[start : start + 200]}
        zygote.tell(event="packages", packages=part)
    del ready["packages"]
    zygote.tell(**ready)
    zygote.serve()
