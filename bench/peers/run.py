#!/usr/bin/env python3
"""Measures `vkflux bench` and what a user would otherwise run, on the same rows in one go, and writes one JSON.

    bench/peers/run.py --vkflux build/vkflux --out runs/peers.json \\
        --peer "OpenBLAS=./openblas_peer" --peer "PyTorch=python3 bench/peers/torch_peer.py" \\
        --peer "ggml CPU=./ggml_peer cpu" --peer "ggml Vulkan=./ggml_peer vulkan"

Rows are taken in groups, and a group in rounds: ours, then every peer, then ours again and so on. Other processes only make
anything slower, so the shortest of the rounds' medians counts, ours and theirs alike; shares of the device's peaks, which
are measured between the repeats, are medians over the rounds. A peer is a command that reads "name TAB shape TAB dtype" lines and answers those
it can measure with TAB and a median in ms. One that fails is reported and left out; the others go on.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

GROUPS = [("ops", "linear"), ("ops", "attention"),
          ("ops", "copy N,add N,gelu N,gelu bwd,silu N,gate_residual,layer_norm,rms_norm,softmax,qk_norm,adamw"),
          ("ops", "conv3x3,group_norm"), ("blocks", ""), ("step", ""), ("train", "")]
# What takes ggml's Vulkan backend longest on a CPU: one size of each kind says enough.
SLOW_PEER = ["linear\tM512 N1024 K1024", "attention\tH8 N512 D128", "double block\tT256 I256 C3072 D128\tf32",
             "single block\tT256 I256 C3072 D128\tf32"]


def ours(args, suite, names):
    command = [args.vkflux, "bench", "--suite", suite, "--json", "--seconds", str(args.seconds)]
    if names:
        command += ["--filter", names]
    if args.full:
        command.append("--full")
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"{shlex.join(command)} failed with status {result.returncode}")
    return json.loads(result.stdout)


def ask_peer(command, rows):
    """{(name, shape, dtype): ms}, and the peer's first line about itself."""
    text = "".join("\t".join(r) + "\n" for r in rows)
    with tempfile.TemporaryFile("w+") as errors:
        result = subprocess.run(shlex.split(command), input=text, stdout=subprocess.PIPE, stderr=errors, text=True)
        errors.seek(0)
        said = [line.strip() for line in errors if line.strip()]
    found = {}
    for line in result.stdout.splitlines():
        name, shape, dtype, ms = line.split("\t")
        found[name, shape, dtype] = float(ms)
    if result.returncode != 0:
        print(f"  {command}: status {result.returncode}: {said[-1] if said else ''}", file=sys.stderr)
    return found, said


def quantised(rows):
    """Peers with own weight formats are asked for those too, on the shapes of the first few products."""
    shapes = [r[1] for r in rows if r[0] == "linear" and r[2] == "f32" and r[1].startswith("M512")]
    have = set(rows)
    return [r for s in shapes for d in ("q8_0", "q4_k") if (r := ("linear", s, d)) not in have]


def asked_of(name, rows, cpu, first_round):
    """The rows that a peer is asked for; on a CPU a Vulkan backend once, and for few."""
    rows = rows + (quantised(rows) if "ggml" in name else [])
    if "Vulkan" not in name or not cpu:
        return rows
    return [r for r in rows if first_round and any("\t".join(r).startswith(s) for s in SLOW_PEER)]


def ask_peers(peers, asked, about):
    """{name: {(name, shape, dtype): ms}} of all peers; adds their first words about themselves to `about`."""
    answers = {}
    for name, command in peers.items():
        answers[name] = {}
        # A process for every row of a Vulkan backend: what one leaves behind must not stop the next.
        for batch in [[r] for r in asked[name]] if "Vulkan" in name else [asked[name]]:
            found, said = ask_peer(command, batch)
            answers[name].update(found)
            if said:
                about[name].setdefault("about", said)
    return answers


def combine(rounds, answers, rows):
    """One row of our rounds' rows of a kind, with the peers' answers."""
    out = []
    for key in rows:
        mine = [r[key] for r in rounds]
        best = dict(min(mine, key=lambda r: r["ms"]))
        best["rounds_ms"] = [r["ms"] for r in mine]
        best["share"] = statistics.median(r["share"] for r in mine)
        # Of each peak alone, to compare rows that were measured at different moments.
        for rate in ("gflops", "gbs"):
            best["of_" + rate] = statistics.median(r[rate] / r["peaks"][rate] for r in mine)
        out.append(best)
    for key in quantised(rows):
        out.append(dict(zip(("name", "shape", "dtype"), key)))
    for r in out:
        key = (r["name"], r["shape"], r["dtype"])
        times = {n: [a[n][key] for a in answers if key in a[n]] for n in (answers[0] if answers else {})}
        r["peers"] = {n: min(ms) for n, ms in times.items() if ms}
    return [r for r in out if "ms" in r or r["peers"]]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--vkflux", default="build/vkflux")
    p.add_argument("--out", required=True)
    p.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    p.add_argument("--seconds", type=float, default=0.3, help="of repeats of a row")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--full", action="store_true", help="also our large sizes on a CPU")
    p.add_argument("--only", help="groups whose suite and filter, joined by a blank, contain this; other rows of --out stay")
    args = p.parse_args()
    peers = dict(peer.split("=", 1) for peer in args.peer)
    record = {"started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "cores": os.cpu_count(), "rows": [],
              "peers": {name: {"command": command} for name, command in peers.items()}}
    if args.only and os.path.exists(args.out):
        with open(args.out) as f:
            record = json.load(f)
        for name, command in peers.items():
            record["peers"].setdefault(name, {"command": command})
    for suite, names in GROUPS:
        if args.only and args.only not in suite + " " + names:
            continue
        print(f"{suite} {names}", file=sys.stderr, flush=True)
        rounds, answers = [], []
        for i in range(args.rounds):
            measured = ours(args, suite, names)
            rounds.append({(r["name"], r["shape"], r["dtype"]): r for r in measured["rows"]})
            rows = list(rounds[0])
            asked = {name: asked_of(name, rows, measured["class"] == "cpu", i == 0) for name in peers}
            answers.append(ask_peers(peers, asked, record["peers"]))
            for key in ("device", "class", "driver"):
                record[key] = measured[key]
            old = record.get("peaks", {"gflops": 0, "gbs": 0})
            record["peaks"] = {k: max(old[k], measured["peaks"][k]) for k in old}
        again = set(rows + quantised(rows))
        record["rows"] = [r for r in record["rows"] if (r["name"], r["shape"], r["dtype"]) not in again]
        record["rows"] += combine(rounds, answers, rows)
        with open(args.out + ".part", "w") as f:
            json.dump(record, f, indent=1)
        os.replace(args.out + ".part", args.out)
    if not args.only or args.only == "students":
        print("students of attention", file=sys.stderr, flush=True)
        command = [args.vkflux, "bench", "attention", "--json", "--student", "3:256:512,2:128:128,2:64:128",
                   "--landmark-max", "512", "--tokens", "1024,2304,4096"]
        record["students"] = {"command": shlex.join(command[1:]),
                              **json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)}
    record["ended"] = time.strftime("%H:%M UTC", time.gmtime())
    with open(args.out, "w") as f:
        json.dump(record, f, indent=1)


if __name__ == "__main__":
    main()
