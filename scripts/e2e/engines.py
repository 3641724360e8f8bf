#!/usr/bin/env python3
"""Starts and stops the engines of a launch spec (testdata/engines/launch-*.yaml) by hand.

    engines.py start SPEC DIR [ROLE...] [--set ROLE.NAME=VALUE] [--arg ROLE=FLAG] [--drop ROLE=FLAG]
    engines.py stop DIR [ROLE...]

start runs the named engines (default: all of the spec), each in a process group of its own with its log in DIR/ROLE.log
and its process id in DIR/ROLE.pid, waits until all are ready, and fails, stopping them, when one dies or is late.
stop ends the process groups that start left in DIR: SIGINT first, SIGKILL after 30 s.

Needs PyYAML: run it with the spec's own Python, build/e2e/<version>/bin/python.
"""
import argparse
import http.client
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
STOP_GRACE_S = 30


def load(path):
    import yaml

    spec = yaml.safe_load(pathlib.Path(path).read_text())

    def fill(text):
        for name, value in spec["variables"].items():
            text = text.replace("${" + name + "}", value)
        return text

    for engine in spec["engines"].values():
        engine["argv"] = [fill(a) for a in engine["argv"]]
        engine["env"] = {n: fill(v) for n, v in engine["env"].items()}
    return spec


def answers(url, path):
    parts = urllib.parse.urlsplit(url)
    conn = http.client.HTTPConnection(parts.hostname, parts.port, timeout=2)
    try:
        conn.request("GET", path)
        return conn.getresponse().status == 200
    except OSError:
        return False
    finally:
        conn.close()


def listens(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return True
    except OSError:
        return False


def start(spec, directory, roles, extra_env=(), extra_args=(), dropped=()):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    procs = {}
    began = time.monotonic()
    try:
        for role in roles:
            engine = spec["engines"][role]
            if answers(engine["url"], engine["ready_path"]):
                raise RuntimeError(f"something already answers on {engine['url']}: stop it first")
            env = dict(os.environ) | engine["env"]
            env |= {n: v for r, n, v in extra_env if r == role}
            argv = [a for a in engine["argv"] if (role, a) not in dropped]
            argv += [a for r, a in extra_args if r == role]
            with open(directory / f"{role}.log", "wb") as log:
                procs[role] = subprocess.Popen(
                    ["nice", "-n", "10", *argv], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            (directory / f"{role}.pid").write_text(str(procs[role].pid))
        ready = {}
        while len(ready) < len(procs):
            for role, proc in procs.items():
                engine = spec["engines"][role]
                if role in ready:
                    continue
                if proc.poll() is not None:
                    raise RuntimeError(f"{role} ended with status {proc.returncode}: see {directory}/{role}.log")
                if time.monotonic() - began > engine["ready_timeout_s"]:
                    raise RuntimeError(f"{role} was not ready after {engine['ready_timeout_s']} s: see {directory}/{role}.log")
                side = engine.get("side_channel")
                if answers(engine["url"], engine["ready_path"]) and (side is None or listens(side)):
                    ready[role] = time.monotonic() - began
            time.sleep(0.5)
        return ready
    except BaseException:
        stop(directory, procs)
        raise


def group_lives(pgid):
    try:
        os.killpg(pgid, 0)
        return True
    except ProcessLookupError:
        return False


def reap(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # started by an earlier engines.py: init reaps it


def stop(directory, roles=()):
    directory = pathlib.Path(directory)
    files = [directory / f"{r}.pid" for r in roles] if roles else sorted(directory.glob("*.pid"))
    groups = [(f, int(f.read_text())) for f in files if f.exists()]
    for sig in (signal.SIGINT, signal.SIGKILL):
        for _, pgid in groups:
            if group_lives(pgid):
                os.killpg(pgid, sig)
        deadline = time.monotonic() + STOP_GRACE_S
        while time.monotonic() < deadline and any(group_lives(p) for _, p in groups):
            for _, pgid in groups:
                reap(pgid)
            time.sleep(0.2)
    left = [p for _, p in groups if group_lives(p)]
    for f, pgid in groups:
        if pgid not in left:
            f.unlink()
    if left:
        raise RuntimeError(f"process groups {left} survived SIGKILL")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    s = sub.add_parser("start")
    s.add_argument("spec")
    s.add_argument("directory")
    s.add_argument("roles", nargs="*")
    s.add_argument("--set", action="append", default=[], metavar="ROLE.NAME=VALUE", help="an environment variable more")
    s.add_argument("--arg", action="append", default=[], metavar="ROLE=FLAG", help="an argument more")
    s.add_argument("--drop", action="append", default=[], metavar="ROLE=FLAG", help="an argument less")
    t = sub.add_parser("stop")
    t.add_argument("directory")
    t.add_argument("roles", nargs="*")
    args = parser.parse_args()
    try:
        if args.command == "stop":
            stop(args.directory, args.roles)
            return
        spec = load(args.spec)
        env = [(*kv.split("=", 1)[0].split(".", 1), kv.split("=", 1)[1]) for kv in args.set]
        ready = start(spec, args.directory, args.roles or list(spec["engines"]), env,
                      [tuple(a.split("=", 1)) for a in args.arg], {tuple(a.split("=", 1)) for a in args.drop})
        for role, seconds in ready.items():
            print(f"{role}: ready after {seconds:.0f} s at {spec['engines'][role]['url']}")
    except (RuntimeError, OSError, KeyError) as err:
        sys.exit(f"engines.py: {err}")


if __name__ == "__main__":
    main()
