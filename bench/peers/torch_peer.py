#!/usr/bin/env python3
"""Times PyTorch on rows of `vkflux bench`: on CUDA when there is a device, else on the CPU with all its cores.

stdin: lines "name TAB shape TAB dtype"; stdout: the same with TAB and the median time in ms, for the rows it can
measure. stderr: the version. Backward rows time the backward pass alone, as ours do.
"""
import re
import statistics
import sys
import time

import torch
import torch.nn.functional as F

import torch_models as models

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def noise(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


def sync():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def median_ms(prepare, seconds=0.4):
    """prepare() isn't timed and returns what is."""
    taken, total, first = [], 0.0, True
    while len(taken) < 200 and (len(taken) < 3 or total < seconds):
        work = prepare()
        sync()
        start = time.perf_counter()
        work()
        sync()
        took = time.perf_counter() - start
        if first:
            first = False
            continue
        taken.append(took)
        total += took
    return 1e3 * statistics.median(taken)


def forward(fn, *inputs):
    def work():
        with torch.no_grad():
            fn(*inputs)
    return median_ms(lambda: work)


def backward(fn, inputs, wanted):
    leaves = [x.requires_grad_(i in wanted) for i, x in enumerate(inputs)]
    seed = torch.randn_like(fn(*leaves))

    def prepare():
        y = fn(*leaves)
        return lambda: torch.autograd.grad(y, [leaves[i] for i in wanted], seed)
    return median_ms(prepare)


def numbers(shape):
    """{'M': 64, 'N': 1024} of "M64 N1024"."""
    return {k: int(v) for k, v in re.findall(r"([A-Za-z]+)(\d+)", shape)}


def linear(name, s, dtype):
    x, w, b = noise(s["M"], s["K"], dtype=dtype), noise(s["N"], s["K"], dtype=dtype), noise(s["N"], dtype=dtype)
    if name == "linear dx":
        return backward(F.linear, [x, w, b], [0])
    if name == "linear dw":
        return backward(F.linear, [x, w, b], [1])
    gelu = name == "linear+gelu"
    return forward(lambda x, w, b: F.gelu(F.linear(x, w, b), approximate="tanh") if gelu else F.linear(x, w, b),
                   x, w, b)


def attention(name, s, dtype):
    qkv = [noise(1, s["H"], s["N"], s["D"], dtype=dtype) for _ in range(3)]
    if name.endswith("bwd"):
        return backward(F.scaled_dot_product_attention, qkv, [0, 1, 2])
    return forward(F.scaled_dot_product_attention, *qkv)


def pointwise(name, s, dtype):
    x, y = noise(1, s["N"], s["C"]), noise(1, s["N"], s["C"])
    a, b = noise(s["C"]), noise(s["C"])
    norm = lambda x, shift, scale: models.modulated(x, shift, scale)  # noqa: E731
    gelu = lambda x: F.gelu(x, approximate="tanh")  # noqa: E731
    rows = {
        "copy": lambda: forward(lambda x, y: y.copy_(x), x, y),
        "add": lambda: forward(torch.add, x, y),
        "gelu": lambda: forward(gelu, x),
        "gelu bwd": lambda: backward(gelu, [x], [0]),
        "silu": lambda: forward(F.silu, x),
        "gate_residual": lambda: forward(lambda x, g, y: torch.addcmul(x, g, y), x, a, y),
        "layer_norm_modulate": lambda: forward(norm, x, a, b),
        "layer_norm_modulate bwd": lambda: backward(norm, [x, a, b], [0, 1, 2]),
        "rms_norm": lambda: forward(lambda x, w: F.rms_norm(x, x.shape[-1:], w, 1e-6), x, a),
        "softmax": lambda: forward(lambda x: F.softmax(x, -1), x),
    }
    return rows[name]() if name in rows else None


def qk_norm_rope(name, s, dtype):
    x, scale, table = noise(1, s["N"], 3 * s["H"] * s["D"]), models.QkNorm(s["D"]).to(DEVICE), noise(
        s["N"], s["D"] // 2, 2)

    def fn(x):
        q, k, v = models.heads_of(x, s["H"], scale)
        return models.rotate(q, table), models.rotate(k, table), v.contiguous()
    return forward(fn, x)


def adamw(name, s, dtype):
    p = torch.nn.Parameter(noise(s["P"]))
    p.grad = noise(s["P"])
    step = torch.optim.AdamW([p], lr=1e-3, fused=True).step
    return median_ms(lambda: step)


def conv3x3(name, s, dtype):
    side, stride = s["side"], s["s"]
    x = noise(1, s["C"], side, side).contiguous(memory_format=torch.channels_last)
    w = noise(s["O"], s["C"], 3, 3).contiguous(memory_format=torch.channels_last)
    b = noise(s["O"])

    def fn(x, w, b):
        return F.conv2d(x if stride == 1 else F.pad(x, (0, 1, 0, 1)), w, b, stride, 1 if stride == 1 else 0)
    if name.endswith("dx"):
        return backward(fn, [x, w, b], [0])
    if name.endswith("dw"):
        return backward(fn, [x, w, b], [1])
    return forward(fn, x, w, b)


def group_norm(name, s, dtype):
    x = noise(1, s["C"], s["side"], s["side"]).contiguous(memory_format=torch.channels_last)
    fn = lambda x, w, b: F.silu(F.group_norm(x, 32, w, b, 1e-6))  # noqa: E731
    inputs = [x, noise(s["C"]), noise(s["C"])]
    return backward(fn, inputs, [0, 1, 2]) if name.endswith("bwd") else forward(fn, *inputs)


def block(name, s, dtype):
    n, width = s["T"] + s["I"], s["C"]
    double = name.startswith("double")
    with torch.device(DEVICE):
        net = (models.DoubleBlock if double else models.SingleBlock)(width, width // s["D"]).to(dtype)
    vec, table = noise(1, width, dtype=dtype), noise(n, s["D"] // 2, 2, dtype=dtype)
    streams = [noise(1, s[k], width, dtype=dtype) for k in "IT"] if double else [noise(1, n, width, dtype=dtype)]

    def fn(*x):
        y = net(*x, vec, table)
        return torch.cat(y[::-1], 1) if double else y
    if name.endswith(" dx"):
        net.requires_grad_(False)
        return backward(fn, streams, list(range(len(streams))))
    if name.endswith(" bwd"):
        params = list(net.parameters())
        return backward(lambda *x: fn(*x[:len(streams)]), streams + params, list(range(len(streams) + len(params))))
    return forward(fn, *streams)


def denoising_step(shape, s, dtype):
    with torch.device(DEVICE):
        if shape.startswith("random"):
            net, text, side, passes = models.Flux(s["C"], s["C"] // 128, 2, 4, 64, 256, 256), s["T"], 16, 1
        elif shape == "emoji":
            net, text, side, passes = models.Flux(192, 3, 2, 4, 64, 128, 128), 8, 4, 2
        else:
            return None
    net = net.to(dtype)
    context, dim = net.txt_in.in_features, net.img_in.out_features // net.double_blocks[0].heads
    args = (noise(1, text, context, dtype=dtype), noise(1, context, dtype=dtype), torch.full((1,), 0.5, device=DEVICE),
            noise(text + side * side, dim // 2, 2, dtype=dtype))

    def fn(x):
        v = net(x, *args)
        for _ in range(passes - 1):
            v = torch.lerp(net(x, *args), v, 2.0)
        return x - 0.1 * v
    return forward(fn, noise(1, side * side, 64, dtype=dtype))


def clipped_step(params, optimizer, loss):
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()


def training_step(name, s, dtype):
    batch, text, image = s["B"], s["T"], s["I"]
    with torch.device(DEVICE):
        net, clip, t5 = models.Flux(s["C"], s["C"] // 64, 2, 4, 64, 128, 128), models.TextEncoder(), models.TextEncoder()
    params = [p for m in (net, clip, t5) for p in m.parameters()]
    optimizer = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.99), fused=True)
    ids = torch.randint(0, 2048, (batch, text), device=DEVICE)
    x0, z = noise(batch, image, 64), noise(batch, image, 64)
    t, table = torch.rand(batch, device=DEVICE), noise(text + image, 32, 2)

    def work():
        x = x0 + t[:, None, None] * (z - x0)
        loss = F.mse_loss(net(x, t5(ids), clip(ids)[:, -1], t, table), z - x0)
        clipped_step(params, optimizer, loss)
        loss.item()
    return median_ms(lambda: work)


def distillation_update(name, s, dtype):
    layers = 3 if s["W"] >= 512 else 2
    with torch.device(DEVICE):
        student = models.Student(s["D"], s["F"], s["W"], layers)
        variances = torch.nn.Parameter(torch.tensor([0.0, -1.0]))
    params = list(student.parameters())
    optimizer = torch.optim.AdamW(params + [variances], lr=1e-4, fused=True)
    n = s["T"] + s["I"]
    q, teacher = noise(1, s["H"], s["q"], s["D"]), noise(1, s["H"], s["q"], s["D"])
    k, v, embedding = noise(1, s["H"], n, s["D"]), noise(1, s["H"], n, s["D"]), noise(1, 64)

    def work():
        y = student(q, k, v, s["T"], embedding)
        huber = F.smooth_l1_loss(y, teacher, beta=0.05)
        cosine = 1 - F.cosine_similarity(y, teacher, dim=-1).mean()
        terms = torch.stack((huber, cosine))
        loss = (terms * torch.exp(-variances) / 2 + variances / 2).sum()
        clipped_step(params, optimizer, loss)
        return torch.stack((loss, huber, cosine, F.mse_loss(y, teacher))).detach().cpu()
    return median_ms(lambda: work)


def measure(name, shape, dtype):
    s = numbers(shape)
    if m := re.match(r"(\d+)x\d+ ", shape):
        s["side"] = int(m.group(1))
    kinds = {"linear": linear, "linear+gelu": linear, "attention": attention, "qk_norm_rope": qk_norm_rope,
             "adamw": adamw, "conv3x3": conv3x3, "group_norm+silu": group_norm, "double": block, "single": block,
             "training": training_step, "distillation": distillation_update}
    word = name.split(" ")[0]
    if name == "denoising step":
        return denoising_step(shape, s, dtype)
    return kinds[word](name, s, dtype) if word in kinds else pointwise(name, s, dtype)


def main():
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"PyTorch {torch.__version__}, {DEVICE}, {where}", file=sys.stderr, flush=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    for line in sys.stdin:
        name, shape, dtype = line.rstrip("\n").split("\t")
        if dtype not in DTYPES:
            continue
        ms = measure(name, shape, DTYPES[dtype])
        if ms is not None:
            print(f"{name}\t{shape}\t{dtype}\t{ms:.6f}", flush=True)


if __name__ == "__main__":
    main()
