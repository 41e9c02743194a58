#include "model/sampler/solver.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kFewSteps = 15;  // below it lower_order_final of DPM-Solver has its effect

SolverOptions of(Sampler sampler, int order = 2, bool sde = false) {
  SolverOptions o;
  o.sampler = sampler;
  o.order = order;
  o.sde = sde;
  return o;
}

const std::array<SamplerRow, 9>& rows() {
  static const std::array<SamplerRow, 9> all{{
      {"euler",
       "Euler",
       "a step along the prediction: what FLUX models are made for",
       SolverOptions(),
       true,
       {}},
      {"euler_a",
       "Euler a",
       "Euler with fresh noise in every step (ancestral, for rectified flow)",
       of(Sampler::ancestral),
       true,
       {"euler_ancestral"}},
      {"heun", "Heun", "two passes a step, averaged; twice the time", of(Sampler::heun), true, {}},
      {"dpmpp_2m", "DPM++ 2M", "DPM-Solver++ of second order, one pass a step", of(Sampler::dpmpp), true, {}},
      {"dpmpp_3m", "DPM++ 3M", "DPM-Solver++ of third order", of(Sampler::dpmpp, 3), true, {}},
      {"dpmpp_2m_sde",
       "DPM++ 2M SDE",
       "DPM-Solver++ of second order with fresh noise in every step",
       of(Sampler::dpmpp, 2, true),
       true,
       {}},
      {"unipc",
       "UniPC",
       "predictor and corrector in one pass a step",
       of(Sampler::unipc),
       true,
       {"uni_pc_bh2", "uni_pc"}},
      {"lcm",
       "LCM",
       "to the clean estimate and back with fresh noise: for models distilled for few steps",
       of(Sampler::renoise),
       true,
       {}},
      {"ddim_trailing",
       "DDIM",
       "DDIM, which in flow matching is Euler, on evenly falling times",
       SolverOptions(),
       false,
       {}},
  }};
  return all;
}

std::string folded(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' && c != '_' && c != '-')
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

/// Half the logarithm of the signal-to-noise ratio.
double lambda(double level) {
  return std::log(1 - level) - std::log(level);
}

void add_to(Tensor& sum, const Tensor& x, double weight) {
  if (weight == 0) return;
  const Tensor term = weight == 1 ? x : op::affine(x, static_cast<float>(weight));
  sum = sum.defined() ? op::add(sum, term) : term;
}

/// Solves sum_j r_j^i y_j = b_i.
std::vector<double> vandermonde(const std::vector<double>& r, std::vector<double> b) {
  const size_t n = r.size();
  std::vector<std::vector<double>> m(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) m[i][j] = std::pow(r[j], static_cast<double>(i));
  }
  b.resize(n);
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t i = k + 1; i < n; ++i) {
      if (std::abs(m[i][k]) > std::abs(m[pivot][k])) pivot = i;
    }
    std::swap(m[k], m[pivot]);
    std::swap(b[k], b[pivot]);
    for (size_t i = k + 1; i < n; ++i) {
      const double f = m[i][k] / m[k][k];
      for (size_t j = k; j < n; ++j) m[i][j] -= f * m[k][j];
      b[i] -= f * b[k];
    }
  }
  for (size_t k = n; k-- > 0;) {
    for (size_t j = k + 1; j < n; ++j) b[k] -= m[k][j] * b[j];
    b[k] /= m[k][k];
  }
  return b;
}

/// What predictor and corrector of UniPC share for a step over h in lambda.
struct BhStep {
  double phi, scale;      // expm1(-h), B(h)
  std::vector<double> b;  // right-hand sides
};
BhStep bh_step(double h, bool bh1, int order) {
  BhStep out{std::expm1(-h), bh1 ? -h : std::expm1(-h), {}};
  double phi_k = out.phi / -h - 1, factorial = 1;
  for (int i = 1; i <= order; ++i) {
    out.b.push_back(phi_k * factorial / out.scale);
    factorial *= i + 1;
    phi_k = phi_k / -h - 1 / factorial;
  }
  return out;
}

}  // namespace

std::span<const SamplerRow> samplers() {
  return rows();
}

const SamplerRow& sampler_row(const std::string& text) {
  std::string known;
  for (const SamplerRow& row : rows()) {
    if (folded(text) == folded(row.name) || folded(text) == folded(row.label)) return row;
    for (const std::string& alias : row.aliases) {
      if (folded(text) == folded(alias)) return row;
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("sampler \"{}\": known are {}", text, known));
}

const char* name(const SolverOptions& options) {
  const SamplerRow* found = nullptr;
  for (const SamplerRow& row : rows()) {
    if (row.options.sampler != options.sampler || row.options.sde != options.sde) continue;
    if (!found || row.options.order == options.order) found = &row;
    if (row.options.order == options.order) break;
  }
  return found->name;
}

Solver::Solver(SolverOptions options, std::vector<double> levels, int64_t start)
    : options_(std::move(options)), levels_(std::move(levels)), start_(start) {
  if (levels_.size() < 2)
    throw Error(ErrorCode::invalid_argument, "a denoising run needs two noise levels or more");
  const auto steps = static_cast<int64_t>(levels_.size()) - 1;
  if (start < 0 || start >= steps)
    throw Error(ErrorCode::invalid_argument, fmt::format("start at step {} of {}", start, steps));
  state_.begun = start;
  for (int64_t i = start; i < steps; ++i) {
    Weights w, c;
    switch (options_.sampler) {
      case Sampler::euler:
      case Sampler::heun:
        w = euler(i);
        break;
      case Sampler::ancestral:
        w = ancestral(i);
        break;
      case Sampler::renoise:
        w = renoise(i);
        break;
      case Sampler::dpmpp:
        w = dpmpp(i, i - start);
        break;
      case Sampler::unipc:
        w = unipc(i, unipc_order(i));
        if (i > start && std::find(options_.uncorrected.begin(), options_.uncorrected.end(), i - 1) ==
                             options_.uncorrected.end()) {
          c = correction(i, unipc_order(i - 1));
          check(c, i);
        }
        break;
    }
    check(w, i);
    weights_.push_back(std::move(w));
    corrections_.push_back(std::move(c));
  }
}

void Solver::check(const Weights& w, int64_t step) const {
  bool finite = std::isfinite(w.x) && std::isfinite(w.v) && std::isfinite(w.noise);
  for (const double c : w.cleans) finite = finite && std::isfinite(c);
  if (finite) return;
  const auto i = static_cast<size_t>(step);
  const bool ordered = options_.sampler == Sampler::dpmpp || options_.sampler == Sampler::unipc;
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("sampler {}{} has no step from noise level {:g} to {:g} (step {} of {}): take another "
                  "--sampler or --schedule{}",
                  name(options_), ordered ? fmt::format(" of order {}", options_.order) : "", levels_[i],
                  levels_[i + 1], step + 1, levels_.size() - 1, ordered ? ", or lower_order_final" : ""));
}

Solver::Weights Solver::euler(int64_t step) const {
  const auto i = static_cast<size_t>(step);
  return {1, levels_[i + 1] - levels_[i], 0, {}};
}

Solver::Weights Solver::ancestral(int64_t step) const {
  const double from = levels_[static_cast<size_t>(step)], to = levels_[static_cast<size_t>(step) + 1];
  if (to == 0) return {1, -from, 0, {}};
  // Down to a lower level than `to`, then up again: scaled so that signal and noise have their shares.
  const double down = to * to / from, up = (1 - to) / (1 - down);
  return {up, up * (down - from), std::sqrt(std::max(to * to - down * down * up * up, 0.0)), {}};
}

Solver::Weights Solver::renoise(int64_t step) const {
  const double from = levels_[static_cast<size_t>(step)], to = levels_[static_cast<size_t>(step) + 1];
  return {1 - to, -(1 - to) * from, to, {}};
}

Solver::Weights Solver::dpmpp(int64_t step, int64_t made) const {
  const auto i = static_cast<size_t>(step);
  const auto n = static_cast<int64_t>(levels_.size()) - 1;
  const double from = levels_[i], to = levels_[i + 1], h = lambda(to) - lambda(from), alpha = 1 - to;
  const bool few = options_.lower_order_final && n < kFewSteps;
  const bool last = step == n - 1 && (options_.euler_at_final || few || to == 0);
  int order = std::min<int>(options_.order, static_cast<int>(std::min<int64_t>(made, 3)) + 1);
  if (step == n - 2 && few) order = std::min(order, 2);
  if (last) order = 1;
  Weights w;
  // e: 1 - exp(-h), or 1 - exp(-2h); the sums below are of the Taylor expansion of its integral.
  const double m = options_.sde ? 2 : 1, e = -std::expm1(-m * h);
  w.x = to / from * (options_.sde ? std::exp(-h) : 1);
  if (options_.sde) w.noise = to * std::sqrt(e);
  w.cleans = {alpha * e};
  if (order == 1) return w;
  const double first = options_.heun_form || order == 3 ? alpha * (1 - e / (m * h)) : alpha * e / 2;
  const double h0 = lambda(from) - lambda(levels_[i - 1]), near = h / h0;
  if (order == 2) {
    w.cleans[0] += first * near;
    w.cleans.push_back(-first * near);
    return w;
  }
  const double h1 = lambda(levels_[i - 1]) - lambda(levels_[i - 2]), far = h / h1;
  const double second = alpha * (options_.sde ? (e - 2 * h) / (4 * h * h) - 0.5 : (e - h) / (h * h) + 0.5);
  // The first and second difference quotients, by their weights of the three estimates.
  const double bend = h0 / (h0 + h1), curve = h / (h0 + h1);
  const double near_weight = first * (1 + bend) + second * curve, far_weight = -first * bend - second * curve;
  w.cleans[0] += near_weight * near;
  w.cleans.push_back(-near_weight * near + far_weight * far);
  w.cleans.push_back(-far_weight * far);
  return w;
}

int Solver::unipc_order(int64_t step) const {
  const auto left = static_cast<int64_t>(levels_.size()) - 1 - step, made = step - start_;
  const int64_t order = options_.lower_order_final ? std::min<int64_t>(options_.order, left) : options_.order;
  return static_cast<int>(std::min(order, made + 1));
}

Solver::Weights Solver::unipc(int64_t step, int order) const {
  const auto i = static_cast<size_t>(step);
  const double from = levels_[i], to = levels_[i + 1], h = lambda(to) - lambda(from), alpha = 1 - to;
  const BhStep bh = bh_step(h, options_.bh1, order);
  Weights w{to / from, 0, 0, {-alpha * bh.phi}};
  w.cleans.resize(static_cast<size_t>(order), 0.0);
  std::vector<double> r;
  for (int j = 1; j < order; ++j) {
    const double ratio = (lambda(levels_[i - static_cast<size_t>(j)]) - lambda(from)) / h;
    if (!std::isinf(ratio)) r.push_back(ratio);  // an estimate at pure noise has no say
  }
  if (r.empty()) return w;
  const std::vector<double> rho = order == 2 ? std::vector<double>{0.5} : vandermonde(r, bh.b);
  for (size_t j = 0; j < r.size(); ++j) {
    const double weight = alpha * bh.scale * rho[j] / r[j];
    w.cleans[0] += weight;
    w.cleans[j + 1] -= weight;
  }
  return w;
}

Solver::Weights Solver::correction(int64_t step, int order) const {
  const auto i = static_cast<size_t>(step);
  const double from = levels_[i - 1], to = levels_[i], h = lambda(to) - lambda(from), alpha = 1 - to;
  const BhStep bh = bh_step(h, options_.bh1, order);
  if (std::isinf(bh.scale)) return {};  // from pure noise bh1 has no correction
  Weights w{to / from, 0, 0, {0, -alpha * bh.phi}};
  w.cleans.resize(static_cast<size_t>(order) + 1, 0.0);
  std::vector<double> r;
  for (int j = 1; j < order; ++j) {
    const double ratio = (lambda(levels_[i - 1 - static_cast<size_t>(j)]) - lambda(from)) / h;
    if (!std::isinf(ratio)) r.push_back(ratio);
  }
  r.push_back(1);  // the estimate of this step, last
  const std::vector<double> rho = order == 1 ? std::vector<double>{0.5} : vandermonde(r, bh.b);
  for (size_t j = 0; j < r.size(); ++j) {
    const double weight = alpha * bh.scale * rho[j] / r[j];
    w.cleans[1] += weight;
    w.cleans[j + 1 < r.size() ? j + 2 : 0] -= weight;
  }
  return w;
}

size_t Solver::memory() const {
  size_t most = 0;
  for (const std::vector<Weights>* all : {&weights_, &corrections_}) {
    for (const Weights& w : *all) most = std::max(most, w.cleans.size());
  }
  return most;
}

bool Solver::stochastic() const {
  return std::any_of(weights_.begin(), weights_.end(), [](const Weights& w) { return w.noise != 0; });
}

int64_t Solver::passes(int64_t step) const {
  return options_.sampler == Sampler::heun && levels_[static_cast<size_t>(step) + 1] > 0 ? 2 : 1;
}

Tensor Solver::direction(int64_t step, const Tensor& x, const Predict& predict) const {
  const Tensor first = predict(x, step);
  if (passes(step) == 1) return first;
  const auto i = static_cast<size_t>(step);
  const Tensor there = op::add(x, op::affine(first, static_cast<float>(levels_[i + 1] - levels_[i])));
  return op::affine(op::add(first, predict(there, step + 1)), 0.5f);
}

Tensor Solver::advance(int64_t step, const Tensor& x, const Tensor& direction, const Noise& noise) {
  const auto at = static_cast<size_t>(step - start_);
  const Weights &w = weights_.at(at), &c = corrections_.at(at);
  Tensor from = x, out;
  const size_t kept = memory();
  if (kept > 0) {
    std::vector<Tensor>& cleans = state_.cleans;
    cleans.insert(cleans.begin(),
                  op::sub(x, op::affine(direction, static_cast<float>(levels_[static_cast<size_t>(step)]))));
    if (cleans.size() > kept) cleans.pop_back();
    if (!c.cleans.empty() && state_.before.defined()) {
      from = {};
      add_to(from, state_.before, c.x);
      for (size_t j = 0; j < c.cleans.size(); ++j) add_to(from, cleans.at(j), c.cleans[j]);
    }
    if (options_.sampler == Sampler::unipc) state_.before = from;
    add_to(out, from, w.x);
    for (size_t j = 0; j < w.cleans.size(); ++j) add_to(out, cleans.at(j), w.cleans[j]);
  } else {
    add_to(out, from, w.x);
    add_to(out, direction, w.v);
  }
  if (w.noise != 0) add_to(out, noise(step), w.noise);
  return out;
}

}  // namespace vkflux
