"""The networks of `vkflux bench`'s larger rows in PyTorch: FLUX.1 blocks, a small FLUX.1 transformer with text
encoders, and the student of attention. Written for timing: random weights, no loading."""
import math

import torch
import torch.nn.functional as F
from torch import nn


def rotate(x, table):
    """x [B, H, N, D], table [N, D/2, 2] (cos, sin), neighbouring channels are a pair."""
    pairs = x.unflatten(-1, (-1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    c, s = table[..., 0], table[..., 1]
    return torch.stack((c * even - s * odd, s * even + c * odd), -1).flatten(-2)


def rms_norm(x, scale, eps=1e-6):
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps).to(x.dtype) * scale


def modulated(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class QkNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.query, self.key = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))


def heads_of(qkv, heads, norm):
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return rms_norm(q, norm.query), rms_norm(k, norm.key), v


def attend(q, k, v, table):
    y = F.scaled_dot_product_attention(rotate(q, table), rotate(k, table), v)
    return y.transpose(1, 2).flatten(2)


class Stream(nn.Module):
    def __init__(self, width, mlp, dim):
        super().__init__()
        self.mod, self.qkv = nn.Linear(width, 6 * width), nn.Linear(width, 3 * width)
        self.proj, self.norm = nn.Linear(width, width), QkNorm(dim)
        self.mlp_in, self.mlp_out = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def finish(self, x, o, m):
        x = x + m[2] * self.proj(o)
        return x + m[5] * self.mlp_out(F.gelu(self.mlp_in(modulated(x, m[3], m[4])), approximate="tanh"))


class DoubleBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.img, self.txt = Stream(width, 4 * width, width // heads), Stream(width, 4 * width, width // heads)

    def forward(self, img, txt, vec, table):
        mi, mt = (s.mod(vec).unsqueeze(1).chunk(6, -1) for s in (self.img, self.txt))
        parts = [heads_of(s.qkv(modulated(x, m[0], m[1])), self.heads, s.norm)
                 for s, x, m in ((self.txt, txt, mt), (self.img, img, mi))]
        o = attend(*(torch.cat(p, 2) for p in zip(*parts)), table)
        n = txt.shape[1]
        return self.img.finish(img, o[:, n:], mi), self.txt.finish(txt, o[:, :n], mt)


class SingleBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.width = heads, width
        self.mod, self.norm = nn.Linear(width, 3 * width), QkNorm(width // heads)
        self.linear1, self.linear2 = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)

    def forward(self, x, vec, table):
        shift, scale, gate = self.mod(vec).unsqueeze(1).chunk(3, -1)
        qkv, mlp = self.linear1(modulated(x, shift, scale)).split((3 * self.width, 4 * self.width), -1)
        o = attend(*heads_of(qkv, self.heads, self.norm), table)
        return x + gate * self.linear2(torch.cat((o, F.gelu(mlp, approximate="tanh")), -1))


class Embedder(nn.Sequential):
    def __init__(self, width_in, width):
        super().__init__(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))


class Flux(nn.Module):
    def __init__(self, width, heads, depth, depth_single, channels, context, pooled):
        super().__init__()
        self.img_in, self.txt_in = nn.Linear(channels, width), nn.Linear(context, width)
        self.time_in, self.vector_in = Embedder(256, width), Embedder(pooled, width)
        self.double_blocks = nn.ModuleList(DoubleBlock(width, heads) for _ in range(depth))
        self.single_blocks = nn.ModuleList(SingleBlock(width, heads) for _ in range(depth_single))
        self.mod, self.out = nn.Linear(width, 2 * width), nn.Linear(width, channels)

    def forward(self, img, txt, y, t, table):
        w = torch.exp(-math.log(10000) * torch.arange(128, device=t.device) / 128)
        angle = 1000 * t[:, None] * w
        features = torch.cat((angle.cos(), angle.sin()), -1).to(img.dtype)
        vec = F.silu(self.time_in(features) + self.vector_in(y))
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, table)
        n, x = txt.shape[1], torch.cat((txt, img), 1)
        for block in self.single_blocks:
            x = block(x, vec, table)
        shift, scale = self.mod(vec).unsqueeze(1).chunk(2, -1)
        return self.out(modulated(x[:, n:], shift, scale))


class TextEncoder(nn.Module):
    """Two layers, 4 heads, 128 wide: the size of the miniature's text encoders."""

    def __init__(self, vocab=2048, width=128, heads=4, mlp=256, layers=2):
        super().__init__()
        self.table, self.heads = nn.Embedding(vocab, width), heads
        self.layers = nn.ModuleList(
            nn.ModuleList((nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width),
                           nn.LayerNorm(width), nn.Linear(width, mlp), nn.Linear(mlp, width)))
            for _ in range(layers))

    def forward(self, ids):
        x = self.table(ids)
        for norm1, qkv, out, norm2, up, down in self.layers:
            q, k, v = qkv(norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + down(F.gelu(up(norm2(x))))
        return x


def features(dim, hidden, out, layers):
    widths = [dim] + [hidden] * (layers - 1) + [out]
    parts = []
    for a, b in zip(widths, widths[1:]):
        parts += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*parts[:-1])


class Student(nn.Module):
    """Kernel regression attention with landmarks, docs/ttr.md."""

    def __init__(self, dim, feature_dim, hidden, layers):
        super().__init__()
        self.phi_q = features(dim, hidden, feature_dim, layers)
        self.phi_k = features(dim, hidden, feature_dim, layers)
        self.conditioner = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 4))
        self.alpha = nn.Parameter(torch.tensor(-2.2))

    @staticmethod
    def positive(x):
        u = F.elu(x) + 1
        return u / (u.norm(dim=-1, keepdim=True) + 1e-6)

    def forward(self, q, k, v, text, embedding):
        fq, fk = self.positive(self.phi_q(q)), self.positive(self.phi_k(k))
        num = fq @ (fk.transpose(-1, -2) @ v)
        den = fq @ fk.sum(-2).unsqueeze(-1)
        kernel = num / den.clamp_min(1e-6)
        image = k.shape[2] - text
        count = min(max(64, round(0.08 * image)), image)
        rows = torch.linspace(text, k.shape[2] - 1, count, device=k.device).round().long()
        rows = torch.cat((torch.arange(text, device=k.device), rows))
        land = F.scaled_dot_product_attention(q, k[:, :, rows], v[:, :, rows])
        c = self.conditioner(embedding)[0]
        kernel, land = (1 + c[0]) * kernel + c[1], (1 + c[2]) * land + c[3]
        with torch.no_grad():
            d = 1 - F.cosine_similarity(kernel, land, dim=-1)
            d = (d / d.mean(-1, keepdim=True).clamp_min(1e-6)).clamp_max(3) / 3 - 0.5
        gate = torch.sigmoid(self.alpha + 2 * d).unsqueeze(-1)
        return kernel + 0.2 * gate * (land - kernel)
