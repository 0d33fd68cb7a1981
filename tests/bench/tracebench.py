#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tracebench: measure any event tracer from the outside, with nothing but Linux and Python.

    tracebench.py [options] -- COMMAND [ARGS...]        one tracer
    tracebench.py --suite suite.json                    several tracers, interleaved

The tracer is any command that prints one line per event on stdout and names the traced path (open)
or program (exec) in it: `opensnoop`, `bpftrace -e ...`, `ig run trace_open -o json`, our own tool.
Nothing is asked of it but that, so the same numbers come out for every tool.

One repetition does, in this order:
  1. load alone                                             -> baseline ns per operation
  2. a slow trickle of marked operations, then the tracer   -> time to first event (from exec(2) of
     the tracer to the first marked line in its output)
  3. the measured load: exactly N operations, other mark    -> workload slowdown; tracer CPU
  4. wait until no marked line has come for a while         -> events seen = marked lines
  5. SIGINT, wait4                                          -> max RSS; what it says it lost
  6. load alone again; the baseline is the mean of 1 and 6

Result fields (medians over repetitions; --json gives every repetition):
  generated    operations done by the load (exact)
  seen         marked lines in the tracer's output
  lost         generated - seen (negative: duplicates)
  lost_said    what the tracer itself reported as lost or dropped (stdout or stderr); "silent" loss
               is lost - lost_said
  cpu_s        tracer CPU seconds (user+system, all threads) from load start to the last marked line
  cpu_s_per_M  the same, per million events seen
  rss_mib      peak resident set
  base_ns      load's CPU ns per operation alone
  added_ns     extra CPU ns per operation while traced (the probes run in the load's context)
  slowdown     traced ns / base ns
  rate         operations per second the load reached while traced
  ttfe_ms      time to first event (needs a line-by-line writer: use --pty for programs which
               buffer when stdout is a file)
  start_cpu_s  tracer CPU seconds spent before the measured load

Pinning: the load on one CPU, the tracer on another (--load-cpu, --tracer-cpu; '' for none). With
--prio both get a high autogroup weight so that other work on a shared machine disturbs less.
"""
import argparse, json, os, pty, re, shutil, signal, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))


def high_priority():
    """A new session has its own autogroup; weigh it up. Harmless where autogroups are off."""
    try:
        with open("/proc/self/autogroup", "w") as f:
            f.write("-20")
    except OSError:
        pass
    try:
        os.nice(-20)
    except OSError:
        pass


def cpu_seconds(pid):
    """CPU time of a process with all its threads, dead ones too, to the nanosecond."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def children(pid):
    out = [pid]
    try:
        for t in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{t}/children") as f:
                for c in f.read().split():
                    out += children(int(c))
    except OSError:
        pass
    return out


def tree_cpu(pid):
    return sum(cpu_seconds(p) for p in children(pid))


def peak_rss_kib(pid):
    total = 0
    for p in children(pid):
        try:
            with open(f"/proc/{p}/status") as f:
                for line in f:
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1])
        except OSError:
            pass
    return total


class Bench:
    def __init__(self, o):
        self.o = o
        self.dir = tempfile.mkdtemp(prefix="tb", dir=o.tmp)
        self.load_bin = os.path.join(self.dir, "load")
        subprocess.run(["cc", "-O2", "-static", "-o", self.load_bin, os.path.join(HERE, "load.c")], check=True)
        tag = os.path.basename(self.dir)[2:8].lower()
        # marks stay under 15 bytes, so that they survive in a task's comm
        self.trickle_mark, self.mark = f"tbw{tag}", f"tbm{tag}"
        if o.mode == "exec":
            src = os.path.join(self.dir, "t.c")
            with open(src, "w") as f:
                f.write("int main(void){return 0;}\n")
            for m in (self.trickle_mark, self.mark):
                subprocess.run(["cc", "-O2", "-static", "-o", os.path.join(self.dir, m), src], check=True)
        elif o.existing:
            for m in (self.trickle_mark, self.mark):
                open(os.path.join(self.dir, m), "w").close()

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, mark):
        return os.path.join(self.dir, mark)

    def pre(self):
        if self.o.prio:
            high_priority()

    def load(self, mark, n, rate=0):
        cmd = [self.load_bin, self.o.mode, "-n", str(n), "-p", str(self.o.procs)]
        if self.o.load_cpu != "":
            cmd += ["-c", self.o.load_cpu]
        if rate:
            cmd += ["-r", str(rate), "-b", str(max(1, rate // 1000))]
        p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             start_new_session=True, preexec_fn=self.pre, env=dict(os.environ, LOAD_PATH=self.path(mark)))
        return p

    def run_load(self, mark, n, rate=0):
        p = self.load(mark, n, rate)
        out, err = p.communicate()
        if p.returncode:
            raise RuntimeError(f"load failed: {err}")
        return json.loads(out)

    def start_tracer(self, cmd, use_pty, outf, errf):
        if self.o.tracer_cpu != "":
            cmd = ["taskset", "-c", self.o.tracer_cpu] + cmd
        if not use_pty:
            return subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=outf, stderr=errf,
                                    start_new_session=True, preexec_fn=self.pre), None
        master, slave = pty.openpty()
        p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=slave, stderr=errf,
                             start_new_session=True, preexec_fn=self.pre)
        os.close(slave)
        return p, master

    def first_event(self, cmd, use_pty):
        """Time from the tracer's exec to the first marked line, under a trickle of events."""
        o = self.o
        rate = 200 if o.mode == "exec" else 2000
        with open(os.path.join(self.dir, "out1"), "wb") as outf, open(os.path.join(self.dir, "err1"), "wb") as errf:
            trickle = self.load(self.trickle_mark, int(rate * o.start_limit), rate)
            time.sleep(0.15)
            t0 = time.monotonic()
            p, master = self.start_tracer(cmd, use_pty, outf, errf)
            needle, tail, pos, ttfe = self.trickle_mark.encode(), b"", 0, None
            rf = open(outf.name, "rb")
            while time.monotonic() - t0 < o.start_limit and p.poll() is None:
                if master is not None:
                    import select
                    chunk = os.read(master, 65536) if select.select([master], [], [], 0.0005)[0] else b""
                else:
                    chunk = rf.read(1 << 16)
                    if not chunk:
                        time.sleep(0.0005)
                tail = tail[-64:] + chunk
                if needle in tail:
                    ttfe = (time.monotonic() - t0) * 1e3
                    break
            trickle.kill()
            for c in children(trickle.pid):
                try:
                    os.kill(c, signal.SIGKILL)
                except OSError:
                    pass
            trickle.communicate()
            rf.close()
        return p, master, ttfe

    @staticmethod
    def stop(p):
        try:
            os.killpg(p.pid, signal.SIGINT)
        except OSError:
            pass
        t0 = time.monotonic()
        while True:
            pid, st, ru = os.wait4(p.pid, os.WNOHANG)
            if pid:
                p.returncode = st
                return ru
            if time.monotonic() - t0 > 15:
                os.killpg(p.pid, signal.SIGKILL)
            time.sleep(0.005)

    def drain_pty(self, master, outf):
        import select
        while select.select([master], [], [], 0)[0]:
            try:
                b = os.read(master, 1 << 20)
            except OSError:
                return
            if not b:
                return
            outf.write(b)

    def once(self, cmd, use_pty):
        o = self.o
        res = {}
        # start-up, with its own process so that the measured one writes to a plain file
        p, master, ttfe = self.first_event(cmd, use_pty)
        self.stop(p)
        if master is not None:
            os.close(master)
        res["ttfe_ms"] = ttfe

        base1 = self.run_load(self.mark, o.n, o.rate)
        outp, errp = os.path.join(self.dir, "out"), os.path.join(self.dir, "err")
        with open(outp, "wb") as outf, open(errp, "wb") as errf:
            p, _ = self.start_tracer(cmd, False, outf, errf)
            # ready when a marked line of the trickle shows, or (buffering tracers) after --settle
            rate = 200 if o.mode == "exec" else 2000
            deadline = time.monotonic() + o.start_limit
            needle = self.trickle_mark.encode()
            seen_one = False
            while time.monotonic() < deadline and p.poll() is None and not seen_one:
                self.run_load(self.trickle_mark, rate // 4, rate)
                with open(outp, "rb") as f:
                    seen_one = needle in f.read()
            if p.poll() is not None:
                raise RuntimeError("tracer ended early:\n" + open(errp).read()[-2000:])
            if not seen_one:
                raise RuntimeError("tracer never reported an event")
            time.sleep(o.settle)
            res["start_cpu_s"] = tree_cpu(p.pid)
            c0, t0 = tree_cpu(p.pid), time.monotonic()
            x = self.run_load(self.mark, o.n, o.rate)
            # quiet: no marked line for a while (other programs' events may well go on)
            c1, last, pos, tail = tree_cpu(p.pid), time.monotonic(), 0, b""
            mark = self.mark.encode()
            with open(outp, "rb") as f:
                while time.monotonic() - last < o.quiet and time.monotonic() - t0 < o.limit:
                    c = tree_cpu(p.pid)
                    fresh = tail + f.read()
                    if mark in fresh:
                        c1, last = c, time.monotonic()
                    tail = fresh[-32:].replace(mark, b"")
                    time.sleep(0.03)
            rss = peak_rss_kib(p.pid)
            ru = self.stop(p)
        base2 = self.run_load(self.mark, o.n, o.rate)

        needle, seen = self.mark.encode(), 0
        said_re = re.compile(rb"(?i)(?:lost|dropped?|missed)\D{0,20}(\d+)|(\d+)\s+(?:events?|samples?)?\s*(?:were\s+)?(?:lost|dropped)")
        said = 0
        with open(outp, "rb") as f:
            for line in f:
                if needle in line:
                    seen += 1
                elif b"ost" in line or b"rop" in line:
                    m = said_re.search(line)
                    if m:
                        said += int(m.group(1) or m.group(2))
        with open(errp, "rb") as f:
            for line in f:
                m = said_re.search(line)
                if m:
                    said += int(m.group(1) or m.group(2))
        base = (base1["ns_cpu"] + base2["ns_cpu"]) / 2
        res.update(generated=x["ops"], seen=seen, lost=x["ops"] - seen, lost_said=said,
                   cpu_s=c1 - c0, cpu_s_per_M=(c1 - c0) / max(seen, 1) * 1e6, rss_mib=max(rss, ru.ru_maxrss) / 1024,
                   base_ns=base, added_ns=x["ns_cpu"] - base, slowdown=x["ns_cpu"] / base, rate=x["ops_per_s"],
                   out_mib=os.path.getsize(outp) / 2**20)
        return res


FIELDS = ["generated", "seen", "lost", "lost_said", "cpu_s_per_M", "rss_mib", "base_ns", "added_ns", "slowdown", "rate", "ttfe_ms", "start_cpu_s"]


def summary(rows):
    s = {}
    for f in FIELDS:
        v = [r[f] for r in rows if r.get(f) is not None]
        s[f] = statistics.median(v) if v else None
    s["lost_pct"] = 100 * s["lost"] / s["generated"] if s.get("generated") else None
    s["reps"] = len(rows)
    return s


def show(name, s):
    def g(f, spec):
        return "-" if s.get(f) is None else format(s[f], spec)
    print(f"{name:30} {g('generated','.0f'):>9} {g('seen','.0f'):>9} {g('lost','.0f'):>8} {g('lost_said','.0f'):>9} {g('lost_pct','.2f'):>7} "
          f"{g('cpu_s_per_M','.2f'):>8} {g('rss_mib','.1f'):>7} {g('added_ns','.0f'):>8} {g('slowdown','.2f'):>6} {g('rate','.0f'):>8} {g('ttfe_ms','.0f'):>7} {g('start_cpu_s','.2f'):>7}", flush=True)


HEAD = f"{'tracer':30} {'generated':>9} {'seen':>9} {'lost':>8} {'lost_said':>9} {'lost%':>7} {'cpu_s/M':>8} {'RSS MiB':>7} {'+ns/op':>8} {'x':>6} {'op/s':>8} {'ttfe ms':>7} {'start_s':>7}"


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--mode", choices=["open", "exec"], default="open")
    a.add_argument("-n", type=int, default=0, help="operations per load process (default 200000 open, 2000 exec)")
    a.add_argument("--procs", type=int, default=1)
    a.add_argument("--rate", type=int, default=0, help="operations per second and process; 0: as fast as it goes")
    a.add_argument("--reps", type=int, default=3)
    a.add_argument("--existing", action="store_true", help="open a file that exists (default: a missing one, the cheapest open)")
    a.add_argument("--load-cpu", default="1")
    a.add_argument("--tracer-cpu", default="0")
    a.add_argument("--prio", action="store_true")
    a.add_argument("--pty", action="store_true", help="measure time-to-first-event through a terminal")
    a.add_argument("--settle", type=float, default=0.5)
    a.add_argument("--quiet", type=float, default=1.0, help="seconds without a marked line that end a run")
    a.add_argument("--limit", type=float, default=60.0)
    a.add_argument("--start-limit", type=float, default=20.0)
    a.add_argument("--tmp", default="/dev/shm")
    a.add_argument("--json", action="store_true")
    a.add_argument("--name", default=None)
    a.add_argument("--suite", help='JSON: {"name": ["cmd", "arg", ...], ...}; a name ending in " @pty" uses --pty')
    a.add_argument("command", nargs=argparse.REMAINDER)
    o = a.parse_args()
    if o.n == 0:
        o.n = 2000 if o.mode == "exec" else 200000
    cmd = o.command[1:] if o.command[:1] == ["--"] else o.command
    suite = json.load(open(o.suite)) if o.suite else {o.name or os.path.basename(cmd[0]) if cmd else "": cmd}
    if not all(suite.values()):
        a.error("no tracer command")
    b = Bench(o)
    rows = {k: [] for k in suite}
    try:
        for _ in range(o.reps):
            for k, c in suite.items():
                try:
                    r = b.once(c, o.pty or k.endswith(" @pty"))
                    rows[k].append(r)
                    if o.json:
                        print(json.dumps(dict(r, tracer=k)), flush=True)
                except RuntimeError as e:
                    print(f"{k}: {e}", file=sys.stderr)
        print(f"# mode={o.mode} n={o.n}x{o.procs} rate={o.rate or 'max'} reps={o.reps} load_cpu={o.load_cpu} tracer_cpu={o.tracer_cpu}")
        print(HEAD)
        for k, v in rows.items():
            if v:
                show(k, summary(v))
    finally:
        b.close()


if __name__ == "__main__":
    main()
