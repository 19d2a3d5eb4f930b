#!/usr/bin/env python3
"""Boots a systemd of its own, in namespaces, and looks at what becomes of the unit as it is.

    booted.py ADIT          root; prints a line for each thing that holds, fails at the first that does not

The unit, the configuration file and logrotate's file stand where their heads say, in overlays that go with the namespaces.
Only what the rest of a system does is left out: its other units, and the journal. The machine's own systemd, cgroups, settings of
the kernel and console are out of its reach, and what it started goes with it, however it ends. Where no systemd can be booted (a
container without rights, no cgroup2) it says so in one line and ends with 3.
"""
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
UNIT = "adit.service"
SYSTEMD = "/usr/lib/systemd/systemd"
SAID = pathlib.Path("/run/adit-said")
CONFIG = pathlib.Path("/etc/adit.conf")
LOG = pathlib.Path("/var/log/adit/access.log")
PROXY = ("127.0.0.1", 80)
BOOTS_S, WAITS_S = 30, 20
COMMAND_S, CHECKS_S, ENDS_S = 60, 300, 10  # reached only by what hangs
CAP_NET_BIND_SERVICE = 1 << 10
# To reach the origin of this test; the rest is the file as it comes.
OPTIONS = f"\nlisten 127.0.0.1:80\nallow 127.0.0.0/8\naccess-log {LOG}\n"


# ---- outside ---------------------------------------------------------------------------------------------------------
def main(adit):
    # Who is told to end puts away what there is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with own_cgroup() as cgroup:
            return boot_and_check(adit, cgroup)
    except CannotBoot as why:
        print(f"no systemd can be booted here: {why}")
        return 3


def boot_and_check(adit, cgroup):
    flags = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--ipc", "--uts", "--cgroup", "--net"]
    # Into it before there is a namespace of cgroups: that begins where its first process is.
    command = ["sh", "-ec", 'echo $$ >"$0"; exec "$@"', str(cgroup / "cgroup.procs")]
    # If this script is killed itself, it can end nobody: the kernel does.
    command += ["setpriv", "--pdeathsig", "KILL", "unshare", *flags]
    command += [sys.executable, __file__, "--boot", str(pathlib.Path(adit).resolve())]
    with tempfile.TemporaryFile("w+") as said:
        system = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        try:
            inside = first_process(system)
            if not inside:
                said.seek(0)
                raise CannotBoot(" ".join(said.read().split())[-300:])
            return subprocess.run([*inside, sys.executable, "/run/booted.py", "--checks"], timeout=CHECKS_S).returncode
        finally:
            system.kill()  # and with it, by --kill-child, all that it has started
            system.wait()


class CannotBoot(Exception):
    pass


@contextlib.contextmanager
def own_cgroup():
    """Without one, this systemd would make its cgroups among those of the machine's own, and find that one's services there."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    hierarchy = next((pathlib.Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2"), None)
    if not hierarchy:
        raise CannotBoot("there is no cgroup2")
    for left in hierarchy.glob("adit-booted-*"):  # by one that was killed
        with contextlib.suppress(OSError):
            if "populated 0" in (left / "cgroup.events").read_text():
                remove(left)
    cgroup = hierarchy / f"adit-booted-{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError as why:
        raise CannotBoot(why) from None
    try:
        yield cgroup
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # an older kernel does not have it
            (cgroup / "cgroup.kill").write_text("1")
        end = time.monotonic() + ENDS_S
        while "populated 1" in (cgroup / "cgroup.events").read_text() and time.monotonic() < end:
            time.sleep(0.02)
        remove(cgroup)


def remove(cgroup):
    for directory, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(directory)


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def first_process(system):
    """How to get to where systemd is up; nothing if it does not come up."""
    end = time.monotonic() + BOOTS_S
    while time.monotonic() < end and system.poll() is None:
        for child in children(system.pid):
            inside = ["nsenter", "--target", str(child), "--all"]
            asks = [*inside, "systemctl", "is-system-running"]
            state = subprocess.run(asks, capture_output=True, text=True, timeout=COMMAND_S)
            if state.stdout.strip() in ("running", "degraded"):
                return inside
        time.sleep(0.1)
    return None


# ---- the first process, before it becomes systemd --------------------------------------------------------------------
def boot(adit):
    run = lambda *command: subprocess.run(command, check=True, timeout=COMMAND_S)
    run("mount", "--make-rprivate", "/")
    # Alone there, over whatever hierarchies the machine has: only the cgroup that this process is in is to be seen.
    run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    # The first process of a system raises fs.file-max and others, and writes to the console: both are the machine's.
    run("mount", "--bind", "/proc/sys", "/proc/sys")
    run("mount", "-o", "remount,bind,ro", "/proc/sys")
    run("mount", "--bind", "/dev/null", "/dev/console")
    program = pathlib.Path(adit).read_bytes()
    files = {path.name: path.read_bytes() for path in (HERE / UNIT, HERE / "adit.logrotate", HERE.parent / "adit.conf")}
    script = pathlib.Path(__file__).read_bytes()
    for directory in ("/run", "/tmp", "/var/tmp", "/var/log"):
        run("mount", "-t", "tmpfs", "-o", "mode=1777" if "tmp" in directory else "mode=755", "tmpfs", directory)
    for directory in ("/etc", "/usr/sbin"):
        over = pathlib.Path("/run/over" + directory)
        (over / "new").mkdir(parents=True)
        (over / "work").mkdir()
        layers = f"lowerdir={directory},upperdir={over}/new,workdir={over}/work"
        run("mount", "-t", "overlay", "-o", layers, "overlay", directory)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/etc/systemd/system")
    run("ip", "link", "set", "lo", "up")

    def put(path, content, mode=0o644):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_bytes(content)
        os.chmod(path, mode)

    put("/usr/sbin/adit", program, 0o755)
    put(f"/etc/systemd/system/{UNIT}", files[UNIT])
    put("/etc/logrotate.d/adit", files["adit.logrotate"])
    put(CONFIG, files["adit.conf"].replace(b"\nlisten 127.0.0.1:8080\n", b"\n") + OPTIONS.encode())
    put("/run/booted.py", script)
    put("/run/systemd/system/quiet.target", b"[Unit]\nDefaultDependencies=no\n")
    output = f"StandardOutput=append:{SAID}\nStandardError=append:{SAID}\n"
    put(f"/run/systemd/system/{UNIT}.d/alone.conf", f"[Unit]\nDefaultDependencies=no\n[Service]\n{output}".encode())
    environment = {"container": "other", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    arguments = ["--system", "--unit=quiet.target", "--log-target=console", "--log-level=warning", "--show-status=no"]
    os.execve(SYSTEMD, [SYSTEMD, *arguments], environment)


# ---- inside ----------------------------------------------------------------------------------------------------------
def checks():
    for check in (starts, has_no_right_but_one, enables, reloads, rotates, restarts, gives_up_if_called_wrongly, drains):
        print(f"ok    under a systemd of its own: {check()}", flush=True)
    return 0


def systemctl(*arguments, may_fail=False):
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=COMMAND_S)
    assert may_fail or done.returncode == 0, (arguments, done.stderr, said())
    return done.stdout.strip()


def shown(name):
    return systemctl("show", UNIT, "--property", name, "--value")


def said():
    return SAID.read_text() if SAID.exists() else ""


def eventually(what, holds):
    end = time.monotonic() + WAITS_S
    while not holds():
        assert time.monotonic() < end, (what, shown("ActiveState"), said())
        time.sleep(0.02)


def ask(path, host="10.0.0.1"):
    """The status of a plain request; none if nobody is there."""
    try:
        with socket.create_connection(PROXY, 5) as client:
            client.settimeout(5)
            client.sendall(f"GET http://{host}/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return int(client.recv(65536).split()[1])
    except (OSError, IndexError):
        return None


def starts():
    systemctl("start", UNIT)
    eventually("an answer on port 80", lambda: ask("first") == 403)
    assert shown("ActiveState") == "active"
    eventually("a line in the log", lambda: LOG.exists() and "/first 403 " in LOG.read_text())
    return "starts, listens on port 80, and writes into its own directory"


def has_no_right_but_one():
    pid = int(shown("MainPID"))
    status = dict(re.findall(r"^(\w+):\t(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M))
    assert status["Uid"].split()[1] != "0", status["Uid"]
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == CAP_NET_BIND_SERVICE, status["CapEff"]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status
    root = f"/proc/{pid}/root"
    for place in ("/home", "/root"):
        assert not os.path.exists(root + place) or not os.listdir(root + place), place
    assert os.statvfs(root + "/usr").f_flag & os.ST_RDONLY, "what it runs from is writable"
    return f"has the user {status['Uid'].split()[1]}, port 80 as its only right, {status['Seccomp_filters']} filters"


def enables():
    systemctl("enable", UNIT)
    wanted = pathlib.Path(f"/etc/systemd/system/multi-user.target.wants/{UNIT}")
    assert wanted.is_symlink() and systemctl("is-enabled", UNIT) == "enabled"
    return "can be enabled"


@contextlib.contextmanager
def changed(addition):
    before = CONFIG.read_text()
    CONFIG.write_text(before + addition)
    yield
    CONFIG.write_text(before)


def reloads():
    pid = shown("MainPID")
    with changed("deny 127.0.0.2\n"):
        systemctl("reload", UNIT)
        eventually("the new rule", lambda: ask("denied", "127.0.0.2") == 403)
    with changed("no-such-option\n"):
        mark = len(said())
        systemctl("reload", UNIT)
        eventually("what is wrong", lambda: "no-such-option" in said()[mark:])
        assert ask("still-denied", "127.0.0.2") == 403
    systemctl("reload", UNIT)
    # Nobody listens there: it is dialed.
    eventually("the old rules", lambda: ask("allowed", "127.0.0.2") == 502)
    assert shown("MainPID") == pid and shown("NRestarts") == "0"
    return "reloads what is right, and stays as it was with what is wrong"


def rotates():
    state = "/run/logrotate.state"
    for nth in range(3):
        assert ask(f"turn-{nth}") == 403
        eventually("a line", lambda: f"/turn-{nth} " in LOG.read_text())
        old = LOG.stat().st_ino
        subprocess.run(["logrotate", "--force", "--state", state, "/etc/logrotate.d/adit"], check=True, timeout=COMMAND_S)
        eventually("a new log", lambda: LOG.exists() and LOG.stat().st_ino != old)
    return "logrotate's file turns its log"


def restarts():
    pid = int(shown("MainPID"))
    os.kill(pid, signal.SIGKILL)
    eventually("a new process", lambda: ask("again") == 403 and shown("MainPID") not in (str(pid), "0"))
    assert shown("NRestarts") == "1"
    return "comes back when it is killed"


def gives_up_if_called_wrongly():
    with changed("no-such-option\n"):
        systemctl("restart", UNIT, may_fail=True)
        eventually("failure", lambda: shown("ActiveState") == "failed")
        # Longer than RestartSec.
        time.sleep(3)
        assert (shown("ActiveState"), shown("ExecMainStatus"), shown("NRestarts")) == ("failed", "2", "0"), said()
    systemctl("start", UNIT)
    eventually("an answer", lambda: ask("right") == 403)
    return "does not start again and again with a wrong configuration"


def drains():
    origin = socket.create_server(("127.0.0.1", 443))

    def echo():
        connection, _ = origin.accept()
        with connection:
            while part := connection.recv(4096):
                connection.sendall(part)

    threading.Thread(target=echo, daemon=True).start()
    tunnel = socket.create_connection(PROXY, 5)
    tunnel.settimeout(5)
    tunnel.sendall(b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n")
    assert b" 200 " in tunnel.recv(4096)
    systemctl("stop", "--no-block", UNIT)
    eventually("no new connections", lambda: ask("late") in (None, 503))
    tunnel.sendall(b"still here")
    assert tunnel.recv(4096) == b"still here"
    assert shown("ActiveState") == "deactivating"
    tunnel.close()
    eventually("its end", lambda: shown("ActiveState") == "inactive")
    assert (shown("Result"), shown("ExecMainStatus")) == ("success", "0"), said()
    return "lets a tunnel run on when it is stopped, and ends once that has ended"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--boot", program]:
            boot(program)
        case ["--checks"]:
            sys.exit(checks())
        case [program] if not program.startswith("-"):
            sys.exit(main(program))
        case _:
            sys.exit(__doc__)
