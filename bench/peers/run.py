#!/usr/bin/env python3
"""Measures `vkflux bench` and what a user would otherwise run, on the same rows in one go, and writes one JSON.

    bench/peers/run.py --vkflux build/vkflux --out runs/peers.json \\
        --peer "OpenBLAS=./openblas_peer" --peer "PyTorch=python3 bench/peers/torch_peer.py" \\
        --peer "ggml CPU=./ggml_peer cpu" --peer "ggml Vulkan=./ggml_peer vulkan"

Rows are taken in groups; in each, ours is measured, then every peer, then ours again, so that a disturbed machine shows
as a difference between both of ours. A peer is a command that reads "name TAB shape TAB dtype" lines and answers those
it can measure with TAB and a median in ms. One that fails is reported and left out; the others go on.
"""
import argparse
import json
import os
import shlex
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


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--vkflux", default="build/vkflux")
    p.add_argument("--out", required=True)
    p.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    p.add_argument("--seconds", type=float, default=0.3, help="of repeats of a row")
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
        first = ours(args, suite, names)
        rows = [(r["name"], r["shape"], r["dtype"]) for r in first["rows"]]
        answers = {}
        for name, command in peers.items():
            asked = rows + (quantised(rows) if "ggml" in name else [])
            if "Vulkan" in name and first["class"] == "cpu":
                asked = [r for r in asked if any("\t".join(r).startswith(s) for s in SLOW_PEER)]
            # A process for every slow row: what one leaves behind must not stop the next.
            batches = [[r] for r in asked] if "Vulkan" in name else [asked]
            answers[name], said = {}, []
            for batch in batches:
                found, said = ask_peer(command, batch)
                answers[name].update(found)
            if said:
                record["peers"][name].setdefault("about", said)
        second = {(r["name"], r["shape"], r["dtype"]): r for r in ours(args, suite, names)["rows"]}
        for key in ("device", "class", "driver"):
            record[key] = first[key]
        old = record.get("peaks", {"gflops": 0, "gbs": 0})
        record["peaks"] = {k: max(old[k], first["peaks"][k]) for k in old}
        again = set(rows + quantised(rows))
        record["rows"] = [r for r in record["rows"] if (r["name"], r["shape"], r["dtype"]) not in again]
        for r in first["rows"]:
            key = (r["name"], r["shape"], r["dtype"])
            both = sorted((r["ms"], second[key]["ms"]))
            r["before_ms"], r["after_ms"] = r["ms"], second[key]["ms"]
            r["ms"] = sum(both) / 2
            r["gflops"], r["gbs"] = r["flops"] / r["ms"] * 1e-6, r["bytes"] / r["ms"] * 1e-6
            r["peers"] = {name: a[key] for name, a in answers.items() if key in a}
            record["rows"].append(r)
        for key in quantised(rows):
            found = {name: a[key] for name, a in answers.items() if key in a}
            if found:
                record["rows"].append(dict(zip(("name", "shape", "dtype"), key), peers=found))
        for r in record["rows"]:
            if "ms" in r:
                r["share"] = max(r["gflops"] / record["peaks"]["gflops"], r["gbs"] / record["peaks"]["gbs"])
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
