// Kernels that memory bounds: the arrays are too large for caches, and a plain copy is measured beside them.
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "autograd/ops.h"
#include "autograd/optim.h"
#include "bench/cases.h"
#include "bench/reference.h"

namespace vkflux::bench {
namespace {

constexpr int64_t kSamples = 512, kRows = 4;

/// Tokens and channels of one array, 54 MiB.
constexpr int64_t kTokens = 4608, kChannels = 3072;

std::string shape_text(int64_t tokens = kTokens, int64_t channels = kChannels) {
  return fmt::format("N{} C{}", tokens, channels);
}

struct Arrays {
  Tensor x, y, row1, row2, vector;
  explicit Arrays(Device& device) {
    x = noise(device, {1, kTokens, kChannels}), y = noise(device, {1, kTokens, kChannels}, 1);
    row1 = noise(device, {1, kChannels}, 2), row2 = noise(device, {1, kChannels}, 3);
    vector = noise(device, {kChannels}, 4);
  }
};
using ArraysPtr = std::shared_ptr<Arrays>;

/// One element of the result from the flat index.
using Element = std::function<double(int64_t)>;

std::vector<Expected> elements(int64_t n, const Element& value, size_t result = 0) {
  Expectation e(result);
  for (const int64_t i : spread(n, kSamples)) e.add(i, value(i));
  return {e.take()};
}

Case base(const std::string& name, const std::string& shape = shape_text()) {
  Case c;
  c.name = name, c.shape = shape;
  return c;
}

Case copy_case(Device& device) {
  Case c = base("copy");
  c.make = [&device] {
    const Tensor x = noise(device, {1, kTokens, kChannels});
    const Tensor y = Tensor::empty(device, x.shape());
    Instance i;
    i.prepare = [&device, x, y] {
      return [&device, x, y] {
        device.stream().copy(y.range(), x.range());
        return Inputs{y};
      };
    };
    i.copied_bytes = 2 * static_cast<double>(x.bytes());
    i.reference = [x] {
      const Values h = x.to_host();
      return elements(x.numel(), [&](int64_t at) { return h[static_cast<size_t>(at)]; });
    };
    return i;
  };
  return c;
}

/// An elementwise op of two arrays and two rows; value(x, y, row1, row2) is what one element should be.
Case element_case(Device& device, const std::string& name, const std::function<Tensor(const Arrays&)>& fn,
                  const std::function<double(double, double, double, double)>& value) {
  Case c = base(name);
  c.make = [&device, fn, value] {
    const auto a = std::make_shared<Arrays>(device);
    return forward_of(
        {}, [a, fn](const Inputs&) { return fn(*a); },
        [a, value] {
          const Values x = a->x.to_host(), y = a->y.to_host(), r1 = a->row1.to_host(), r2 = a->row2.to_host();
          return elements(a->x.numel(), [&](int64_t i) {
            const auto at = static_cast<size_t>(i), col = static_cast<size_t>(i % kChannels);
            return value(x[at], y[at], r1[col], r2[col]);
          });
        });
  };
  return c;
}

/// An op on rows; row(x, r1, r2, out) computes a whole row.
using RowFunction = std::function<void(const float* x, const Values& r1, const Values& r2, double* out)>;

Case row_case(Device& device, const std::string& name, const std::function<Tensor(const Arrays&)>& fn,
              const RowFunction& row) {
  Case c = base(name);
  c.make = [&device, fn, row] {
    const auto a = std::make_shared<Arrays>(device);
    return forward_of(
        {}, [a, fn](const Inputs&) { return fn(*a); },
        [a, row] {
          const Values x = a->x.to_host(), r1 = a->row1.to_host(), r2 = a->row2.to_host();
          Expectation e;
          std::vector<double> out(kChannels);
          for (const int64_t i : spread(kTokens, kRows)) {
            row(&x[static_cast<size_t>(i * kChannels)], r1, r2, out.data());
            for (int64_t j = 0; j < kChannels; ++j) e.add(i * kChannels + j, out[static_cast<size_t>(j)]);
          }
          return std::vector<Expected>{e.take()};
        });
  };
  return c;
}

void layer_norm_row(const float* x, const Values& shift, const Values& scale, double* out) {
  const Moments m = moments(x, kChannels, 1e-6);
  for (size_t j = 0; j < static_cast<size_t>(kChannels); ++j)
    out[j] = (x[j] - m.mean) * m.inverse * (1 + scale[j]) + shift[j];
}

void softmax_row(const float* x, double* out) {
  double most = -1e300, sum = 0;
  for (int64_t j = 0; j < kChannels; ++j) most = std::max<double>(most, x[j]);
  for (int64_t j = 0; j < kChannels; ++j) sum += out[j] = std::exp(x[j] - most);
  for (int64_t j = 0; j < kChannels; ++j) out[j] /= sum;
}

/// dx of layer_norm_modulate: with g = dy (1 + scale) and h the normalised row,
/// dx = (g - mean g - h mean(g h)) / deviation.
Case layer_norm_backward(Device& device) {
  Case c = base("layer_norm_modulate bwd");
  c.tolerance = 1e-3;
  c.make = [&device] {
    const auto a = std::make_shared<Arrays>(device);
    const Function fn = [](const Inputs& i) { return op::layer_norm_modulate(i[0], i[1], i[2], 1e-6f); };
    return backward_of({a->x, a->row1, a->row2}, fn, a->y, {0, 1, 2}, [a] {
      const Values x = a->x.to_host(), dy = a->y.to_host(), scale = a->row2.to_host();
      Expectation dx(0), dshift(1), dscale(2);
      for (const int64_t i : spread(kTokens, kRows)) {
        const float* row = &x[static_cast<size_t>(i * kChannels)];
        const float* grad = &dy[static_cast<size_t>(i * kChannels)];
        const Moments m = moments(row, kChannels, 1e-6);
        double sum = 0, sum_h = 0;
        for (int64_t j = 0; j < kChannels; ++j) {
          const double g = grad[j] * (1.0 + scale[static_cast<size_t>(j)]);
          sum += g, sum_h += g * (row[j] - m.mean) * m.inverse;
        }
        for (int64_t j = 0; j < kChannels; ++j) {
          const double g = grad[j] * (1.0 + scale[static_cast<size_t>(j)]);
          const double h = (row[j] - m.mean) * m.inverse;
          dx.add(i * kChannels + j, m.inverse * (g - sum / kChannels - h * sum_h / kChannels));
        }
      }
      std::vector<Moments> all(kTokens);
      parallel_for(kTokens, [&](int64_t i) {
        all[static_cast<size_t>(i)] = moments(&x[static_cast<size_t>(i * kChannels)], kChannels, 1e-6);
      });
      for (const int64_t j : spread(kChannels, 16)) {
        double shift = 0, slope = 0;
        for (int64_t i = 0; i < kTokens; ++i) {
          const auto at = static_cast<size_t>(i * kChannels + j);
          const Moments& m = all[static_cast<size_t>(i)];
          shift += dy[at], slope += dy[at] * (x[at] - m.mean) * m.inverse;
        }
        dshift.add(j, shift), dscale.add(j, slope);
      }
      return std::vector<Expected>{dx.take(), dshift.take(), dscale.take()};
    });
  };
  return c;
}

Case unary_backward(Device& device, const std::string& name, op::Unary f, double (*slope)(double)) {
  Case c = base(name);
  c.make = [&device, f, slope] {
    const auto a = std::make_shared<Arrays>(device);
    return backward_of(
        {a->x}, [f](const Inputs& i) { return op::unary(i[0], f); }, a->y, {0},
        [a, slope] {
          const Values x = a->x.to_host(), dy = a->y.to_host();
          return elements(a->x.numel(), [&](int64_t i) {
            const auto at = static_cast<size_t>(i);
            return dy[at] * slope(x[at]);
          });
        });
  };
  return c;
}

/// q, k, v of all tokens from one array [N, 3 H D]: RMS norm of q, rotation by the table, head-major.
Case qk_norm_rope_case(Device& device) {
  constexpr int64_t kHeads = 24, kDim = 128, kCount = 1536;
  Case c = base("qk_norm_rope", fmt::format("H{} N{} D{}", kHeads, kCount, kDim));
  c.make = [&device] {
    const Tensor x = noise(device, {1, kCount, 3 * kHeads * kDim}), scale = noise(device, {kDim}, 1),
                 table = noise(device, {1, kCount, kDim / 2, 2}, 2);
    const auto prepare = [=] {
      return [=] {
        const op::Qkv y = op::qk_norm_rope({{x, scale, scale}}, table, kHeads);
        return Inputs{y.q, y.k, y.v};
      };
    };
    const auto reference = [=] {
      const Values xh = x.to_host(), sh = scale.to_host(), th = table.to_host();
      std::vector<Expected> out;
      for (int64_t part = 0; part < 3; ++part) {
        Expectation e(static_cast<size_t>(part));
        for (const int64_t n : spread(kCount, kRows)) {
          const int64_t h = (n + 5 * part) % kHeads;
          const float* row = &xh[static_cast<size_t>(((n * 3 + part) * kHeads + h) * kDim)];
          const double r = 1 / std::sqrt(dot(row, row, kDim) / kDim + 1e-6);
          for (int64_t i = 0; i < kDim; ++i) {
            const auto pair = static_cast<size_t>(i - i % 2), at = static_cast<size_t>(i);
            const float* turn = &th[static_cast<size_t>(n * kDim) + pair];
            const double even = row[pair] * r * sh[pair], odd = row[pair + 1] * r * sh[pair + 1];
            const double turned = i % 2 ? turn[1] * even + turn[0] * odd : turn[0] * even - turn[1] * odd;
            e.add((h * kCount + n) * kDim + i, part == 2 ? static_cast<double>(row[at]) : turned);
          }
        }
        out.push_back(e.take());
      }
      return out;
    };
    return Instance{prepare, reference};
  };
  return c;
}

/// One step over flat parameters; every run starts where the one before ended, so the reference follows the
/// first step only, from a copy of its inputs.
Case adamw_case(Device& device) {
  constexpr int64_t kCount = int64_t{16} << 20;
  Case c = base("adamw", fmt::format("P{}", kCount));
  c.make = [&device] {
    struct State {
      Tensor p, g, m, v;
      Values before;
    };
    const auto s = std::make_shared<State>();
    s->p = noise(device, {kCount}), s->g = noise(device, {kCount}, 1);
    s->m = Tensor::zeros(device, {kCount}), s->v = Tensor::zeros(device, {kCount});
    s->before = s->p.to_host();
    const auto out = std::make_shared<Tensor>();
    const auto prepare = [s, out] {
      return [s, out] {
        adamw(s->p, s->g, s->m, s->v, {}, 1);
        if (out->defined()) return Inputs{};
        *out = op::cast(s->p, DType::f32).alias();  // of the first run, before others follow
        return Inputs{*out};
      };
    };
    const auto reference = [s] {
      const Values g = s->g.to_host();
      const AdamWOptions o;
      return elements(kCount, [&](int64_t i) {
        const auto at = static_cast<size_t>(i);
        const double slope = g[at], start = s->before[at];
        return start * (1 - o.lr * o.weight_decay) - o.lr * slope / (std::fabs(slope) + o.eps);
      });
    };
    return Instance{prepare, reference};
  };
  return c;
}

}  // namespace

void add_pointwise(std::vector<Case>& cases, Device& device) {
  const auto rows = [](double x, double y, double r1, double) { return x + r1 * y; };
  cases.push_back(copy_case(device));
  cases.push_back(element_case(
      device, "add", [](const Arrays& a) { return op::add(a.x, a.y); },
      [](double x, double y, double, double) { return x + y; }));
  cases.push_back(element_case(
      device, "gelu", [](const Arrays& a) { return op::unary(a.x, op::Unary::gelu_tanh); },
      [](double x, double, double, double) { return gelu_tanh(x); }));
  cases.push_back(unary_backward(device, "gelu bwd", op::Unary::gelu_tanh, gelu_tanh_slope));
  cases.push_back(element_case(
      device, "silu", [](const Arrays& a) { return op::silu(a.x); },
      [](double x, double, double, double) { return silu(x); }));
  cases.push_back(element_case(
      device, "gate_residual", [](const Arrays& a) { return op::gate_residual(a.x, a.row1, a.y); }, rows));
  cases.push_back(row_case(
      device, "layer_norm_modulate",
      [](const Arrays& a) { return op::layer_norm_modulate(a.x, a.row1, a.row2, 1e-6f); }, layer_norm_row));
  cases.push_back(layer_norm_backward(device));
  cases.push_back(row_case(
      device, "rms_norm",
      [](const Arrays& a) { return op::rms_norm(a.x, op::reshape(a.row1, {kChannels}), 1e-6f); },
      [](const float* x, const Values& weight, const Values&, double* out) {
        const double r = 1 / std::sqrt(dot(x, x, kChannels) / kChannels + 1e-6);
        for (size_t j = 0; j < static_cast<size_t>(kChannels); ++j) out[j] = x[j] * r * weight[j];
      }));
  cases.push_back(row_case(
      device, "softmax", [](const Arrays& a) { return op::softmax(a.x); },
      [](const float* x, const Values&, const Values&, double* out) { softmax_row(x, out); }));
  cases.push_back(qk_norm_rope_case(device));
  cases.push_back(adamw_case(device));
}

}  // namespace vkflux::bench
