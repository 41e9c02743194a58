#!/usr/bin/env python3
"""Turns the JSON of run.py into the Markdown of docs/benchmarks: the aims with what was reached, then all rows.

    bench/peers/report.py runs/peers.json --title "lavapipe, 2 cores" --machine "..." > docs/benchmarks/NAME.md
"""
import argparse
import json
import statistics


def text(ms):
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}" if ms < 1000 else f"{ms:.0f}"


class Record:
    def __init__(self, path):
        with open(path) as f:
            self.json = json.load(f)
        self.rows = [r for r in self.json["rows"] if "ms" in r]
        self.by_key = {(r["name"], r["shape"], r["dtype"]): r for r in self.rows}

    def named(self, *names, dtype="f32"):
        return [r for r in self.rows if r["name"] in names and r["dtype"] == dtype]

    def sibling(self, row, name=None, dtype=None):
        return self.by_key.get((name or row["name"], row["shape"], dtype or row["dtype"]))

    def peer(self, row, name):
        """The peer's time over ours: above 1 we are faster."""
        ms = row.get("peers", {}).get(name)
        return ms / row["ms"] if ms else None


class Aims:
    """Lines of the table: what, aim, what was reached and whether that is enough."""

    def __init__(self):
        self.lines = []

    def add(self, what, aim, values, at_least, unit="x"):
        """values: (label, number) of every row that the aim speaks of."""
        values = [(label, v) for label, v in values if v is not None]
        if not values:
            return self.lines.append((what, aim, "not measured", "-"))
        show = (lambda v: f"{100 * v:.0f}%") if unit == "%" else (lambda v: f"{v:.2f}×")
        numbers = [v for _, v in values]
        label, worst = min(values, key=lambda p: p[1])
        reached = show(worst) if len(values) == 1 else (
            f"median {show(statistics.median(numbers))}, least {show(worst)} ({label})")
        met = sum(v >= at_least for v in numbers)
        verdict = "met" if met == len(numbers) else "not met" if met == 0 else f"met by {met} of {len(numbers)}"
        self.lines.append((what, aim, reached, verdict))


def label(row):
    return f"{row['name']} {row['shape']} {row['dtype']}"


def shared_aims(a, r):
    """Those that compare our rows with each other and with the device's peaks."""
    forward = r.named("linear")
    forward = [x for x in forward if not x["shape"].startswith("M1 ")]
    a.add("f32 matmul against the multiply+add ceiling", "≥ 60%", [(label(x), x["share"]) for x in forward], 0.6, "%")
    a.add("f32 matmul against OpenBLAS sgemm", "≥ 0.18×", [(label(x), r.peer(x, "OpenBLAS")) for x in forward], 0.18)
    for name in ("linear dx", "linear dw"):
        pairs = [(label(x), x["of_gflops"] / f["of_gflops"]) for x in r.named(name) if (f := r.sibling(x, "linear"))]
        a.add(f"{name} against forward", "≥ 0.75×", pairs, 0.75)
    for dtype in ("f16", "bf16"):
        pairs = [(label(x), x["of_gflops"] / f["of_gflops"]) for x in r.named("linear", dtype=dtype)
                 if (f := r.sibling(x, dtype="f32"))]
        a.add(f"{dtype} weights against our f32", "≥ 1×", pairs, 1.0)
    coded = sorted({x["dtype"] for x in r.rows} - {"f32", "f16", "bf16"})
    for dtype in coded:
        pairs = [(label(x), x["of_gflops"] / f["of_gflops"]) for x in r.named("linear", dtype=dtype)
                 if (f := r.sibling(x, dtype="f32")) and int(x["shape"].split()[0][1:]) >= 512]
        a.add(f"{dtype} weights against our f32, M ≥ 512", "≥ 0.9×", pairs, 0.9)
    full = [x for x in r.named("attention") if x["shape"].endswith("D128")]
    a.add("attention, D = 128, against the ceiling", "≥ 40%", [(label(x), x["share"]) for x in full], 0.4, "%")
    pairs = [(label(x), x["of_gflops"] / f["of_gflops"]) for x in r.named("attention bwd")
             if x["shape"].endswith("D128") and (f := r.sibling(x, "attention"))]
    a.add("its backward against the rate of forward", "≥ 0.7×", pairs, 0.7)
    copy = r.named("copy")
    bound = r.named("add", "gelu", "gelu bwd", "silu", "gate_residual", "layer_norm_modulate", "layer_norm_modulate bwd",
                    "rms_norm", "softmax", "qk_norm_rope", "adamw", "group_norm+silu", "group_norm+silu bwd")
    if copy:
        a.add("elementwise and norms against a copy", "≥ 0.3×",
              [(label(x), x["of_gbs"] / copy[0]["of_gbs"]) for x in bound], 0.3)
    if forward:
        rate = statistics.median(x["of_gflops"] for x in forward)
        conv = [x for x in r.named("conv3x3", "conv3x3 dx", "conv3x3 dw")]
        a.add("3x3 convolutions against matmul", "≥ 0.6×", [(label(x), x["of_gflops"] / rate) for x in conv], 0.6)


def peer_aims(a, r):
    def pair(peer):
        """Double plus single block, theirs over ours."""
        blocks = [x for x in r.named("double block", "single block")]
        theirs = [x.get("peers", {}).get(peer) for x in blocks]
        if len(blocks) != 2 or None in theirs:
            return []
        return [("double + single block f32", sum(theirs) / sum(x["ms"] for x in blocks))]
    a.add("FLUX.1 double + single block, 512 tokens, against ggml's Vulkan backend", "≥ 6×", pair("ggml Vulkan"), 6)
    a.add("the same against ggml's native CPU backend", "≥ 0.8×", pair("ggml CPU"), 0.8)
    for name in ("distillation update", "training step"):
        a.add(f"one {name} against PyTorch", "≥ 0.3×",
              [(label(x), r.peer(x, "PyTorch")) for x in r.named(name)], 0.3)


def student_lines(record):
    students = record.json.get("students")
    if not students:
        return []
    out = ["", "## Students of attention against our full attention", "",
           f"`vkflux {students['command']}` (speed-up by image tokens; 77 text tokens, 2 heads of 128)", ""]
    tokens = [row["image_tokens"] for row in students["full"]]
    out += ["| student | " + " | ".join(str(n) for n in tokens) + " | break-even by time |",
            "|---|" + "---|" * (len(tokens) + 1)]
    for s in students["students"]:
        time = s["break_even"]["time"]
        at = f"{time['image_tokens']:.0f} ({time['kind']})" if "image_tokens" in time else "none in reach"
        cells = " | ".join(f"{row['speedup']:.2f}×" for row in s["rows"])
        out.append(f"| {s['layers']} layers, F {s['feature_dim']}, W {s['width']}, cap {s['landmark_max']} | {cells} | {at} |")
    return out


def row_lines(record):
    peers = list(record.json["peers"])
    out = ["", "## All rows", "",
           "ms: the shortest of the rounds' medians, ours and the peers', which stand beside it with *peer's time / ours*",
           "(above 1: ours is faster). Limit: share of the nearer of the device's two peaks, measured between the repeats.", "",
           "| row | ours ms | GFLOP/s | GB/s | limit | " + " | ".join(peers) + " |", "|---|---|---|---|---|" + "---|" * len(peers)]
    for r in record.json["rows"]:
        theirs = r.get("peers", {})
        cells = []
        for p in peers:
            ms = theirs.get(p)
            cells.append("" if ms is None else f"{text(ms)} ({ms / r['ms']:.2f}×)" if "ms" in r else text(ms))
        mine = [text(r["ms"]), f"{r['gflops']:.1f}", f"{r['gbs']:.1f}", f"{100 * r['share']:.0f}%"] if "ms" in r else [""] * 4
        out.append(f"| {label(r)} | " + " | ".join(mine + cells) + " |")
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("record")
    p.add_argument("--title", required=True)
    p.add_argument("--machine", default="", help="a sentence about the processor and driver")
    args = p.parse_args()
    r = Record(args.record)
    j = r.json
    drift = [max(x["rounds_ms"]) / min(x["rounds_ms"]) for x in r.rows]
    a = Aims()
    shared_aims(a, r)
    peer_aims(a, r)
    out = [f"# {args.title}", "",
           f"Made by `bench/peers/run.py` and `bench/peers/report.py`, {j['started']} to {j.get('ended', '?')}. "
           f"{args.machine}".rstrip(), "",
           f"* device: {j['device']} ({j['class']} class), {j['driver']}",
           f"* the best peaks seen in this run: {j['peaks']['gflops']:.1f} GFLOP/s of multiply and add in registers, "
           f"{j['peaks']['gbs']:.1f} GB/s through memory",
           f"* rounds of ours and the peers in turn: ours differ by {statistics.median(drift):.2f}× in the median,"
           f" {max(drift):.2f}× at most"]
    for name, peer in j["peers"].items():
        about = [s for s in peer.get("about", []) if name.split()[0].lower() in s.lower() and "backend" not in s]
        out.append(f"* {name}: {about[-1] if about else 'no answer'}")
    out += ["", "## Aims", "", "| what | aim | reached | |", "|---|---|---|---|"]
    out += [f"| {' | '.join(line)} |" for line in a.lines]
    out += ["", "What holds the rest back, and how that was found: [performance.md]"
            "(../performance.md#what-was-reached-and-what-holds-the-rest-back)."]
    out += student_lines(r) + row_lines(r)
    print("\n".join(out))


if __name__ == "__main__":
    main()
