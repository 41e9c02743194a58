// Layers of an autoencoder over channels-last feature maps.
#include <fmt/format.h>

#include <memory>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "bench/reference.h"

namespace vkflux::bench {
namespace {

struct Map {
  int64_t side, in, out;
  int stride;
  bool big;
  int64_t result_side() const { return side / stride; }
};

/// A 3x3 convolution; with stride 2 padded at the right and below only, as autoencoders downsample.
struct Convolution {
  Map m;
  Tensor x, w, b, dy;

  Convolution(Device& device, const Map& map) : m(map) {
    const int64_t r = m.result_side();
    x = noise(device, {1, m.side, m.side, m.in}), w = noise(device, {m.out, m.in, 3, 3}, 1);
    b = noise(device, {m.out}, 2), dy = noise(device, {1, r, r, m.out}, 3);
  }
  int64_t pad() const { return m.stride == 1 ? 1 : 0; }
  Tensor operator()(const Inputs& i) const {
    op::ConvOptions o;
    o.stride = m.stride;
    if (m.stride == 2) o.pad_top = o.pad_left = 0;
    return op::conv2d(i[0], i[1], i[2], o);
  }
  /// Calls use(ky, kx, iy, ix) for the taps of result pixel (y, x) that lie inside the map.
  template <class Use>
  void taps(int64_t y, int64_t x0, const Use& use) const {
    for (int64_t ky = 0; ky < 3; ++ky) {
      for (int64_t kx = 0; kx < 3; ++kx) {
        const int64_t iy = y * m.stride + ky - pad(), ix = x0 * m.stride + kx - pad();
        if (iy >= 0 && iy < m.side && ix >= 0 && ix < m.side) use(ky, kx, iy, ix);
      }
    }
  }
  size_t weight_at(int64_t o, int64_t c, int64_t ky, int64_t kx) const {
    return static_cast<size_t>(((o * m.in + c) * 3 + ky) * 3 + kx);
  }
  size_t pixel(int64_t y, int64_t x0) const { return static_cast<size_t>((y * m.side + x0) * m.in); }

  std::vector<Expected> forward() const {
    const Values xh = x.to_host(), wh = w.to_host(), bh = b.to_host();
    const int64_t r = m.result_side();
    Expectation e;
    for (const int64_t at : spread(r * r, 12)) {
      for (const int64_t o : spread(m.out, 4)) {
        double sum = bh[static_cast<size_t>(o)];
        taps(at / r, at % r, [&](int64_t ky, int64_t kx, int64_t iy, int64_t ix) {
          sum += dot(&xh[pixel(iy, ix)], &wh[weight_at(o, 0, ky, kx)], m.in, 1, 9);
        });
        e.add(at * m.out + o, sum);
      }
    }
    return {e.take()};
  }
  std::vector<Expected> dx() const {
    const Values wh = w.to_host(), gh = dy.to_host();
    const int64_t r = m.result_side();
    Expectation e;
    for (const int64_t at : spread(m.side * m.side, 12)) {
      const int64_t c = at % m.in;
      double sum = 0;
      for (int64_t ky = 0; ky < 3; ++ky) {
        for (int64_t kx = 0; kx < 3; ++kx) {
          const int64_t y = at / m.side + pad() - ky, x0 = at % m.side + pad() - kx;
          if (y < 0 || x0 < 0 || y % m.stride || x0 % m.stride) continue;
          if (y / m.stride >= r || x0 / m.stride >= r) continue;
          const auto row = static_cast<size_t>((y / m.stride * r + x0 / m.stride) * m.out);
          sum += dot(&gh[row], &wh[weight_at(0, c, ky, kx)], m.out, 1, m.in * 9);
        }
      }
      e.add(at * m.in + c, sum);
    }
    return {e.take()};
  }
  std::vector<Expected> dw() const {
    const Values xh = x.to_host(), gh = dy.to_host();
    const int64_t r = m.result_side();
    Expectation e;
    for (const int64_t o : spread(m.out, 4)) {
      const int64_t c = (7 * o) % m.in;
      double sum[9] = {};
      for (int64_t at = 0; at < r * r; ++at) {
        taps(at / r, at % r, [&](int64_t ky, int64_t kx, int64_t iy, int64_t ix) {
          sum[ky * 3 + kx] += static_cast<double>(gh[static_cast<size_t>(at * m.out + o)]) *
                              xh[pixel(iy, ix) + static_cast<size_t>(c)];
        });
      }
      for (int64_t k = 0; k < 9; ++k) e.add(static_cast<int64_t>(weight_at(o, c, 0, 0)) + k, sum[k]);
    }
    return {e.take()};
  }
};

void add_convolutions(std::vector<Case>& cases, Device& device) {
  const Map maps[] = {{64, 256, 256, 1, false},
                      {128, 128, 128, 1, false},
                      {128, 256, 256, 1, true},
                      {128, 128, 128, 2, false}};
  using Member = std::vector<Expected> (Convolution::*)() const;
  for (const Map& m : maps) {
    const auto add = [&](const std::string& name, int direction, Member reference) {
      Case c;
      c.name = name;
      c.shape = fmt::format("{}x{} C{} O{} s{}", m.side, m.side, m.in, m.out, m.stride);
      c.big = m.big;
      c.make = [&device, m, direction, reference] {
        const auto o = std::make_shared<Convolution>(device, m);
        const Function fn = [o](const Inputs& i) { return (*o)(i); };
        const Reference check = [o, reference] { return ((*o).*reference)(); };
        if (direction < 0) return forward_of({o->x, o->w, o->b}, fn, check);
        return backward_of({o->x, o->w, o->b}, fn, o->dy, {static_cast<size_t>(direction)}, check);
      };
      cases.push_back(c);
    };
    add("conv3x3", -1, &Convolution::forward);
    add("conv3x3 dx", 0, &Convolution::dx);
    add("conv3x3 dw", 1, &Convolution::dw);
  }
}

struct GroupNorm {
  static constexpr int64_t kSide = 256, kChannels = 128, kGroups = 32, kWide = kChannels / kGroups;
  static constexpr double kEps = 1e-6;
  Tensor x, w, b, dy;

  explicit GroupNorm(Device& device) {
    x = noise(device, {1, kSide, kSide, kChannels}), dy = noise(device, x.shape(), 3);
    w = noise(device, {kChannels}, 1), b = noise(device, {kChannels}, 2);
  }
  static Moments of_group(const Values& x, int64_t g) {
    double sum = 0, power = 0;
    const int64_t pixels = kSide * kSide, n = pixels * kWide;
    const auto each = [&](const auto& use) {
      for (int64_t p = 0; p < pixels; ++p) {
        for (int64_t c = 0; c < kWide; ++c)
          use(static_cast<double>(x[static_cast<size_t>(p * kChannels + g * kWide + c)]));
      }
    };
    each([&](double v) { sum += v; });
    const double mean = sum / static_cast<double>(n);
    each([&](double v) { power += (v - mean) * (v - mean); });
    return {mean, 1 / std::sqrt(power / static_cast<double>(n) + kEps)};
  }
  std::vector<Expected> forward() const {
    const Values xh = x.to_host(), wh = w.to_host(), bh = b.to_host();
    Expectation e;
    for (const int64_t g : spread(kGroups, 3)) {
      const Moments m = of_group(xh, g);
      for (const int64_t p : spread(kSide * kSide, 64)) {
        const int64_t c = g * kWide + p % kWide, at = p * kChannels + c;
        const auto col = static_cast<size_t>(c);
        e.add(at, silu((xh[static_cast<size_t>(at)] - m.mean) * m.inverse * wh[col] + bh[col]));
      }
    }
    return {e.take()};
  }
  std::vector<Expected> backward() const {
    const Values xh = x.to_host(), wh = w.to_host(), bh = b.to_host(), gh = dy.to_host();
    Expectation dx(0), dw(1), db(2);
    for (const int64_t g : spread(kGroups, 3)) {
      const Moments m = of_group(xh, g);
      double sum = 0, sum_h = 0, weight[kWide] = {}, bias[kWide] = {};
      const auto parts = [&](int64_t p, int64_t c, double& h, double& dz) {
        const auto at = static_cast<size_t>(p * kChannels + g * kWide + c);
        const auto col = static_cast<size_t>(g * kWide + c);
        h = (xh[at] - m.mean) * m.inverse;
        dz = gh[at] * silu_slope(h * wh[col] + bh[col]);
      };
      double h = 0, dz = 0;
      for (int64_t p = 0; p < kSide * kSide; ++p) {
        for (int64_t c = 0; c < kWide; ++c) {
          parts(p, c, h, dz);
          const double dh = dz * wh[static_cast<size_t>(g * kWide + c)];
          sum += dh, sum_h += dh * h, weight[c] += dz * h, bias[c] += dz;
        }
      }
      constexpr double kCount = kSide * kSide * kWide;
      for (const int64_t p : spread(kSide * kSide, 64)) {
        const int64_t c = p % kWide;
        parts(p, c, h, dz);
        const double dh = dz * wh[static_cast<size_t>(g * kWide + c)];
        dx.add(p * kChannels + g * kWide + c, m.inverse * (dh - sum / kCount - h * sum_h / kCount));
      }
      for (int64_t c = 0; c < kWide; ++c) dw.add(g * kWide + c, weight[c]), db.add(g * kWide + c, bias[c]);
    }
    return {dx.take(), dw.take(), db.take()};
  }
};

void add_group_norm(std::vector<Case>& cases, Device& device) {
  for (const bool backward : {false, true}) {
    Case c;
    c.name = backward ? "group_norm+silu bwd" : "group_norm+silu";
    c.shape = fmt::format("{}x{} C{}", GroupNorm::kSide, GroupNorm::kSide, GroupNorm::kChannels);
    c.tolerance = 1e-3;
    c.make = [&device, backward] {
      const auto o = std::make_shared<GroupNorm>(device);
      const Function fn = [](const Inputs& i) {
        return op::group_norm(i[0], i[1], i[2], GroupNorm::kGroups, static_cast<float>(GroupNorm::kEps),
                              true);
      };
      const Inputs in{o->x, o->w, o->b};
      if (!backward) return forward_of(in, fn, [o] { return o->forward(); });
      return backward_of(in, fn, o->dy, {0, 1, 2}, [o] { return o->backward(); });
    };
    cases.push_back(c);
  }
}

}  // namespace

void add_images(std::vector<Case>& cases, Device& device) {
  add_convolutions(cases, device);
  add_group_norm(cases, device);
}

}  // namespace vkflux::bench
