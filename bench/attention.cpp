#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "bench/reference.h"

namespace vkflux::bench {
namespace {

constexpr int64_t kSamples = 6;  // queries and keys of a head that are checked

/// Full attention of one head on the host.
class HeadReference {
 public:
  HeadReference(Values q, Values k, Values v, Values dy, int64_t d)
      : q_(std::move(q)), k_(std::move(k)), v_(std::move(v)), dy_(std::move(dy)), d_(d) {
    n_ = static_cast<int64_t>(q_.size()) / d_;
    scale_ = 1 / std::sqrt(static_cast<double>(d_));
  }

  /// softmax of query i's scores.
  std::vector<double> weights(int64_t i) const {
    std::vector<double> p(static_cast<size_t>(n_));
    double most = -1e300, sum = 0;
    for (int64_t j = 0; j < n_; ++j) {
      p[static_cast<size_t>(j)] = scale_ * dot(row(q_, i), row(k_, j), d_);
      most = std::max(most, p[static_cast<size_t>(j)]);
    }
    for (double& x : p) sum += x = std::exp(x - most);
    for (double& x : p) x /= sum;
    return p;
  }
  /// sum_j c[j] rows[j]
  std::vector<double> mix(const std::vector<double>& c, const Values& rows) const {
    std::vector<double> out(static_cast<size_t>(d_), 0.0);
    for (int64_t j = 0; j < n_; ++j) {
      for (int64_t x = 0; x < d_; ++x)
        out[static_cast<size_t>(x)] += c[static_cast<size_t>(j)] * row(rows, j)[x];
    }
    return out;
  }
  std::vector<double> output(int64_t i) const { return mix(weights(i), v_); }
  /// Gradients of query i's scaled scores.
  std::vector<double> score_gradients(int64_t i, const std::vector<double>& p) const {
    std::vector<double> ds(p.size());
    double mean = 0;
    for (int64_t j = 0; j < n_; ++j) {
      const auto at = static_cast<size_t>(j);
      ds[at] = dot(row(dy_, i), row(v_, j), d_);
      mean += p[at] * ds[at];
    }
    for (size_t j = 0; j < ds.size(); ++j) ds[j] = p[j] * (ds[j] - mean) * scale_;
    return ds;
  }
  std::vector<double> dq(int64_t i) const { return mix(score_gradients(i, weights(i)), k_); }

  /// Gradients of some keys and values, from the columns of all queries.
  struct KeyGradients {
    std::vector<std::vector<double>> dk, dv;
  };
  KeyGradients key_gradients(const std::vector<int64_t>& keys) const {
    std::vector<std::vector<double>> p(keys.size(), std::vector<double>(static_cast<size_t>(n_))), ds = p;
    parallel_for(n_, [&](int64_t i) {
      const std::vector<double> w = weights(i), g = score_gradients(i, w);
      for (size_t s = 0; s < keys.size(); ++s) {
        p[s][static_cast<size_t>(i)] = w[static_cast<size_t>(keys[s])];
        ds[s][static_cast<size_t>(i)] = g[static_cast<size_t>(keys[s])];
      }
    });
    KeyGradients out;
    for (size_t s = 0; s < keys.size(); ++s) {
      out.dk.push_back(mix(ds[s], q_));
      out.dv.push_back(mix(p[s], dy_));
    }
    return out;
  }

 private:
  const float* row(const Values& x, int64_t i) const { return &x[static_cast<size_t>(i * d_)]; }
  Values q_, k_, v_, dy_;
  int64_t d_, n_;
  double scale_;
};

struct Setting {
  int64_t heads, tokens, d;
  bool big;
};

struct Operands {
  Setting s;
  Tensor q, k, v, dy;

  Operands(Device& device, const Setting& setting) : s(setting) {
    const Shape shape{1, s.heads, s.tokens, s.d};
    q = noise(device, shape), k = noise(device, shape, 1), v = noise(device, shape, 2);
    dy = noise(device, shape, 3);
  }
  HeadReference head(int64_t h) const {
    const auto values = [&](const Tensor& x) { return x.slice(1, h, 1).to_host(); };
    return {values(q), values(k), values(v), values(dy), s.d};
  }
  void add_row(Expectation& e, int64_t h, int64_t i, const std::vector<double>& row) const {
    for (int64_t x = 0; x < s.d; ++x) e.add((h * s.tokens + i) * s.d + x, row[static_cast<size_t>(x)]);
  }

  std::vector<Expected> forward() const {
    Expectation e;
    for (const int64_t h : spread(s.heads, 2)) {
      const HeadReference r = head(h);
      for (const int64_t i : spread(s.tokens, kSamples)) add_row(e, h, i, r.output(i));
    }
    return {e.take()};
  }
  std::vector<Expected> backward() const {
    const int64_t h = s.heads - 1;
    const HeadReference r = head(h);
    Expectation dq(0), dk(1), dv(2);
    const std::vector<int64_t> rows = spread(s.tokens, kSamples);
    for (const int64_t i : rows) add_row(dq, h, i, r.dq(i));
    const HeadReference::KeyGradients g = r.key_gradients(rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      add_row(dk, h, rows[i], g.dk[i]);
      add_row(dv, h, rows[i], g.dv[i]);
    }
    return {dq.take(), dk.take(), dv.take()};
  }
};

/// The features of a student's tokens: two layers of one width.
struct FeatureNetwork {
  static constexpr int64_t kRows = 24 * 1024, kD = 128, kFeatures = 128;
  static constexpr double kEps = 1e-6;
  Tensor x, w[2], b[2];

  explicit FeatureNetwork(Device& device) {
    x = noise(device, {kRows, kD});
    for (uint64_t l = 0; l < 2; ++l) {
      w[l] = op::affine(noise(device, {kFeatures, kD}, 2 * l + 1), 0.1f);
      b[l] = noise(device, {kFeatures}, 2 * l + 2);
    }
  }
  std::vector<Expected> forward() const {
    const Values xh = x.to_host();
    const Values wh[2] = {w[0].to_host(), w[1].to_host()}, bh[2] = {b[0].to_host(), b[1].to_host()};
    Expectation e;
    for (const int64_t r : spread(kRows, 8)) {
      Values row(xh.begin() + r * kD, xh.begin() + (r + 1) * kD);
      double power = 0;
      for (size_t l = 0; l < 2; ++l) {
        Values next(static_cast<size_t>(kFeatures));
        for (size_t j = 0; j < next.size(); ++j) {
          const double z = dot(row.data(), &wh[l][j * static_cast<size_t>(kD)], kD) + bh[l][j];
          const double y = l == 0 ? silu(z) : z > 0 ? z + 1 : std::exp(z);
          next[j] = static_cast<float>(y);
          if (l == 1) power += y * y;
        }
        row = next;
      }
      const double scale = 1 / (std::sqrt(power) + kEps);
      for (size_t j = 0; j < row.size(); ++j)
        e.add(r * kFeatures + static_cast<int64_t>(j), scale * static_cast<double>(row[j]));
    }
    return {e.take()};
  }
};

}  // namespace

void add_attention(std::vector<Case>& cases, Device& device) {
  const bool cpu = device.device_class() == DeviceClass::cpu;
  for (const int64_t d : {int64_t{64}, int64_t{128}}) {
    for (const int64_t n : {int64_t{512}, int64_t{1024}, int64_t{2304}, int64_t{4608}}) {
      // Heads enough for every core or GPU, with about the same work for all lengths.
      const int64_t heads = cpu ? std::max<int64_t>(1, 4096 / n) * 128 / d : 24 * 128 / d;
      const Setting s{heads, n, d, n == 2304 || (n == 4608 && d == 64)};
      const auto add = [&](const std::string& name, bool backward, bool f16 = false) {
        Case c;
        c.name = name;
        c.shape = fmt::format("H{} N{} D{}", heads, n, d);
        c.big = s.big;
        c.dtype = f16 ? "f16" : "f32";
        c.tolerance = f16 ? 1e-2 : 1e-3;
        c.make = [&device, s, backward, f16] {
          const auto o = std::make_shared<Operands>(device, s);
          const Function fn = [f16](const Inputs& i) {
            op::AttentionOptions options;
            options.f16 = f16;
            return op::attention(i[0], i[1], i[2], options);
          };
          if (!backward) return forward_of({o->q, o->k, o->v}, fn, [o] { return o->forward(); });
          return backward_of({o->q, o->k, o->v}, fn, o->dy, {0, 1, 2}, [o] { return o->backward(); });
        };
        cases.push_back(c);
      };
      add("attention", false);
      if (device.caps().coopmat && !cpu) add("attention", false, true);
      add("attention bwd", true);
    }
  }
  Case c;
  c.name = "feature network";
  c.shape = fmt::format("R{} D{} F{}", FeatureNetwork::kRows, FeatureNetwork::kD, FeatureNetwork::kFeatures);
  c.tolerance = 1e-3;
  c.make = [&device] {
    const auto o = std::make_shared<FeatureNetwork>(device);
    const Function fn = [o](const Inputs& i) {
      return op::feature_network(i[0], {o->w[0], o->w[1]}, {o->b[0], o->b[1]}, true,
                                 static_cast<float>(FeatureNetwork::kEps));
    };
    return forward_of({o->x}, fn, [o] { return o->forward(); });
  };
  cases.push_back(c);
}

}  // namespace vkflux::bench
