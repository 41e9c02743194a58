#!/usr/bin/env python3
"""What the compilers of several drivers make of the hot kernels, as a table in Markdown.

  table.py --vkflux build/vkflux --title "Compile only, 2026-11-21" "RDNA2=LAUNCHER" "Turing=LAUNCHER ARGS" > table.md

A LAUNCHER is a command that runs the program in its arguments on a driver (empty: the system's). The driver only has to
compile: `vkflux kernels --json` launches every kernel with the tiles that the ops choose for the class of device, at the
sizes of `vkflux bench`. --keep DIR keeps its output, and takes it from there when it is already present.
Exit status 1: a kernel of the table spills.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys

# Of each hot kernel: how its constants name the tile. Rows of the table are tiles; a cell is the worst of the programs
# (forms of the product, formats, epilogues) with this tile.


def matmul(s):
    return f"{s[0] // s[1] * s[2]}×{s[1] * s[3]}×{s[4]}, {s[2]}×{s[3]} each"


def coop(s):
    subgroups = s[0] // s[1]
    return f"{subgroups // s[7] * s[5] * s[2]}×{s[7] * s[6] * s[3]}×{s[8]}"


def flash(s):
    return f"D{s[4] * s[1] * 4}, {s[0] // s[1] * s[2]}×{s[1] * s[3]}"


HOT = {
    "matmul": matmul,
    "matmul_coop": coop,
    "matvec": lambda s: f"M{s[3]}, {s[0] // s[1] * s[2]} columns",
    "flash_attention": flash,
    "flash_attention_coop": lambda s: f"D{s[5] * 4}, {s[0] // s[1] * s[2]}×{s[6]}",
    "flash_attention_dq": flash,
    "flash_attention_dkv": flash,
    "feature_network": lambda s: f"{s[0] // s[1] * s[2]} rows × {s[1] * s[3] * 4}",
    "conv2d_gpu": lambda s: f"{s[1] * s[2]} pixels × {s[0] * s[3]}",
    "conv2d_weight_gpu": lambda s: "64×64",
}


def measure(vkflux, name, launcher, keep):
    kept = keep / f"{name.replace(' ', '_')}.json" if keep else None
    if kept and kept.exists():
        return json.loads(kept.read_text())
    command = shlex.split(launcher) + [vkflux, "kernels", "--json"]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    if kept:
        kept.write_text(out)
    return json.loads(out)


def rows_of(record):
    """{(kernel, tile): the worst of each figure}"""
    rows = {}
    for k in record["kernels"]:
        shader = k["kernel"].split(":")[0]
        if shader not in HOT:
            continue
        row = rows.setdefault((k["kernel"], HOT[shader](k["spec"])), {})
        for key, worse in (("registers", max), ("occupancy", min), ("spills", max), ("shared_bytes", max)):
            if k[key] is not None:
                row[key] = worse(row.get(key, k[key]), k[key])
        row["subgroup"] = k["subgroup_size"]
    return rows


def cell(row):
    if row is None:
        return "–"
    parts = [f"{row['registers']:.0f}"]
    parts.append(f"{row['occupancy']:.0f}" if "occupancy" in row else f"of {row['subgroup']}")
    parts.append(f"{row['shared_bytes'] / 1024:.0f}K" if "shared_bytes" in row else "?")
    if row["spills"]:
        parts.append(f"**{row['spills']:.0f} spills**")
    return " / ".join(parts)


NOTES = """Each cell: registers / occupancy / shared memory, the worst over the forms of the product, weight formats and epilogues
that were compiled with this tile; spills are named where there are any. – : this class of device takes another tile.

* **AMD (RADV)**: vector registers of 256 that an invocation can have; occupancy in subgroups per SIMD (at most 16 of 64 on
  RDNA2, 16 on RDNA3 and 4; the compiler counts those of 32 twice as many), by registers and shared memory both.
* **NVIDIA (NVK)**: registers of 255; occupancy in warps per multiprocessor by registers alone (at most 32 on Turing, 48 on
  later consumer chips, 64 on Pascal); 128 registers let two workgroups of 256 invocations run at once, 64 four. The driver
  doesn't tell the shared memory, which is as in AMD's column. The proprietary compiler allocates differently.
* **Intel (ANV)**: the largest number of live registers of the 128 (256 bits each) that a subgroup has, in units of a register;
  in place of the occupancy, which is fixed by the hardware threads, the subgroup size that was chosen.
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vkflux", required=True)
    p.add_argument("--title", required=True)
    p.add_argument("--keep", type=pathlib.Path)
    p.add_argument("devices", nargs="+", metavar="NAME=LAUNCHER")
    o = p.parse_args()
    if o.keep:
        o.keep.mkdir(parents=True, exist_ok=True)
    devices = []
    for d in o.devices:
        name, _, launcher = d.partition("=")
        record = measure(o.vkflux, name, launcher, o.keep)
        devices.append((name, record, rows_of(record)))
        print(f"{name}: {len(record['kernels'])} kernels", file=sys.stderr)
    order = list(HOT)
    keys = sorted({k for _, _, rows in devices for k in rows}, key=lambda k: (order.index(k[0].split(":")[0]), k))
    print(f"# {o.title}\n\n" + NOTES)
    print("| | device | class | compiler |\n|---|---|---|---|")
    for name, record, _ in devices:
        print(f"| {name} | {record['device']} | {record['class']} | {record['driver']} |")
    print("\n| kernel | tile | " + " | ".join(name for name, _, _ in devices) + " |")
    print("|---|---|" + "---|" * len(devices))
    for key in keys:
        print(f"| {key[0]} | {key[1]} | " + " | ".join(cell(rows.get(key)) for _, _, rows in devices) + " |")
    spilling = sum(1 for _, _, rows in devices for row in rows.values() if row["spills"])
    total = sum(len(rows) for _, _, rows in devices)
    print(f"\n{total} pairs of tile and device, {spilling} of them with spills.")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
