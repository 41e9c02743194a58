// Every differentiable op. Each lives in ops/<name>.cpp with its backward, in shaders/<name>*.comp, and is
// checked in tests/ops/<name>_test.cpp. Inputs of any strides are accepted (an op makes them contiguous when
// it must); results are contiguous f32 unless said otherwise. B batch, N tokens, C channels, H heads, D
// head_dim.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux::op {

// --- movement
// -------------------------------------------------------------------------------------------------------
/// x itself when it is contiguous and bindable, else a copy (any dtype of 4 bytes; f16/bf16/u8 when
/// contiguous).
Tensor contiguous(const Tensor& x);
/// A dense copy, always (the same types).
Tensor clone(const Tensor& x);
Tensor reshape(const Tensor& x, const Shape& shape);
/// [start, start + length) of dimension dim: a view.
Tensor narrow(const Tensor& x, int dim, int64_t start, int64_t length);
/// Copies into the order dims[0], dims[1], ... (numpy's transpose).
Tensor permute(const Tensor& x, const std::vector<int>& dims);
Tensor concat(const std::vector<Tensor>& parts, int dim);
/// Repeats size-1 dimensions up to `shape`.
Tensor expand(const Tensor& x, const Shape& shape);
/// rows of table[V, C] by ids (i32, any shape, 0 <= id < V checked by the caller) -> [ids..., C]. table
/// f32/f16/bf16.
Tensor embedding(const Tensor& table, const Tensor& ids);
/// x[R, C] f32 and ids i32 [M] -> [M, C]; rows may repeat (backward adds in fixed order).
Tensor gather_rows(const Tensor& x, const Tensor& ids);
/// [B, C, H, W] <-> [B, (H/p)(W/p), C p p], token channel (c, py, px): the Flux packing.
Tensor patchify(const Tensor& x, int64_t p);
Tensor unpatchify(const Tensor& tokens, int64_t p, int64_t height, int64_t width);
/// f32 -> f16/bf16/f32 copy (no gradient through 16-bit results).
Tensor cast(const Tensor& x, DType dtype);
/// f32 [N, K] -> a packed type (autograd/packed.h), to nearest. Not differentiable.
Tensor quantize(const Tensor& x, DType dtype);
/// A packed matrix -> f32, f16 or bf16. Not differentiable.
Tensor dequantize(const Tensor& w, DType dtype = DType::f32);
/// dst += x in place, equal shapes, f32. Not taped.
void accumulate(const Tensor& dst, const Tensor& x);

// --- elementwise, with numpy broadcasting
// ----------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
/// x * scale + shift
Tensor affine(const Tensor& x, float scale, float shift = 0);
enum class Unary : uint32_t {
  gelu_tanh,
  gelu_erf,
  gelu_quick,
  silu,
  relu,
  sigmoid,
  tanh,
  softplus,
  elu_plus1,
  exp,
  log,
  sqrt,
  square,
  abs
};
Tensor unary(const Tensor& x, Unary f);
inline Tensor silu(const Tensor& x) {
  return unary(x, Unary::silu);
}
/// silu(a) * b with a, b the first and second half of the last dimension.
Tensor swiglu(const Tensor& x);
/// gelu_tanh(a) * b, both [..., C]: the T5 feed-forward gate.
Tensor geglu(const Tensor& a, const Tensor& b);
/// x[B, N, C] + gate[B, C] * y[B, N, C]. out: where to put it (bindable; x itself updates x in place), only
/// without a tape.
Tensor gate_residual(const Tensor& x, const Tensor& gate, const Tensor& y, const Tensor& out = {});
/// x[B, N, C] * (1 + scale[B, C]) + shift[B, C]
Tensor modulate(const Tensor& x, const Tensor& shift, const Tensor& scale);

// --- reductions (fixed order)
// -----------------------------------------------------------------------------------------
/// Sum over the given dimensions, which stay as size 1 when keep is set.
Tensor sum(const Tensor& x, const std::vector<int>& dims, bool keep = false);
Tensor mean(const Tensor& x, const std::vector<int>& dims, bool keep = false);
Tensor sum_all(const Tensor& x);   // []
Tensor mean_all(const Tensor& x);  // []
/// Over the last dimension.
Tensor softmax(const Tensor& x);
Tensor l2norm(const Tensor& x, float eps = 1e-12f);  // x / max(|x|, eps)

// --- norms over the last dimension
// -------------------------------------------------------------------------------------
/// weight, bias: [C] or undefined.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps);
/// layer_norm(x)[B, N, C] * (1 + scale[B, C]) + shift[B, C]; one kernel.
Tensor layer_norm_modulate(const Tensor& x, const Tensor& shift, const Tensor& scale, float eps);
Tensor rms_norm(const Tensor& x, const Tensor& weight, float eps);

// --- matrix products
// ------------------------------------------------------------------------------------------------------
enum class Activation : uint32_t { none, gelu_tanh, gelu_erf, gelu_quick, silu };
/// x[..., K] . weight[N, K]^T + bias[N], then the activation, in one kernel. weight f32, f16, bf16 or packed;
/// bias f32 or undefined. weight may be a view with strides (ld, 1). A frozen 16-bit weight gets no gradient;
/// wanting one of a packed weight is an error.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              Activation act = Activation::none);
/// a[..., M, K] . b[..., K, N] (or b[..., N, K]^T): equal leading dimensions.
Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_b = false);
/// a[..., K, M]^T . b[..., K, N]: equal leading dimensions.
Tensor matmul_tn(const Tensor& a, const Tensor& b);

// --- attention
// ---------------------------------------------------------------------------------------------------------------
/// One stream of tokens before attention: qkv[B, n, 3 H D] (rows q, k, v, each head-major), scales [D].
struct QkvPart {
  Tensor qkv, q_scale, k_scale;
};
struct Qkv {
  Tensor q, k, v;  // [B, H, N, D]
};
/// RMS-normalises q and k per head (eps 1e-6), rotates pairs (2i, 2i+1) by rope, and writes the parts one
/// after the other along N: head-major, joined. rope: f32 [Bt, N, D/2, 2] (cos, sin), Bt 1 or B, or undefined
/// (no rotation). No gradient with respect to rope.
Qkv qk_norm_rope(const std::vector<QkvPart>& parts, const Tensor& rope, int64_t heads, float eps = 1e-6f);
/// Rotation alone: x[B, H, N, D].
Tensor rope(const Tensor& x, const Tensor& table);
struct AttentionOptions {
  float scale = 0;      // 0: 1/sqrt(D)
  Tensor key_mask;      // u8 [B, Nk], 1 = keep; a row with no key left gives zeros
  bool causal = false;  // query i sees keys <= i + Nk - Nq
  Tensor bias;          // f32 [H, Nq, Nk], added to the scaled scores (gradient flows)
  bool f16 = false;  // forward may round q, k, v and the weights to f16, where that is faster; sums are f32
};
/// softmax(q k^T scale + bias) v; q[B, H, Nq, D], k[B, H, Nk, D], v[B, H, Nk, Dv] -> [B, H, Nq, Dv]. Without
/// copies where D = Dv is a multiple of 4. Scratch is bounded: no Nq x Nk matrix exists at once (except in
/// calls with a bias, whose gradient has that size anyway).
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {});
/// [B, H, N, D] -> [B, N, H D] and back.
Tensor merge_heads(const Tensor& x);
Tensor split_heads(const Tensor& x, int64_t heads);

// --- kernel regression attention
// ---------------------------------------------------------------------------------------------------------------
/// u = ELU(x) + 1 over the last dimension, divided by |u| + eps when normalise is set.
Tensor feature_map(const Tensor& x, bool normalise, float eps = 1e-6f);
/// feature_map after linear layers with SiLU between them: x[..., D], weights [W, D], ([W, W],) [F, W],
/// biases [W], ([W],) [F]. Hidden layers stay inside one kernel on GPUs when no tape records.
Tensor feature_network(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                       bool normalise, float eps = 1e-6f);
/// x / (|x| + eps) over the last dimension.
Tensor soft_l2norm(const Tensor& x, float eps = 1e-6f);
/// Keys [start, start + length) of v[B, H, N, D] with ones behind them: rows (v, 1, 0 ..) of D + 1 numbers,
/// padded to a multiple of 4; zeros for keys that key_mask (u8 [B, N] or undefined) drops.
Tensor kernel_values(const Tensor& v, const Tensor& key_mask, int64_t start, int64_t length);
struct KernelQuotient {
  Tensor y;    // [..., cols]
  Tensor den;  // [...], not clamped, not differentiable
};
/// num / max(den, eps) of rows (num, den, ..): weighted sums of kernel_values rows of `cols` values.
KernelQuotient kernel_quotient(const Tensor& x, int64_t cols, float eps = 1e-6f);
/// The smallest number, [1]. Not differentiable.
Tensor min_all(const Tensor& x);
struct HkrBlendOptions {
  float alpha_max = 0.2f, gamma = 2.0f;
  bool adaptive = true;  // false: the same gate for all tokens
};
struct HkrBlend {
  Tensor out;   // [B, H, N, D]
  Tensor gate;  // [B, H, N] in (0, 1): its product with alpha_max is the landmark branch's weight
};
/// kernel + alpha_max gate (land - kernel) of two branches [B, H, N, D]. conditioner: four numbers (kernel
/// scale, kernel bias, landmark scale, landmark bias) applied first as (1 + scale) x + bias, or undefined.
/// gate = sigmoid(alpha + gamma (min(d / mean d, 3) / 3 - 1/2)), d = 1 - cosine of the branches, its mean
/// over the tokens of a head; no gradient flows through d.
HkrBlend hkr_blend(const Tensor& kernel, const Tensor& land, const Tensor& conditioner, const Tensor& alpha,
                   const HkrBlendOptions& options = {});

// --- images, channels last: x[B, H, W, C]
// ------------------------------------------------------------------------------------
struct ConvOptions {
  int stride = 1;
  int pad_top = 1, pad_left = 1, pad_bottom = 1, pad_right = 1;
};
/// weight[O, C, kh, kw] (checkpoint layout), bias[O] or undefined -> [B, H', W', O].
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvOptions& options = {});
/// Over groups of channels; with silu the activation follows in the same kernel.
Tensor group_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, int groups, float eps,
                  bool silu = false);
Tensor upsample_nearest2(const Tensor& x);
/// align_corners false, no antialias.
Tensor resize_bilinear(const Tensor& x, int64_t height, int64_t width);
Tensor nchw_to_nhwc(const Tensor& x);
Tensor nhwc_to_nchw(const Tensor& x);

// --- losses: [] unless said otherwise
// -------------------------------------------------------------------------------------------
Tensor mse(const Tensor& x, const Tensor& y);
Tensor l1(const Tensor& x, const Tensor& y);
Tensor smooth_l1(const Tensor& x, const Tensor& y, float beta);
/// Over the last dimension: x . y / (max(|x|, eps) max(|y|, eps)).
Tensor cosine_similarity(const Tensor& x, const Tensor& y, float eps = 1e-8f);

// --- random numbers: Philox 4x32-10, counter based; element i depends on (seed, stream, i) alone. Not
// differentiable ------------
/// Uniform in [0, 1).
Tensor uniform(Device& device, const Shape& shape, uint64_t seed, uint64_t stream);
Tensor normal(Device& device, const Shape& shape, uint64_t seed, uint64_t stream);
/// cos then sin of 1000 s w_k (spec: flux1.md section 3): s[B] -> [B, dim]. Differentiable with respect to s.
Tensor timestep_embedding(const Tensor& s, int64_t dim, float max_period = 10000, float time_factor = 1000);

}  // namespace vkflux::op
