// Direct convolution without an im2col buffer: the kernels walk (tap, channel) for each output pixel. The
// gradient with respect to the input is the same kernel with transposed weights; that of the weights is a sum
// over pixels in parts.
#include <algorithm>
#include <iterator>
#include <utility>

#include "autograd/ops.h"
#include "autograd/ops/flat.h"
#include "autograd/ops/matmul_engine.h"
#include "autograd/ops/rows.h"
#include "autograd/ops/strided.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr const char* kName = "conv2d";

struct Conv {
  Device* device;
  bool simd;
  int64_t batch, in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w;
  int64_t stride, pad_top, pad_left;

  int64_t pixels() const { return batch * out_h * out_w; }
  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t in_c4() const { return (in_c + 3) / 4; }
  double flops() const {
    return 2.0 * static_cast<double>(pixels()) * static_cast<double>(in_c * out_c * taps());
  }
};

struct Tile {
  KernelId kernel;
  int64_t pixels, channels;
};

uint32_t format_of(const Tensor& t) {
  return !t.defined() || t.dtype() == DType::f32 ? 0 : t.dtype() == DType::f16 ? 1 : 2;
}

bool is_weight(const Tensor& t) {
  return t.dtype() == DType::f32 || t.dtype() == DType::f16 || t.dtype() == DType::bf16;
}

double bytes_of(std::initializer_list<const Tensor*> tensors) {
  double sum = 0;
  for (const Tensor* t : tensors) sum += static_cast<double>(t->bytes());
  return sum;
}

// x[.., C] with C filled up to a multiple of 4; x itself when it is one.
Tensor pad_channels(const Tensor& x) {
  const int64_t c = x.dim(-1), c4 = (c + 3) / 4;
  if (c % 4 == 0 || x.numel() == 0) return x;
  Shape shape = x.shape();
  shape[-1] = c4 * 4;
  const Tensor y = Tensor::empty(x.device(), shape, DType::f32, MemoryClass::scratch);
  const auto n = static_cast<uint64_t>(y.numel()) / 4;
  run(x.device(), spec::Conv2dPad{}, {x, y}, args::Conv2dPadArgs{u32(y.numel() / 4), u32(c), u32(c4)},
      groups_1d(ceil_div(n, 256)), {0, bytes_of({&x, &y})});
  return y;
}

Tile simd_tile(const Conv& c) {
  struct Row {
    int64_t max_c;
    uint32_t pixels, channels;  // pixels per lane
  };
  // 128 accumulators spread the cost of the fetches best; with few channels the fetches limit.
  constexpr Row kRows[] = {{4, 8, 4}, {8, 8, 8}, {16, 8, 16}, {INT64_MAX, 4, 32}};
  const Row& r =
      *std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& x) { return c.out_c <= x.max_c; });
  const uint32_t sg = c.device->caps().subgroup_size;
  return {{spec::Conv2dSimd{.SG = sg, .MA = r.pixels, .NO = r.channels}, c.out_c % 4 ? "scalar" : "vec4"},
          sg * r.pixels,
          r.channels};
}

Tile gpu_tile(const Conv& c) {
  struct Row {
    int64_t max_c;
    uint32_t tx, ty, pm, po, kc;
  };
  constexpr Row kRows[] = {{16, 4, 64, 4, 4, 2}, {64, 16, 16, 4, 4, 4}, {INT64_MAX, 16, 16, 8, 8, 2}};
  constexpr Row kLean{INT64_MAX, 16, 16, 8, 4, 2};  // for compilers that have 128 registers
  const DeviceClass cls = c.device->device_class();
  const bool wide = cls == DeviceClass::nvidia || cls == DeviceClass::amd;
  const bool few = c.pixels() < 4096;  // small tiles keep more of the device busy
  const Row& r = c.out_c <= kRows[0].max_c          ? kRows[0]
                 : c.out_c <= kRows[1].max_c || few ? kRows[1]
                 : wide                             ? kRows[2]
                                                    : kLean;
  return {{spec::Conv2dGpu{.TX = r.tx, .TY = r.ty, .PM = r.pm, .PO = r.po, .KC = r.kc},
           c.out_c % 4 ? "scalar" : "vec4"},
          int64_t{r.ty} * r.pm,
          int64_t{r.tx} * r.po};
}

// The weights as the kernels read them, see conv2d_pack.comp.
struct Packed {
  Tensor data;
  int64_t bias_at;  // texel
};

Packed pack(const Conv& c, const Tile& t, const Tensor& weight, const Tensor& bias, bool flip) {
  const int64_t blocks = (c.out_c + t.channels - 1) / t.channels, rows = blocks * t.channels;
  const int64_t bias_at = rows * c.taps() * c.in_c4(), n = bias_at + rows / 4;
  const Tensor data = Tensor::empty(*c.device, {n, 4}, DType::f32, MemoryClass::scratch);
  run(*c.device,
      spec::Conv2dPack{.WEIGHT_FORMAT = format_of(weight), .BIAS_FORMAT = format_of(bias), .FLIP = flip},
      {weight, bias.defined() ? bias : weight, data},
      args::Conv2dPackArgs{u32(n), u32(c.out_c), u32(c.in_c), u32(c.in_c4()), u32(c.taps()), u32(t.channels),
                           u32(bias_at), bias.defined() ? 1u : 0u},
      groups_1d(ceil_div(static_cast<uint64_t>(n), 256)), {0, bytes_of({&weight, &data})});
  return {data, bias_at};
}

// x: [B, H, W, C filled up to 4]; flip: weight is [in_c, out_c, kh, kw] and the taps run backwards.
Tensor convolve(const Conv& c, const Tensor& x, const Tensor& weight, const Tensor& bias, bool flip) {
  const Tensor y = Tensor::empty(*c.device, {c.batch, c.out_h, c.out_w, c.out_c});
  if (y.numel() == 0) return y;
  if (c.in_c == 0 && !bias.defined()) {
    y.fill_zero();
    return y;
  }
  const Tile t = c.simd ? simd_tile(c) : gpu_tile(c);
  const Packed w = pack(c, t, weight, bias, flip);
  const args::Conv2dArgs a{u32(c.pixels()),
                           u32(c.in_h),
                           u32(c.in_w),
                           u32(c.in_c4()),
                           u32(c.out_h),
                           u32(c.out_w),
                           u32(c.out_c),
                           u32(c.kernel_h),
                           u32(c.kernel_w),
                           static_cast<int>(c.stride),
                           static_cast<int>(c.pad_top),
                           static_cast<int>(c.pad_left),
                           u32(w.bias_at)};
  Groups groups = groups_1d(ceil_div(static_cast<uint64_t>(c.pixels()), static_cast<uint64_t>(t.pixels)));
  groups.z = groups.y;
  groups.y = u32((c.out_c + t.channels - 1) / t.channels);
  run(*c.device, t.kernel, {x, w.data, y}, a, groups, {c.flops(), bytes_of({&x, &w.data, &y})});
  return y;
}

// Along one axis, the pixels first, first + stride, ... of the input. They meet the taps tap, tap + stride,
// ... alone, as in a convolution without stride that pads by `pad`.
struct Phase {
  int64_t first, pixels, tap, taps, pad;
};

Phase phase_of(int64_t first, int64_t stride, int64_t pixels, int64_t taps, int64_t pad) {
  const auto count = [&](int64_t from, int64_t n) { return from < n ? (n - from + stride - 1) / stride : 0; };
  const int64_t tap = (first + pad) % stride;
  return {first, count(first, pixels), tap, count(tap, taps), (first + pad) / stride};
}

// A convolution with a stride is a sum of convolutions without: calls f(part, y, x) for each that isn't
// empty.
template <class F>
void each_phase(const Conv& c, F f) {
  for (int64_t first_y = 0; first_y < c.stride; ++first_y) {
    for (int64_t first_x = 0; first_x < c.stride; ++first_x) {
      const Phase y = phase_of(first_y, c.stride, c.in_h, c.kernel_h, c.pad_top),
                  x = phase_of(first_x, c.stride, c.in_w, c.kernel_w, c.pad_left);
      if (y.pixels * y.taps * x.pixels * x.taps == 0) continue;
      Conv part = c;
      part.in_h = y.pixels, part.kernel_h = y.taps, part.pad_top = y.pad;
      part.in_w = x.pixels, part.kernel_w = x.taps, part.pad_left = x.pad;
      part.stride = 1;
      f(part, y, x);
    }
  }
}

Tensor every_stride(const Tensor& t, int dim, int64_t stride, int64_t first, int64_t count) {
  Shape shape = t.shape(), strides = t.strides();
  shape[dim] = count, strides[dim] *= stride;
  return t.slice(dim, first, t.dim(dim) - first).with_strides(shape, strides);
}

Tensor phase_pixels(const Conv& c, const Tensor& image, const Phase& y, const Phase& x) {
  return every_stride(every_stride(image, 1, c.stride, y.first, y.pixels), 2, c.stride, x.first, x.pixels);
}

Tensor phase_taps(const Conv& c, const Tensor& weight, const Phase& y, const Phase& x) {
  return every_stride(every_stride(weight, 2, c.stride, y.tap, y.taps), 3, c.stride, x.tap, x.taps);
}

Tensor input_gradient(const Conv& c, const Tensor& dy, const Tensor& weight) {
  if (c.stride > 1) {
    const Tensor dx = Tensor::empty(*c.device, {c.batch, c.in_h, c.in_w, c.in_c});
    const Tensor w = weight.dtype() == DType::f32 ? weight : cast(weight, DType::f32);
    if (c.kernel_h < c.stride || c.kernel_w < c.stride) dx.fill_zero();
    each_phase(c, [&](const Conv& part, const Phase& y, const Phase& x) {
      copy_strided(phase_pixels(c, dx, y, x), input_gradient(part, dy, contiguous(phase_taps(c, w, y, x))));
    });
    return dx;
  }
  Conv t = c;
  std::swap(t.in_h, t.out_h);
  std::swap(t.in_w, t.out_w);
  std::swap(t.in_c, t.out_c);
  t.pad_top = c.kernel_h - 1 - c.pad_top;
  t.pad_left = c.kernel_w - 1 - c.pad_left;
  return convolve(t, dy, weight, {}, true);
}

// Images [first, first + count) of x, rows [top, ..) of them and columns from `left` on, zero where x ends
// and from row `filled` on: what `shape`[count, rows, columns, C] holds.
Tensor with_margin(const Tensor& x, const Shape& shape, int64_t first, int64_t top, int64_t left,
                   int64_t filled) {
  const Tensor y = Tensor::empty(x.device(), shape, DType::f32, MemoryClass::scratch);
  const FlatLaunch l = flat_launch(x.device(), "conv2d_margin", y.numel(), shape[3]);
  run(x.device(), {spec::Conv2dMargin{.LOCAL = l.local}, l.variant}, {x, y},
      args::Conv2dMarginArgs{u32(shape[3] / 4), u32(y.numel() / shape[3]), u32(shape[1]), u32(shape[2]),
                             u32(filled), u32(x.dim(1)), u32(x.dim(2)), u32(first), static_cast<int>(top),
                             static_cast<int>(left)},
      l.groups, {0, 8.0 * static_cast<double>(y.numel())});
  return y;
}

// Whether the weights' gradient is worth being computed as matrix products: they copy both operands, which
// needs many products per element to pay.
bool products_pay(const Conv& c) {
  const std::string forced = forced_variant("conv2d_weight");
  const bool fits = c.simd && c.in_c % 4 == 0 && c.out_c % 4 == 0 && c.in_c > 0;
  constexpr int64_t kLeast = 64;  // channels, measured
  const bool pay = forced.empty() ? c.in_c >= kLeast && c.out_c >= kLeast : forced == "products";
  took_variant("conv2d_weight", fits && pay ? "products" : "direct");
  return fits && pay;
}

// dweight[o][tap, c] as matrix products: where dy lies in rows as long as those of x with its padding, pixel
// p of dy meets pixel p + ky * columns + kx of x for every p, and the kernel_w pixels of a row of taps lie
// one behind another. So a row of taps is one product dy^T x' with x'[p] = the kernel_w C numbers from pixel
// p + ky * columns on. Images are taken in chunks of bounded size, in order.
Tensor products_over_pixels(const Conv& c, const Tensor& x, const Tensor& dy) {
  constexpr int64_t kChunk = 8192;  // pixels
  const int64_t columns = c.out_w + c.kernel_w - 1, more = c.kernel_h - 1;
  const int64_t rows = std::clamp<int64_t>(kChunk / columns - more, 1, c.out_h);
  const int64_t images =
      rows < c.out_h ? 1 : std::clamp<int64_t>(kChunk / ((rows + more) * columns), 1, c.batch);
  const int64_t row_taps = c.kernel_w * c.in_c, columns4 = c.taps() * c.in_c4();
  const Tensor sums =
      Tensor::empty(*c.device, {1, c.out_c, columns4 + 1, 4}, DType::f32, MemoryClass::scratch);
  bool accumulate = false;
  for (int64_t first = 0; first < c.batch; first += images) {
    const int64_t count = std::min(images, c.batch - first);
    for (int64_t top = 0; top < c.out_h; top += rows) {
      const int64_t filled = std::min(rows, c.out_h - top), held = filled + more;
      const Tensor xm =
          with_margin(x, {count, held, columns, c.in_c}, first, top - c.pad_top, -c.pad_left, held);
      const Tensor dm = with_margin(dy, {count, held, columns, c.out_c}, first, top, 0, filled);
      for (int64_t ky = 0; ky < c.kernel_h; ++ky) {
        Gemm g;
        g.form = GemmForm::tn;
        g.m = c.out_c, g.n = row_taps;
        g.k = count * held * columns - more * columns - (c.kernel_w - 1);  // behind it dy is zero
        g.a = {dm, c.out_c, 0, 0};
        g.b = {xm, c.in_c, 0, ky * columns * c.in_c};
        g.c = {sums, 4 * (columns4 + 1), 0, ky * row_taps};
        g.accumulate = accumulate;
        gemm(*c.device, g);
      }
      accumulate = true;
    }
  }
  return sums;
}

struct WeightTile {
  KernelId kernel;
  int64_t rows, columns4;  // rows of output channels; texels of (tap, channel)
  int64_t tiles_wanted, least_pixels;
};

WeightTile weight_tile(const Conv& c) {
  if (!c.simd) return {spec::Conv2dWeightGpu{}, 64, 16, 512, 128};
  const uint32_t sg = c.device->caps().subgroup_size;
  const uint32_t ma = c.out_c > 8 ? 4 : c.out_c > 4 ? 2 : 1;
  const uint32_t nv = ma <= 2 ? 2 : 1;
  return {spec::Conv2dWeightSimd{.SG = sg, .MA = ma, .NV = nv}, 4 * ma, sg * nv, 24, 256};
}

// Adds up partial[splits][rows][taps C / 4 + 1] texels into dw, and with has_bias the last column into db.
void reduce_weights(const Conv& c, const Tensor& partial, int64_t splits, const Tensor& dw, const Tensor& db,
                    bool has_bias) {
  const int64_t n = c.out_c * (c.taps() * c.in_c4() + 1);
  run(*c.device, spec::Conv2dWeightReduce{}, {partial, dw, db},
      args::Conv2dWeightReduceArgs{u32(n), u32(c.out_c), u32(partial.dim(1)), u32(c.in_c), u32(c.in_c4()),
                                   u32(c.taps()), u32(splits), has_bias ? 1u : 0u},
      groups_1d(ceil_div(static_cast<uint64_t>(n), 256)), {0, bytes_of({&partial, &dw})});
}

Tensor bias_gradient(const Conv& c, const Tensor& dy) {
  return column_sums(dy, {}, {}, 1, c.pixels(), c.out_c, true, false).plain.view({c.out_c});
}

// Gradients of weight and, when has_bias, bias; x and dy with their channels filled up to 4.
std::pair<Tensor, Tensor> weight_gradient(const Conv& c, const Tensor& x, const Tensor& dy, bool has_bias) {
  const Tensor dw = Tensor::empty(*c.device, {c.out_c, c.in_c, c.kernel_h, c.kernel_w});
  const Tensor db = Tensor::empty(*c.device, {c.out_c});
  if (c.pixels() == 0 || c.in_c == 0) {
    dw.fill_zero();
    db.fill_zero();
    if (c.pixels() == 0) return {dw, db};
  }
  if (c.out_c == 0) return {dw, db};
  if (c.stride == 1 && products_pay(c)) {
    reduce_weights(c, products_over_pixels(c, x, dy), 1, dw, db, false);
    return {dw, has_bias ? bias_gradient(c, dy) : db};
  }
  if (c.stride > 1 && products_pay(c)) {
    if (c.in_h < c.stride || c.in_w < c.stride) dw.fill_zero();
    each_phase(c, [&](const Conv& part, const Phase& v, const Phase& h) {
      const Tensor pixels = contiguous(phase_pixels(c, x, v, h));
      copy_strided(phase_taps(c, dw, v, h), weight_gradient(part, pixels, dy, false).first);
    });
    return {dw, has_bias ? bias_gradient(c, dy) : db};
  }
  const WeightTile t = weight_tile(c);
  const int64_t out_c4 = (c.out_c + 3) / 4, columns4 = c.taps() * c.in_c4(), rows = out_c4 * 4;
  const int64_t row_tiles = (rows + t.rows - 1) / t.rows,
                column_tiles = std::max<int64_t>((columns4 + t.columns4 - 1) / t.columns4, 1);
  constexpr int64_t kMostPartialTexels = int64_t{64} << 16;  // 64 MiB
  int64_t splits = (t.tiles_wanted + row_tiles * column_tiles - 1) / (row_tiles * column_tiles);
  splits = std::min(splits, kMostPartialTexels / (rows * (columns4 + 1)));
  splits = std::clamp<int64_t>(splits, 1, (c.pixels() + t.least_pixels - 1) / t.least_pixels);
  const int64_t split = ((c.pixels() + splits - 1) / splits + 15) / 16 * 16;
  splits = (c.pixels() + split - 1) / split;
  const Tensor partial =
      Tensor::empty(*c.device, {splits, rows, columns4 + 1, 4}, DType::f32, MemoryClass::scratch);
  const args::Conv2dWeightArgs a{u32(c.batch),
                                 u32(c.in_h),
                                 u32(c.in_w),
                                 u32(c.in_c4()),
                                 u32(c.pixels()),
                                 u32(c.out_h),
                                 u32(c.out_w),
                                 u32(out_c4),
                                 u32(c.kernel_h),
                                 u32(c.kernel_w),
                                 static_cast<int>(c.stride),
                                 static_cast<int>(c.pad_top),
                                 static_cast<int>(c.pad_left),
                                 u32(columns4),
                                 u32(split)};
  run(*c.device, t.kernel, {x, dy, partial}, a, {u32(column_tiles), u32(row_tiles), u32(splits)},
      {c.flops(), bytes_of({&x, &dy, &partial})});
  reduce_weights(c, partial, splits, dw, db, has_bias);
  return {dw, db};
}

Conv describe(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvOptions& o) {
  expect(kName, x.rank() == 4 && x.dtype() == DType::f32, "x must be f32 [B, H, W, C]", {&x, &weight});
  expect(kName, weight.rank() == 4 && is_weight(weight) && weight.dim(1) == x.dim(3),
         "weight must be f32, f16 or bf16 [O, C, kh, kw]", {&x, &weight});
  expect(kName, !bias.defined() || (is_weight(bias) && bias.shape() == Shape{weight.dim(0)}),
         "bias must be f32, f16 or bf16 [O]", {&weight, &bias});
  const bool pads = o.pad_top >= 0 && o.pad_left >= 0 && o.pad_bottom >= 0 && o.pad_right >= 0;
  const int64_t h = x.dim(1) + o.pad_top + o.pad_bottom, w = x.dim(2) + o.pad_left + o.pad_right;
  expect(kName, o.stride >= 1 && pads, "stride must be at least 1 and paddings at least 0", {&x, &weight});
  expect(kName, weight.dim(2) >= 1 && weight.dim(3) >= 1 && h >= weight.dim(2) && w >= weight.dim(3),
         "the padded image must be at least as large as the kernel", {&x, &weight});
  return {&x.device(),
          use_simd(x.device(), kName),
          x.dim(0),
          x.dim(1),
          x.dim(2),
          x.dim(3),
          (h - weight.dim(2)) / o.stride + 1,
          (w - weight.dim(3)) / o.stride + 1,
          weight.dim(0),
          weight.dim(2),
          weight.dim(3),
          o.stride,
          o.pad_top,
          o.pad_left};
}

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvOptions& options) {
  const Conv c = describe(x, weight, bias, options);
  Tape* tape = Tape::wants({&x, &weight, &bias});
  const auto pause = Tape::pause();
  const Tensor xd = contiguous(x), wd = contiguous(weight), bd = bias.defined() ? contiguous(bias) : bias;
  const Tensor y = convolve(c, pad_channels(xd), wd, bd, false);
  if (!tape) return y;
  tape->push(kName, {y}, [c, x, weight, bias, xd, wd, id = y.id()](Grads& g) {
    const Tensor dy = pad_channels(contiguous(g.of(id)));
    if (g.wants(x)) g.add(x, input_gradient(c, dy, wd));
    if (!g.wants(weight) && !g.wants(bias)) return;
    const auto [dw, db] = weight_gradient(c, pad_channels(xd), dy, g.wants(bias));
    if (g.wants(weight)) g.add(weight, dw);
    if (g.wants(bias)) g.add(bias, db);
  });
  return y;
}

}  // namespace vkflux::op
