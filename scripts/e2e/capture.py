#!/usr/bin/env python3
"""Captures real engines for the fast tests: writes testdata/engines/<vLLM version>/ (docs/e2e.md says what is in it).

    build/e2e/<newest|0.15>/bin/python scripts/e2e/capture.py <newest|0.15> [--fresh]
    build/e2e/newest/bin/python scripts/e2e/capture.py newest NAME TOKENS

The second captures one request over a pair of engines with the model testdata/kvshapes/NAME, into NAME-TOKENS.


Starts the engines of the launch spec with prefix caching off, then on, runs each scenario once on otherwise idle engines,
and then, on fresh engines each, what some releases do not survive. It takes about ten minutes on two idle cores. Scenarios
that are there already are kept, so that a run that broke off can go on; --fresh captures all anew.
"""
import concurrent.futures
import datetime
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.parse
import uuid

import engines

ROOT = engines.ROOT
MAX_TOKENS = 4
EXPIRY_WAIT_S = 45
SETTLE_S = 2.5  # the engines publish a finished request's series with their next step: wait longer than the stats interval
KV_REQUEST = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
              "remote_block_ids": None, "remote_host": None, "remote_port": None}


class Capture:
    def __init__(self, spec, out):
        self.url = {role: e["url"] for role, e in spec["engines"].items()}
        self.spec, self.out = spec, out

    def call(self, role, method, path, body=None, headers=None):
        """One request on a new connection: status, headers, raw body, client times in ns from the request's start."""
        parts = urllib.parse.urlsplit(self.url[role])
        conn = http.client.HTTPConnection(parts.hostname, parts.port, timeout=180)
        try:
            conn.connect()
            data = None if body is None else json.dumps(body).encode()
            begin = time.monotonic_ns()
            conn.request(method, path, data, {"Content-Type": "application/json"} | (headers or {}))
            resp = conn.getresponse()
            times = {"headers_ns": time.monotonic_ns() - begin}
            raw = b""
            try:
                while chunk := resp.read1(1 << 16):
                    times.setdefault("first_body_ns", time.monotonic_ns() - begin)
                    raw += chunk
            except http.client.IncompleteRead as err:
                raw += err.partial
                times["cut_off"] = True
            times["end_ns"] = time.monotonic_ns() - begin
            return resp.status, dict(resp.getheaders()), raw, times
        finally:
            conn.close()

    def page(self, role):
        return self.call(role, "GET", "/metrics")[2].decode()

    def pages(self, roles):
        return {role: self.page(role) for role in roles}


def prompt_body(tokens, seed, **more):
    rnd = random.Random(seed)
    body = {"model": "kvshape", "prompt": [rnd.randrange(3, 512) for _ in range(tokens)], "max_tokens": MAX_TOKENS,
            "min_tokens": MAX_TOKENS, "ignore_eos": True, "temperature": 0, "n": 1, "stream": True,
            "stream_options": {"include_usage": True}}
    return body | more


def prefill_body(body):
    out = {k: v for k, v in body.items() if k not in ("stream_options", "min_tokens")}
    return out | {"stream": False, "max_tokens": 1, "kv_transfer_params": KV_REQUEST}


def series(page):
    """name{labels} → value of vllm's own series, without histogram buckets and creation times."""
    out = {}
    for line in page.splitlines():
        if line.startswith("vllm:"):
            key, value = line.rsplit(" ", 1)
            if not re.match(r"[\w:]+_(bucket|created)\{", key):
                out[key] = float(value)
    return out


def delta(before, after):
    before, after = series(before), series(after)
    out = {}
    for key, value in after.items():
        change = value - before.get(key, 0.0)
        if change:
            out[key] = int(change) if change == int(change) else change
    return out


def slim(page):
    """The page without buckets, creation times and the Python process's own series."""
    keep = []
    for line in page.splitlines():
        if re.match(r"(# \w+ )?vllm:", line) and not re.match(r"(# \w+ )?vllm:\w+_(bucket|created)[{ ]", line):
            if not line.startswith("# HELP"):
                keep.append(line)
    return "\n".join(keep) + "\n"


def dump(path, value):
    path.write_text(json.dumps(value, separators=(",", ":") if isinstance(value, dict) and "prompt" in value else None,
                               indent=None if isinstance(value, dict) and "prompt" in value else 1) + "\n")


def save_response(folder, stem, result, stream):
    status, headers, raw, times = result
    raw = raw.replace(str(ROOT).encode() + b"/", b"")  # some error messages name source files
    (folder / f"{stem}.{'sse' if stream else 'json'}").write_bytes(raw)
    return {"status": status, "headers": headers, **times}


def scenario(cap, name, tokens, seed, mode="two-leg", full=False, tweak=None, **more):
    """Runs one request and keeps everything: bodies, answers, metric pages before and after, deltas, client times."""
    folder = cap.out / name
    if (folder / "meta.json").exists():
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    roles = {"two-leg": ("prefill", "decode"), "unified": ("unified",), "decode-only": ("decode",),
             "prefill-only": ("prefill",)}[mode]
    body = prompt_body(tokens, seed, **more)
    rid = {"X-Request-Id": str(uuid.uuid4())}
    before = cap.pages(roles)
    meta = {"scenario": name, "mode": mode, "prompt_tokens": tokens, "request_id": rid["X-Request-Id"]}
    params = None
    if mode in ("two-leg", "prefill-only"):
        first = prefill_body(body)
        dump(folder / "prefill-request.json", first)
        answer = cap.call("prefill", "POST", "/v1/completions", first, rid)
        meta["prefill"] = save_response(folder, "prefill-response", answer, False)
        params = json.loads(answer[2]).get("kv_transfer_params")
    if mode in ("two-leg", "decode-only", "unified"):
        second = dict(body)
        if params is not None:
            second["kv_transfer_params"] = params
        if tweak:
            tweak(second)
        role = "unified" if mode == "unified" else "decode"
        dump(folder / f"{role}-request.json", second)
        answer = cap.call(role, "POST", "/v1/completions", second, rid)
        is_stream = answer[1].get("content-type", "").startswith("text/event-stream")
        meta[role] = save_response(folder, f"{role}-{'stream' if is_stream else 'response'}", answer, is_stream)
    time.sleep(SETTLE_S)
    for role in roles:
        (folder / f"{role}-before.prom").write_text(before[role] if full else slim(before[role]))
        try:
            after = cap.page(role)
        except OSError as err:  # some scenarios kill their engine
            meta[f"{role}_gone"] = repr(err)
            continue
        (folder / f"{role}-after.prom").write_text(after if full else slim(after))
        meta[f"{role}_delta"] = delta(before[role], after)
    dump(folder / "meta.json", meta)
    print(f"  {name}: {[meta[r]['status'] for r in roles if r in meta]}", flush=True)
    return meta


def pick(meta, role, name):
    return sum(v for k, v in meta[f"{role}_delta"].items() if k.startswith(f"vllm:{name}{{"))


def sequence(cap, tokens, count, base):
    """Consecutive single requests: how many descriptors NIXL posts after merging, and where each time went."""
    rows = []
    for i in range(count):
        before = cap.pages(("prefill", "decode"))
        body = prompt_body(tokens, base + i)
        rid = {"X-Request-Id": str(uuid.uuid4())}
        p = cap.call("prefill", "POST", "/v1/completions", prefill_body(body), rid)
        params = json.loads(p[2])["kv_transfer_params"]
        d = cap.call("decode", "POST", "/v1/completions", body | {"kv_transfer_params": params}, rid)
        time.sleep(SETTLE_S)
        after = cap.pages(("prefill", "decode"))
        meta = {f"{r}_delta": delta(before[r], after[r]) for r in ("prefill", "decode")}
        ids = params["remote_block_ids"]
        ids = ids[0] if ids and isinstance(ids[0], list) else ids
        rows.append({
            "prompt_tokens": tokens, "prefill_block_ids": ids,
            "nixl_bytes": pick(meta, "decode", "nixl_bytes_transferred_sum"),
            "nixl_descriptors": pick(meta, "decode", "nixl_num_descriptors_sum"),
            "nixl_xfer_s": pick(meta, "decode", "nixl_xfer_time_seconds_sum"),
            "nixl_post_s": pick(meta, "decode", "nixl_post_time_seconds_sum"),
            "decode_queue_s": pick(meta, "decode", "request_queue_time_seconds_sum"),
            "decode_prefill_s": pick(meta, "decode", "request_prefill_time_seconds_sum"),
            "prefill_prefill_s": pick(meta, "prefill", "request_prefill_time_seconds_sum"),
            "external_hits": pick(meta, "decode", "external_prefix_cache_hits_total"),
            "client_prefill_ns": p[3]["end_ns"], "client_decode_first_ns": d[3]["first_body_ns"]})
    print(f"  sequence of {count} × {tokens}: descriptors {[r['nixl_descriptors'] for r in rows]}", flush=True)
    return rows


def parallel(cap, tokens, count, base):
    """count two-leg requests at once: the deltas add up."""
    folder = cap.out / f"two-leg-{tokens}-concurrency-{count}"
    if (folder / "meta.json").exists():
        return
    folder.mkdir(exist_ok=True)
    before = cap.pages(("prefill", "decode"))

    def one(i):
        body = prompt_body(tokens, base + i)
        rid = {"X-Request-Id": str(uuid.uuid4())}
        p = cap.call("prefill", "POST", "/v1/completions", prefill_body(body), rid)
        params = json.loads(p[2])["kv_transfer_params"]
        d = cap.call("decode", "POST", "/v1/completions", body | {"kv_transfer_params": params}, rid)
        return {"prefill": {"status": p[0], **p[3]}, "decode": {"status": d[0], **d[3]}}

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        requests = list(pool.map(one, range(count)))
    time.sleep(SETTLE_S)
    after = cap.pages(("prefill", "decode"))
    for role in ("prefill", "decode"):
        (folder / f"{role}-before.prom").write_text(slim(before[role]))
        (folder / f"{role}-after.prom").write_text(slim(after[role]))
    dump(folder / "meta.json", {"scenario": folder.name, "mode": "two-leg", "prompt_tokens": tokens, "requests": requests,
                                **{f"{r}_delta": delta(before[r], after[r]) for r in ("prefill", "decode")}})
    print(f"  {folder.name}", flush=True)



def errors(cap):
    """Requests that engines refuse: status and body of each."""
    folder = cap.out / "errors"
    if (folder / "meta.json").exists():
        return
    folder.mkdir(exist_ok=True)
    good = prompt_body(32, 900)
    cases = {
        "stream-options-without-stream": good | {"stream": False},
        "unknown-model": good | {"model": "nosuch"},
        "prompt-too-long": prompt_body(2304, 901),
        "text-prompt-without-tokenizer": good | {"prompt": "hello"},
        "negative-max-tokens": good | {"max_tokens": -1, "min_tokens": 0},
    }
    table = {}
    for name, body in cases.items():
        answer = cap.call("decode", "POST", "/v1/completions", body)
        is_stream = answer[1].get("content-type", "").startswith("text/event-stream")
        dump(folder / f"{name}.request.json", body)
        table[name] = save_response(folder, name, answer, is_stream)
    dump(folder / "meta.json", table)
    print(f"  errors: {({k: v['status'] for k, v in table.items()})}", flush=True)


def dying_decoder(cap, rundir):
    """A stream whose engine core is killed after some tokens: what the client gets."""
    folder = cap.out / "engine-dies-mid-stream"
    folder.mkdir(exist_ok=True)
    pgid = int((rundir / "decode.pid").read_text())
    parts = urllib.parse.urlsplit(cap.url["decode"])
    conn = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    body = prompt_body(32, 950, max_tokens=2000, min_tokens=2000)
    conn.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    resp = conn.getresponse()
    raw, cut, killed = b"", None, None
    try:
        while chunk := resp.read1(4096):
            raw += chunk
            if killed is None and raw.count(b"data: ") >= 4:
                killed = engine_core(pgid)
                os.kill(killed, signal.SIGKILL)
    except (http.client.HTTPException, OSError) as err:
        cut = repr(err)
    conn.close()
    (folder / "decode-stream.sse").write_bytes(raw)
    time.sleep(2)
    try:
        health = cap.call("decode", "GET", "/health")[0]
    except OSError as err:
        health = repr(err)
    dump(folder / "meta.json", {"status": resp.status, "client_error": cut, "health_after": health,
                                "killed": "EngineCore process, SIGKILL, after 4 chunks"})
    print(f"  engine-dies-mid-stream: {len(raw)} bytes, client error {cut}, health after {health}", flush=True)
    return {"health_after": health}


def engine_core(pgid):
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == pgid and "EngineCore" in (entry / "cmdline").read_text():
                return int(entry.name)
        except (OSError, ProcessLookupError):
            continue
    raise RuntimeError(f"no EngineCore process in group {pgid}")


def rss(rundir):
    """Resident and proportional memory of each engine's processes, bytes."""
    out = {}
    for file in rundir.glob("*.pid"):
        pgid, rows = int(file.read_text()), []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(entry.name)) != pgid:
                    continue
                roll = (entry / "smaps_rollup").read_text()
                kib = {k: int(re.search(rf"^{k}:\s+(\d+)", roll, re.M)[1]) * 1024 for k in ("Rss", "Pss")}
                name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                rows.append({"process": name.rsplit("/", 1)[-1], "rss_bytes": kib["Rss"], "pss_bytes": kib["Pss"]})
            except (OSError, TypeError, ProcessLookupError):
                continue
        out[file.stem] = rows
    return out


LOG_LINES = re.compile(r"nixl|KV[ _]Cache|KV cache|KV Transfer|compat|Transfer plan|Application startup|HND|expired|invalid"
                       r"|kv_role|block_size|Killing|EngineDead|died|OutputProc", re.I)


def save_log(rundir, out, tag):
    for role in ("prefill", "decode", "unified"):
        file = rundir / f"{role}.log"
        if file.exists():
            lines = [l for l in file.read_text(errors="replace").splitlines() if LOG_LINES.search(l) and len(l) < 1500 and "Avg prompt throughput" not in l]
            text = "\n".join(lines).replace(str(ROOT) + "/", "").replace(str(ROOT), ".")
            (out / f"log-{tag}-{role}.txt").write_text(text + "\n")


class Facts(dict):
    """facts.json, written after each entry; an entry that is there already is kept."""

    def __init__(self, path):
        super().__init__(json.loads(path.read_text()) if path.exists() else {})
        self.path = path

    def add(self, key, make):
        if key not in self:
            self[key] = make()
            dump(self.path, dict(self))


def plain_phase(cap, facts, rundir):
    for path in ("/version", "/v1/models", "/health"):
        status, headers, raw, _ = cap.call("decode", "GET", path)
        (cap.out / f"{path.strip('/').replace('/', '-')}.json").write_bytes(raw)
        facts.add(path, lambda: {"status": status, "bytes": len(raw), "content_type": headers.get("content-type")})
    scenario(cap, "two-leg-256-first-contact", 256, 1)
    for n in (256, 1000, 2000):
        scenario(cap, f"two-leg-{n}", n, 10 + n, full=n == 1000)
        scenario(cap, f"unified-{n}", n, 20 + n, mode="unified", full=n == 1000)
    scenario(cap, "two-leg-256-token-ids", 256, 30, return_token_ids=True)
    scenario(cap, "two-leg-32", 32, 31)
    scenario(cap, "two-leg-33", 33, 32)
    scenario(cap, "local-recompute-256", 256, 40, mode="decode-only")
    facts.add("sequence_256", lambda: sequence(cap, 256, 6, 100))
    facts.add("sequence_1000", lambda: sequence(cap, 1000, 4, 200))
    parallel(cap, 256, 4, 300)
    errors(cap)
    facts.add("rss_after_load", lambda: rss(rundir))


def expiry_phase(cap, facts, rundir):
    meta = scenario(cap, "expired-256", 256, 60, mode="prefill-only")
    if meta:
        time.sleep(EXPIRY_WAIT_S)
        # An idle engine neither frees nor counts: give it a step.
        cap.call("prefill", "POST", "/v1/completions", prompt_body(32, 61))
        time.sleep(SETTLE_S)
        page = cap.page("prefill")
        meta["waited_s"] = EXPIRY_WAIT_S
        meta["prefill_delta"] = delta((cap.out / "expired-256/prefill-before.prom").read_text(), page)
        (cap.out / "expired-256/prefill-after.prom").write_text(slim(page))
        dump(cap.out / "expired-256/meta.json", meta)

    def wrong_peer(body):
        body["kv_transfer_params"] = body["kv_transfer_params"] | {
            "remote_port": 9, "remote_engine_id": str(uuid.uuid4())}

    may_kill(cap, facts, "load-failure-256", 256, 50, mode="two-leg", tweak=wrong_peer)


def caching_phase(cap, facts, rundir):
    scenario(cap, "caching-two-leg-256-cold", 256, 70)
    scenario(cap, "caching-two-leg-256-hit", 256, 70)
    scenario(cap, "caching-unified-256-cold", 256, 71, mode="unified")
    scenario(cap, "caching-unified-256-hit", 256, 71, mode="unified")
    facts.add("caching_sequence_256", lambda: sequence(cap, 256, 4, 400))
    facts.add("engine-dies-mid-stream", lambda: dying_decoder(cap, rundir))


def incomplete_phase(cap, facts, rundir):
    may_kill(cap, facts, "params-incomplete", 32, 80,
             kv_transfer_params={"do_remote_prefill": True, "do_remote_decode": False})


def range_phase(cap, facts, rundir):
    # vLLM does not check token ids: this one takes the engine core down.
    may_kill(cap, facts, "token-id-out-of-range", 3, 80, prompt=[3, 4, 100000])


def may_kill(cap, facts, name, tokens, seed, mode="decode-only", **more):
    """A request that some releases do not survive: what it answers, and whether the engine still does."""

    def make():
        scenario(cap, name, tokens, seed, mode=mode, **more)
        try:
            return {"health_after": cap.call("decode", "GET", "/health")[0]}
        except OSError as err:
            return {"health_after": repr(err)}

    facts.add(name, make)


def shape(spec, out, name, tokens):
    """One request over a pair that serves a model of testdata/kvshapes, after another that pays for the handshake."""
    kind = json.loads((ROOT / "testdata/kvshapes/shapes.json").read_text())[name]
    args = [(r, a) for r in ("prefill", "decode") for a in
            ["--model", f"testdata/kvshapes/{name}", "--block-size", str(kind["block_tokens"]), *kind.get(r, [])]]
    env = [(r, n, v) for r in ("prefill", "decode") for n, v in kind.get("env", {}).items()]
    with tempfile.TemporaryDirectory(prefix="xferbench-capture-") as tmp:
        rundir = pathlib.Path(tmp) / name
        print(f"{name}: starting", flush=True)
        try:
            engines.start(spec, rundir, ["prefill", "decode"], env, args)
            cap = Capture(spec, pathlib.Path(tmp))
            scenario(cap, "first-contact", 64, 1)
            cap.out = out
            scenario(cap, f"{name}-{tokens}", tokens, 2)
            shutil.copy(ROOT / "testdata/kvshapes" / name / "config.json", out / f"{name}-{tokens}")
        except Exception:
            for log in sorted(rundir.glob("*.log")):
                words = [l for l in log.read_text(errors="replace").splitlines() if "Error" in l]
                print(log.name, *words[-8:], sep="\n  ", file=sys.stderr)
            raise
        finally:
            engines.stop(rundir)


def main():
    args = sys.argv[1:]
    if len(args) == 3:
        spec = engines.load(ROOT / f"testdata/engines/launch-{args[0]}.yaml")
        return shape(spec, ROOT / "testdata/engines" / spec["vllm"], args[1], int(args[2]))
    if not args or args[1:] not in ([], ["--fresh"]):
        sys.exit(__doc__)
    spec = engines.load(ROOT / f"testdata/engines/launch-{args[0]}.yaml")
    out = ROOT / "testdata/engines" / spec["vllm"]
    if args[1:]:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    cap, facts = Capture(spec, out), Facts(out / "facts.json")
    facts.add("captured", lambda: datetime.date.today().isoformat())
    for key in ("vllm", "nixl", "block_size_tokens"):
        facts.add(key, lambda: spec[key])
    # Old engines keep unread blocks 480 s and newer ones lease them for 30 s: shorten the former for the expiry scenario.
    lease = [(r, "VLLM_NIXL_ABORT_REQUEST_TIMEOUT", "20") for r in ("prefill", "decode")]
    caching_on = ([(r, "--enable-prefix-caching") for r in spec["engines"]],
                  {(r, "--no-enable-prefix-caching") for r in spec["engines"]})
    for name, phase, roles, flags, last in (
            ("plain", plain_phase, ["prefill", "decode", "unified"], ((), ()), "rss_after_load"),
            ("caching", caching_phase, ["prefill", "decode", "unified"], caching_on, "engine-dies-mid-stream"),
            ("expiry", expiry_phase, ["prefill", "decode"], ((), ()), "load-failure-256"),
            ("incomplete", incomplete_phase, ["decode"], ((), ()), "params-incomplete"),
            ("range", range_phase, ["decode"], ((), ()), "token-id-out-of-range")):
        if last in facts:
            continue
        with tempfile.TemporaryDirectory(prefix="xferbench-capture-") as tmp:
            rundir = pathlib.Path(tmp) / name
            print(f"{name}: starting {roles}", flush=True)
            ready = engines.start(spec, rundir, roles, lease, *flags)
            try:
                facts.add(f"ready_s_{name}", lambda: ready)
                facts.add(f"rss_after_start_{name}", lambda: rss(rundir))
                phase(cap, facts, rundir)
            finally:
                engines.stop(rundir)
                save_log(rundir, out, name)


if __name__ == "__main__":
    main()
