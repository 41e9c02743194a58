#include <algorithm>
#include <numeric>

#include "autograd/ops.h"
#include "autograd/ops/strided.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256;

bool binds(const Tensor& x) {
  return static_cast<int64_t>(x.bytes()) <= max_binding_bytes(x.device().caps());
}

// dst: contiguous and whole, of src's shape; both 4-byte.
void gather_copy(const Tensor& dst, const Tensor& src) {
  Device& device = src.device();
  int64_t lead = 0;
  const Tensor x = src.covering(&lead);
  if (!binds(x)) return copy_strided(dst, src);
  const StridedLoop loop = strided_loop(src.shape(), {src.strides()});
  const Inner mode = inner_mode(loop, 0, lead);
  const bool whole = whole_vectors(loop, {mode});
  const int64_t unit = whole ? 4 : 1, n = dst.numel();
  args::CopyArgs a{};
  a.src_offset = u32(lead);
  set_divisors(a, divisors(loop, unit));
  set_strides(a.src_stride, loop.strides[0], unit);
  const Tensor flat = dst.view(Shape{n});
  for_pieces(device, n, 4, [&](int64_t first, int64_t count) {
    a.first = u32(first / unit);
    a.count = u32(static_cast<int64_t>(ceil_div(static_cast<uint64_t>(count), static_cast<uint64_t>(unit))));
    const auto groups = groups_1d(ceil_div(static_cast<uint64_t>(count), 4 * kLocal));
    run(device,
        spec::Copy{.LOCAL = kLocal, .RANK = loop.rank, .MODE = whole ? static_cast<uint32_t>(mode) : 3},
        {x, flat.slice(0, first, count)}, a, groups, {0, 8.0 * static_cast<double>(count)});
  });
}

}  // namespace

void copy_strided(const Tensor& dst, const Tensor& src) {
  int64_t lead = 0, dst_lead = 0;
  const Tensor x = src.covering(&lead), y = dst.covering(&dst_lead);
  if (!binds(x) || !binds(y)) {
    int dim = 0;
    while (dim + 1 < src.rank() && src.dim(dim) == 1) ++dim;
    const int64_t n = src.dim(dim), half = n / 2;
    if (n > 1) {
      copy_strided(dst.slice(dim, 0, half), src.slice(dim, 0, half));
      return copy_strided(dst.slice(dim, half, n - half), src.slice(dim, half, n - half));
    }
  }
  const StridedLoop loop = strided_loop(src.shape(), {src.strides(), dst.strides()});
  const bool rows = loop.shape[0] % 4 == 0 && inner_mode(loop, 0, lead) == Inner::vector &&
                    inner_mode(loop, 1, dst_lead) == Inner::vector;
  const int64_t unit = rows ? 4 : 1, count = src.numel() / unit;
  args::CopyArgs a{};
  a.count = u32(count);
  a.src_offset = u32(lead);
  a.dst_offset = u32(dst_lead);
  set_divisors(a, divisors(loop, unit));
  set_strides(a.src_stride, loop.strides[0], unit);
  set_strides(a.dst_stride, loop.strides[1], unit);
  run(src.device(),
      {spec::Copy{.LOCAL = kLocal, .RANK = loop.rank, .MODE = Inner::vector}, rows ? "row" : "element"},
      {x, y}, a, groups_1d(ceil_div(static_cast<uint64_t>(count), kLocal)),
      {0, 8.0 * static_cast<double>(src.numel())});
}

namespace {

// Copies a part into its slice of a concatenation.
void place(const Tensor& slice, const Tensor& part, int dim) {
  if (part.numel() == 0) return;
  constexpr int64_t kMaxCopies = 16;
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < part.rank(); ++i) (i < dim ? outer : inner) *= part.dim(i);
  if (part.is_contiguous() && outer <= kMaxCopies && !is_packed(part.dtype())) {
    const uint64_t size = size_of(part.dtype()), bytes = static_cast<uint64_t>(inner) * size;
    const BufferRange to = slice.range(), from = part.range();
    // The distance between the outer rows of the slice is the whole's; it has the strides of a contiguous
    // one.
    const uint64_t pitch = dim == 0 ? 0 : static_cast<uint64_t>(slice.strides()[dim - 1]) * size;
    for (uint64_t i = 0; i < static_cast<uint64_t>(outer); ++i) {
      part.device().stream().copy({to.buffer, to.offset + i * pitch, bytes},
                                  {from.buffer, from.offset + i * bytes, bytes});
    }
    return;
  }
  expect("concat", !is_packed(part.dtype()) && size_of(part.dtype()) == 4,
         "only 4-byte elements can be scattered", {&part});
  copy_strided(slice, part);
}

Tensor copied(const Tensor& x) {
  const Tensor y = Tensor::empty(x.device(), x.shape(), x.dtype());
  if (x.numel() == 0) return y;
  if (x.is_contiguous()) {
    x.device().stream().copy(y.range(), x.range());
    return y;
  }
  expect("contiguous", !is_packed(x.dtype()) && size_of(x.dtype()) == 4,
         "only 4-byte elements can be gathered", {&x});
  gather_copy(y, x);
  return y;
}

int axis(const char* op, const Tensor& x, int dim) {
  const int d = dim < 0 ? dim + x.rank() : dim;
  expect(op, d >= 0 && d < x.rank(), "no such dimension", {&x});
  return d;
}

}  // namespace

Tensor contiguous(const Tensor& x) {
  if (x.is_bindable()) return x;
  const Tensor y = copied(x);
  x.device().stream().count_relayout();
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("contiguous", {y}, [x = x.key(), id = y.id()](Grads& g) { g.add(x, g.of(id)); });
  }
  return y;
}

Tensor clone(const Tensor& x) {
  const Tensor y = copied(x);
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("clone", {y}, [x = x.key(), id = y.id()](Grads& g) { g.add(x, g.of(id)); });
  }
  return y;
}

Tensor reshape(const Tensor& x, const Shape& shape) {
  expect("reshape", shape.numel() == x.numel(), "the new shape " + shape.str() + " has another size", {&x});
  if (!x.is_bindable()) x.device().stream().count_relayout();
  const Tensor y = (x.is_bindable() ? x : copied(x)).view(shape);
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("reshape", {y}, [x = x.key(), id = y.id()](Grads& g) { g.add(x, g.of(id).view(x.shape())); });
  }
  return y;
}

Tensor narrow(const Tensor& x, int dim, int64_t start, int64_t length) {
  dim = axis("narrow", x, dim);
  const Tensor y = x.slice(dim, start, length);
  if (Tape* tape = Tape::wants({&x})) tape->push_narrow(y, x, dim, start);
  return y;
}

Tensor permute(const Tensor& x, const std::vector<int>& dims) {
  std::vector<int> inverse(dims.size(), -1);
  Shape shape, strides;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int d = axis("permute", x, dims[i]);
    expect("permute", static_cast<int>(dims.size()) == x.rank() && inverse[static_cast<size_t>(d)] < 0,
           "the order must name each dimension once", {&x});
    inverse[static_cast<size_t>(d)] = static_cast<int>(i);
    shape.push_back(x.dim(d));
    strides.push_back(x.strides()[d]);
  }
  expect("permute", static_cast<int>(dims.size()) == x.rank(), "the order must name each dimension", {&x});
  const Tensor view = x.with_strides(shape, strides);
  const Tensor y = view.is_bindable() ? view : copied(view);
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("permute", {y}, [x = x.key(), id = y.id(), inverse](Grads& g) {
      if (g.wants(x)) g.add(x, permute(g.of(id), inverse));
    });
  }
  return y;
}

Tensor concat(const std::vector<Tensor>& parts, int dim) {
  if (parts.empty()) throw Error(ErrorCode::invalid_argument, "concat: nothing to join");
  const Tensor& model = parts.front();
  dim = axis("concat", model, dim);
  Shape shape = model.shape();
  shape[dim] = 0;
  for (const Tensor& p : parts) {
    Shape rest = p.shape();
    expect("concat", rest.rank() == shape.rank() && p.dtype() == model.dtype(),
           "the parts differ in rank or type", {&model, &p});
    rest[dim] = shape[dim];
    expect("concat", rest == shape, "the parts differ in another dimension", {&model, &p});
    shape[dim] += p.dim(dim);
  }
  const Tensor y = Tensor::empty(model.device(), shape, model.dtype());
  Tape* tape = nullptr;
  std::vector<Tensor> keys;
  int64_t at = 0;
  for (const Tensor& p : parts) {
    place(y.slice(dim, at, p.dim(dim)), p, dim);
    at += p.dim(dim);
    if (Tape* t = Tape::wants({&p})) tape = t;
    keys.push_back(p.key());
  }
  if (tape) {
    tape->push("concat", {y}, [keys, id = y.id(), dim](Grads& g) {
      const Tensor dy = g.of(id);
      int64_t start = 0;
      for (const Tensor& p : keys) {
        const Tensor slice = dy.slice(dim, start, p.dim(dim));
        start += p.dim(dim);
        if (slice.is_bindable() || slice.numel() == 0) {
          g.add(p, slice);
        } else {
          g.write(p, [&](const Tensor& dp) { gather_copy(dp, slice); });
        }
      }
    });
  }
  return y;
}

Tensor expand(const Tensor& x, const Shape& shape) {
  bool fits = x.rank() <= shape.rank();
  for (int i = 1; fits && i <= x.rank(); ++i) fits = x.dim(-i) == shape[-i] || x.dim(-i) == 1;
  expect("expand", fits, "can't be repeated to " + shape.str(), {&x});
  const Tensor view = x.with_strides(shape, broadcast_strides(x, shape));
  const Tensor y = view.is_bindable() ? view : copied(view);
  if (Tape* tape = Tape::wants({&x})) {
    tape->push("expand", {y},
               [x = x.key(), id = y.id()](Grads& g) { g.add(x, sum_to(g.of(id), x.shape())); });
  }
  return y;
}

Tensor patchify(const Tensor& x, int64_t p) {
  expect("patchify", x.rank() == 4 && p > 0 && x.dim(2) % p == 0 && x.dim(3) % p == 0,
         "height and width must be multiples of the patch size", {&x});
  const int64_t b = x.dim(0), c = x.dim(1), h = x.dim(2) / p, w = x.dim(3) / p;
  const Tensor cells = reshape(x, Shape{b, c, h, p, w, p});
  return reshape(permute(cells, {0, 2, 4, 1, 3, 5}), Shape{b, h * w, c * p * p});
}

Tensor unpatchify(const Tensor& tokens, int64_t p, int64_t height, int64_t width) {
  expect("unpatchify",
         tokens.rank() == 3 && p > 0 && height % p == 0 && width % p == 0 && tokens.dim(2) % (p * p) == 0 &&
             tokens.dim(1) == (height / p) * (width / p),
         "the tokens don't tile the image", {&tokens});
  const int64_t b = tokens.dim(0), c = tokens.dim(2) / (p * p), h = height / p, w = width / p;
  const Tensor cells = reshape(tokens, Shape{b, h, w, c, p, p});
  return reshape(permute(cells, {0, 3, 1, 4, 2, 5}), Shape{b, c, height, width});
}

Tensor merge_heads(const Tensor& x) {
  expect("merge_heads", x.rank() == 4, "[B, H, N, D] is needed", {&x});
  return reshape(permute(x, {0, 2, 1, 3}), Shape{x.dim(0), x.dim(2), x.dim(1) * x.dim(3)});
}

Tensor split_heads(const Tensor& x, int64_t heads) {
  expect("split_heads", x.rank() == 3 && heads > 0 && x.dim(2) % heads == 0,
         "[B, N, H D] with H heads is needed", {&x});
  return permute(reshape(x, Shape{x.dim(0), x.dim(1), heads, x.dim(2) / heads}), {0, 2, 1, 3});
}

Tensor nchw_to_nhwc(const Tensor& x) {
  expect("nchw_to_nhwc", x.rank() == 4, "[B, C, H, W] is needed", {&x});
  return permute(x, {0, 2, 3, 1});
}

Tensor nhwc_to_nchw(const Tensor& x) {
  expect("nhwc_to_nchw", x.rank() == 4, "[B, H, W, C] is needed", {&x});
  return permute(x, {0, 3, 1, 2});
}

}  // namespace vkflux::op
