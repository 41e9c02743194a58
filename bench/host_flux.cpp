#include "bench/host_flux.h"

#include <algorithm>
#include <numeric>

#include "vk/error.h"

namespace vkflux::bench {
namespace {

size_t at(int64_t i) {
  return static_cast<size_t>(i);
}

Values gather(const Values& x, const std::vector<int64_t>& rows, int64_t width) {
  Values out;
  out.reserve(rows.size() * at(width));
  for (const int64_t r : rows) out.insert(out.end(), x.begin() + r * width, x.begin() + (r + 1) * width);
  return out;
}

void append(Values& x, const Values& y) {
  x.insert(x.end(), y.begin(), y.end());
}

void apply(Values& x, double (*f)(double)) {
  for (float& v : x) v = static_cast<float>(f(v));
}

void put(Values& x, const std::vector<int64_t>& rows, const Values& y, int64_t width) {
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(y.begin() + static_cast<int64_t>(i) * width, width, x.begin() + rows[i] * width);
}

std::vector<int64_t> all_rows(int64_t n) {
  std::vector<int64_t> out(at(n));
  std::iota(out.begin(), out.end(), int64_t{0});
  return out;
}

}  // namespace

HostFlux::HostFlux(const Flux1Config& config, std::vector<Param> params, Values rope, int64_t text)
    : c_(config), params_(std::move(params)), rope_(std::move(rope)), text_(text) {}

const Tensor& HostFlux::parameter(const std::string& name) const {
  for (const Param& p : params_) {
    if (p.name == name) return *p.tensor;
  }
  throw Error(ErrorCode::internal, "the reference knows no parameter " + name);
}

Values HostFlux::linear(const std::string& name, const Values& x, int64_t first, int64_t count) const {
  const Tensor& weight = parameter(name + "weight");
  const int64_t k = weight.dim(1), rows = static_cast<int64_t>(x.size()) / k;
  const int64_t n = count < 0 ? weight.dim(0) : count;
  const Values w = weight.slice(0, first, n).to_host(), b = parameter(name + "bias").to_host();
  Values y(at(rows * n));
  parallel_for(n, [&](int64_t j) {
    for (int64_t i = 0; i < rows; ++i)
      y[at(i * n + j)] = static_cast<float>(dot(&x[at(i * k)], &w[at(j * k)], k) + b[at(first + j)]);
  });
  return y;
}

Values HostFlux::embed(const std::string& name, const Values& x) const {
  Values h = linear(name + "in_layer.", x);
  apply(h, silu);
  return linear(name + "out_layer.", h);
}

Values HostFlux::modulated(const Values& x, const float* shift, const float* scale) const {
  Values y(x.size());
  for (size_t row = 0; row < x.size(); row += at(c_.hidden)) {
    const Moments m = moments(&x[row], c_.hidden, 1e-6);
    for (size_t j = 0; j < at(c_.hidden); ++j)
      y[row + j] = static_cast<float>((x[row + j] - m.mean) * m.inverse * (1.0 + scale[j]) + shift[j]);
  }
  return y;
}

void HostFlux::norm_and_rotate(Values& x, const std::string& scale,
                               const std::vector<int64_t>& tokens) const {
  const Values s = parameter(scale).to_host();
  const int64_t d = c_.head_dim;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const float* turn = &rope_[at(tokens[i] * d)];
    for (int64_t h = 0; h < c_.heads; ++h) {
      float* row = &x[i * at(c_.hidden) + at(h * d)];
      const double r = 1 / std::sqrt(dot(row, row, d) / static_cast<double>(d) + 1e-6);
      for (int64_t j = 0; j < d; j += 2) {
        const double even = row[j] * r * s[at(j)], odd = row[j + 1] * r * s[at(j + 1)];
        row[j] = static_cast<float>(turn[j] * even - turn[j + 1] * odd);
        row[j + 1] = static_cast<float>(turn[j + 1] * even + turn[j] * odd);
      }
    }
  }
}

Values HostFlux::attend(const Values& q, const Values& k, const Values& v) const {
  const int64_t queries = static_cast<int64_t>(q.size()) / c_.hidden,
                keys = static_cast<int64_t>(k.size()) / c_.hidden, d = c_.head_dim;
  Values o(q.size(), 0.0f);
  parallel_for(queries * c_.heads, [&](int64_t job) {
    const size_t row = at(job / c_.heads * c_.hidden + job % c_.heads * d), head = at(job % c_.heads * d);
    std::vector<double> p(at(keys)), sum_v(at(d), 0.0);
    double most = -1e300, sum = 0;
    for (size_t j = 0; j < p.size(); ++j) {
      p[j] = dot(&q[row], &k[j * at(c_.hidden) + head], d) / std::sqrt(static_cast<double>(d));
      most = std::max(most, p[j]);
    }
    for (size_t j = 0; j < p.size(); ++j) {
      sum += p[j] = std::exp(p[j] - most);
      for (size_t x = 0; x < at(d); ++x) sum_v[x] += p[j] * v[j * at(c_.hidden) + head + x];
    }
    for (size_t x = 0; x < at(d); ++x) o[row + x] = static_cast<float>(sum_v[x] / sum);
  });
  return o;
}

HostFlux::Qkv HostFlux::project(const std::string& name, const std::string& norm, const Values& a,
                                const std::vector<int64_t>& wanted, int64_t first) const {
  const int64_t h = c_.hidden, rows = static_cast<int64_t>(a.size()) / h;
  const auto tokens = [first](std::vector<int64_t> r) {
    for (int64_t& x : r) x += first;
    return r;
  };
  Qkv out{linear(name, gather(a, wanted, h), 0, h), linear(name, a, h, h), linear(name, a, 2 * h, h)};
  norm_and_rotate(out.q, norm + "query_norm.scale", tokens(wanted));
  norm_and_rotate(out.k, norm + "key_norm.scale", tokens(all_rows(rows)));
  return out;
}

Values HostFlux::finish(const std::string& stream, const Values& x, const Values& o,
                        const Values& mod) const {
  const size_t h = at(c_.hidden);
  const auto gated = [&](const Values& base, const Values& y, size_t gate) {
    Values out(base.size());
    for (size_t i = 0; i < base.size(); ++i) out[i] = base[i] + mod[gate * h + i % h] * y[i];
    return out;
  };
  const Values y = gated(x, linear(stream + "attn.proj.", o), 2);
  Values m = linear(stream + "mlp.0.", modulated(y, &mod[3 * h], &mod[4 * h]));
  apply(m, gelu_tanh);
  return gated(y, linear(stream + "mlp.2.", m), 5);
}

HostFlux::Streams HostFlux::double_block(const std::string& prefix, const Streams& x, const Values& silu_vec,
                                         std::vector<int64_t> wanted) const {
  const int64_t h = c_.hidden, tokens = static_cast<int64_t>(x.txt.size() + x.img.size()) / h;
  if (wanted.empty()) wanted = all_rows(tokens);
  std::vector<int64_t> of_txt, of_img;
  for (const int64_t t : wanted) (t < text_ ? of_txt : of_img).push_back(t < text_ ? t : t - text_);
  const auto one = [&](const std::string& stream, const Values& s, const std::vector<int64_t>& rows,
                       int64_t first, Values& mod) {
    mod = linear(prefix + stream + "mod.lin.", silu_vec);
    return project(prefix + stream + "attn.qkv.", prefix + stream + "attn.norm.",
                   modulated(s, &mod[0], &mod[at(h)]), rows, first);
  };
  Values mod_txt, mod_img;
  Qkv joint = one("txt_", x.txt, of_txt, 0, mod_txt);
  const Qkv image = one("img_", x.img, of_img, text_, mod_img);
  append(joint.q, image.q), append(joint.k, image.k), append(joint.v, image.v);
  const Values o = attend(joint.q, joint.k, joint.v);
  const auto split = o.begin() + static_cast<int64_t>(of_txt.size()) * h;
  Streams out = x;
  put(out.txt, of_txt, finish(prefix + "txt_", gather(x.txt, of_txt, h), Values(o.begin(), split), mod_txt),
      h);
  put(out.img, of_img, finish(prefix + "img_", gather(x.img, of_img, h), Values(split, o.end()), mod_img), h);
  return out;
}

Values HostFlux::single_block(const std::string& prefix, const Values& x, const Values& silu_vec,
                              std::vector<int64_t> wanted) const {
  const int64_t h = c_.hidden;
  if (wanted.empty()) wanted = all_rows(static_cast<int64_t>(x.size()) / h);
  const Values mod = linear(prefix + "modulation.lin.", silu_vec);
  const Values a = modulated(x, &mod[0], &mod[at(h)]);
  const Qkv all = project(prefix + "linear1.", prefix + "norm.", a, wanted, 0);
  const Values o = attend(all.q, all.k, all.v);
  Values m = linear(prefix + "linear1.", gather(a, wanted, h), 3 * h, c_.mlp_hidden), joined;
  apply(m, gelu_tanh);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    joined.insert(joined.end(), o.begin() + row * h, o.begin() + (row + 1) * h);
    joined.insert(joined.end(), m.begin() + row * c_.mlp_hidden, m.begin() + (row + 1) * c_.mlp_hidden);
  }
  const Values y = linear(prefix + "linear2.", joined);
  Values out = x;
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = at(wanted[i / at(h)]), col = i % at(h);
    out[row * at(h) + col] += mod[at(2 * h) + col] * y[i];
  }
  return out;
}

Values HostFlux::forward(const Values& img, const Values& txt, const Values& y, double t) const {
  constexpr int64_t kHalf = 128;
  Values features(2 * kHalf);
  for (int64_t i = 0; i < kHalf; ++i) {
    const double angle = 1000 * t * std::exp(-std::log(10000.0) * static_cast<double>(i) / kHalf);
    features[at(i)] = static_cast<float>(std::cos(angle));
    features[at(kHalf + i)] = static_cast<float>(std::sin(angle));
  }
  Values vec = embed("time_in.", features);
  const Values pooled = embed("vector_in.", y);
  for (size_t i = 0; i < vec.size(); ++i) vec[i] += pooled[i];
  apply(vec, silu);
  Streams s{linear("txt_in.", txt), linear("img_in.", img)};
  for (int64_t i = 0; i < c_.depth; ++i) s = double_block("double_blocks." + std::to_string(i) + ".", s, vec);
  Values x = s.txt;
  append(x, s.img);
  for (int64_t i = 0; i < c_.depth_single; ++i)
    x = single_block("single_blocks." + std::to_string(i) + ".", x, vec);
  const Values image(x.begin() + text_ * c_.hidden, x.end());
  const Values mod = linear("final_layer.adaLN_modulation.1.", vec);
  return linear("final_layer.linear.", modulated(image, &mod[0], &mod[at(c_.hidden)]));
}

}  // namespace vkflux::bench
