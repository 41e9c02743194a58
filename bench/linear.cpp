#include <fmt/format.h>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "bench/reference.h"

namespace vkflux::bench {
namespace {

constexpr int64_t kSamples = 8;  // rows and columns of the products that are checked

struct Product {
  int64_t m, n, k;
  bool big;
  op::Activation activation = op::Activation::none;
};

double activate(double z, op::Activation a) {
  return a == op::Activation::gelu_tanh ? gelu_tanh(z) : z;
}

/// x, weight, bias and the gradient dy of a product.
struct Operands {
  Product p;
  Tensor x, w, b, dy;

  Operands(Device& device, const Product& product, DType dtype) : p(product) {
    x = noise(device, {p.m, p.k});
    const Tensor dense = noise(device, {p.n, p.k}, 1);
    w = dtype == DType::f32 ? dense : is_packed(dtype) ? op::quantize(dense, dtype) : op::cast(dense, dtype);
    b = noise(device, {p.n}, 2);
    dy = noise(device, {p.m, p.n}, 3);
  }
  Inputs inputs() const { return {x, w, b}; }

  std::vector<Expected> forward() const {
    const Values wh = w.to_host(), bh = b.to_host(), xh = x.to_host();
    Expectation e;
    for (const int64_t i : spread(p.m, kSamples)) {
      for (const int64_t j : spread(p.n, kSamples)) {
        const double z = dot(&xh[static_cast<size_t>(i * p.k)], &wh[static_cast<size_t>(j * p.k)], p.k) +
                         bh[static_cast<size_t>(j)];
        e.add(i * p.n + j, activate(z, p.activation));
      }
    }
    return {e.take()};
  }
  std::vector<Expected> dx() const {
    const Values wh = w.to_host(), gh = dy.to_host();
    Expectation e;
    for (const int64_t i : spread(p.m, kSamples)) {
      for (const int64_t j : spread(p.k, kSamples))
        e.add(i * p.k + j, dot(&gh[static_cast<size_t>(i * p.n)], &wh[static_cast<size_t>(j)], p.n, 1, p.k));
    }
    return {e.take()};
  }
  std::vector<Expected> dw() const {
    const Values xh = x.to_host(), gh = dy.to_host();
    Expectation e;
    for (const int64_t i : spread(p.n, kSamples)) {
      for (const int64_t j : spread(p.k, kSamples))
        e.add(i * p.k + j, dot(&gh[static_cast<size_t>(i)], &xh[static_cast<size_t>(j)], p.m, p.n, p.k));
    }
    return {e.take()};
  }
};

using Member = std::vector<Expected> (Operands::*)() const;

/// direction: the input whose gradient is measured, or -1: the product itself.
Case product_case(Device& device, const std::string& name, const Product& p, DType dtype, int direction,
                  Member reference) {
  Case c;
  c.name = name;
  c.shape = fmt::format("M{} N{} K{}", p.m, p.n, p.k);
  c.dtype = vkflux::name(dtype);
  c.big = p.big;
  if (dtype != DType::f32) c.tolerance = 1e-2;  // matrix units may round x to 16 bits as well
  c.make = [&device, p, dtype, direction, reference] {
    const auto o = std::make_shared<Operands>(device, p, dtype);
    const Function fn = [a = p.activation](const Inputs& i) { return op::linear(i[0], i[1], i[2], a); };
    const Reference check = [o, reference] { return ((*o).*reference)(); };
    if (direction < 0) return forward_of(o->inputs(), fn, check);
    return backward_of(o->inputs(), fn, o->dy, {static_cast<size_t>(direction)}, check);
  };
  return c;
}

}  // namespace

void add_linear(std::vector<Case>& cases, Device& device) {
  std::vector<Product> products;
  for (const int64_t width : {int64_t{1024}, int64_t{2048}, int64_t{3072}}) {
    for (const int64_t m : {64, 512, 1024, 4608}) {
      const bool big = width == 2048 || (width == 3072 && m > 512);
      products.push_back({m, width, width, big});
    }
  }
  for (const Product& p : products) {
    cases.push_back(product_case(device, "linear", p, DType::f32, -1, &Operands::forward));
    cases.push_back(product_case(device, "linear dx", p, DType::f32, 0, &Operands::dx));
    cases.push_back(product_case(device, "linear dw", p, DType::f32, 1, &Operands::dw));
  }
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const Product& p : products) {
      if (p.m < 512) continue;
      cases.push_back(product_case(device, "linear", p, dtype, -1, &Operands::forward));
      if (p.m == 512 || p.big) cases.push_back(product_case(device, "linear dx", p, dtype, 0, &Operands::dx));
    }
  }
  for (const DType dtype : {DType::f8_e4m3, DType::q8_0, DType::q4_k}) {
    for (const Product& p : products) {
      if (p.m == 1024 || (p.big && p.m < 512)) continue;
      cases.push_back(product_case(device, "linear", p, dtype, -1, &Operands::forward));
      if (p.m == 512) cases.push_back(product_case(device, "linear dx", p, dtype, 0, &Operands::dx));
    }
  }
  const Product gelu{512, 4096, 1024, false, op::Activation::gelu_tanh}, row{1, 9216, 3072, false};
  cases.push_back(product_case(device, "linear+gelu", gelu, DType::f32, -1, &Operands::forward));
  for (const DType dtype : {DType::f32, DType::bf16, DType::q8_0, DType::q4_k})
    cases.push_back(product_case(device, "linear", row, dtype, -1, &Operands::forward));
}

}  // namespace vkflux::bench
