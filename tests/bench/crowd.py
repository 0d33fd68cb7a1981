# SPDX-License-Identifier: Apache-2.0
"""Two measurements with containers, for tests/bench/run: what an event costs with many of them alive, and what a start of
one costs while ig traces."""
import os, signal, statistics, subprocess, time

import tracebench

CGROUP = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
UID = "54321"


def status_mib(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return next(int(l.split()[1]) for l in f if l.startswith(key + ":")) / 1024


class Tracer:
    """A running ig; `started` is the time from its exec to its word that it runs."""

    def __init__(self, command, out):
        self.out = open(out, "wb")
        t0 = time.monotonic()
        self.p = subprocess.Popen(command, stdout=self.out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.said = []
        for line in self.p.stderr:
            self.said.append(line)
            if "running" in line:
                break
        else:
            raise RuntimeError("ig ended early: " + "".join(self.said))
        self.started = time.monotonic() - t0

    def cpu(self):
        return tracebench.cpu_seconds(self.p.pid)

    def stop(self):
        self.p.send_signal(signal.SIGINT)
        self.said += self.p.stderr.readlines()
        self.p.wait(60)
        self.out.close()


class Crowd:
    """Containers of tests/bench/namespaces.c."""

    def __init__(self, binary, containers, opens):
        group = f"{CGROUP}/ig-bench-{os.getpid()}-{containers}"
        self.p = subprocess.Popen([binary, str(containers), str(opens), group, "-u", UID],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.p.stdout.readline() != "ready\n":
            raise RuntimeError(f"{containers} containers could not be made")

    def round(self):
        """Makes the opens; gives CPU nanoseconds of the containers for each."""
        print(file=self.p.stdin, flush=True)
        return float(self.p.stdout.readline().split(",")[1].split()[0])

    def close(self):
        self.p.stdin.close()
        self.p.wait(60)


def settled_size(path, limit=20.0):
    """Waits until the file has stopped growing."""
    end, size = time.monotonic() + limit, -1
    while time.monotonic() < end:
        now = os.path.getsize(path)
        if now == size:
            return
        size = now
        time.sleep(0.5)


def labelled(path):
    """Lines of JSON output, and how many of them name a container."""
    lines = named = 0
    with open(path, "rb") as f:
        for line in f:
            lines += 1
            named += b'"containerId":""' not in line and b'"containerId":"' in line
    return lines, named


def one_crowd(binary, ig, containers, opens, tmp):
    crowd = Crowd(binary, containers, opens)
    try:
        crowd.round()
        before = crowd.round()
        out = f"{tmp}/ig-bench-crowd"
        t = Tracer(ig("run", "trace_open", "-v", "-o", "json", "--ledger", "--uid", UID), out)
        try:
            time.sleep(2)
            rss = status_mib(t.p.pid, "VmRSS")
            # What is done once for each container is not the cost of an event.
            crowd.round()
            settled_size(out)
            cpu = t.cpu()
            traced = crowd.round()
            settled_size(out)
            cpu = t.cpu() - cpu
            after_rss = status_mib(t.p.pid, "VmRSS")
        finally:
            t.stop()
        after = crowd.round()
        lines, named = (n / 2 for n in labelled(out))
        os.remove(out)
    finally:
        crowd.close()
    return dict(start=t.started * 1000, rss=rss, after_rss=after_rss, cpu=cpu / opens * 1e6,
                added=traced - (before + after) / 2, lines=lines, named=named)


def namespaces(binary, ig, tmp, counts, opens, reps):
    """Medians by number of containers, the numbers in turn."""
    rows = {n: [] for n in counts}
    for _ in range(reps):
        for n in counts:
            rows[n].append(one_crowd(binary, ig, n, opens, tmp))
    return {n: {k: statistics.median(r[k] for r in rs) for k in rs[0]} for n, rs in rows.items()}


def latency(docker, ig, tmp, runs):
    """Milliseconds that `docker run` takes, without and with ig tracing, in turn; three lists: off, on, off again."""
    times = {"off": [], "on": [], "off again": []}

    def once(arm):
        t0 = time.monotonic()
        subprocess.run([*docker, "run", "--rm", "--net=none", "busybox", "/bin/busybox", "true"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        times[arm].append(1000 * (time.monotonic() - t0))

    out = f"{tmp}/ig-bench-latency"
    for _ in range(runs):
        once("off")
        t = Tracer(ig("run", "trace_exec", "-v", "-o", "json"), out)
        # What its start costs is another matter.
        time.sleep(0.2)
        once("on")
        t.stop()
        time.sleep(0.2)
        once("off again")
    os.remove(out)
    return times
