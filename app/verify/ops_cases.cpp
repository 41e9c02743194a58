// Golden cases of single ops: sub-cases are told by the letters of their tag ("linear3" is a linear).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <functional>
#include <map>

#include "app/verify/case.h"
#include "autograd/ops.h"
#include "autograd/optim.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

struct Sub {
  Case& c;
  std::string tag;
  nlohmann::json config;

  Tensor in(const char* name) const { return c.in(tag + "." + name); }
  Tensor weight(const char* name) const {
    return c.has_weight(tag + "." + name) ? c.weight(tag + "." + name) : Tensor();
  }
  float number(const char* key, float fallback) const { return field(config, key, fallback); }
  /// Error unsupported where the file asks for a variant of the op that we don't have.
  void only(const char* key, float value) const {
    if (number(key, value) != value)
      throw Error(ErrorCode::unsupported, fmt::format("\"{}\" other than {}", key, value));
  }
  /// A mean over all elements of x as the reduction that the file names.
  Tensor reduced(const Tensor& mean) const {
    const std::string reduction = field<std::string>(config, "reduction", "mean");
    if (reduction == "mean") return mean;
    if (reduction == "sum") return op::affine(mean, static_cast<float>(in("x").numel()));
    throw Error(ErrorCode::unsupported, fmt::format("reduction '{}'", reduction));
  }
  /// Whether the mask is added to the scores: it says so, or has values that no mask of 0 and 1 has.
  bool adds_mask() const {
    const auto it = config.find("mask");
    if (it != config.end() && it->is_string() && it->get<std::string>().find("add") != std::string::npos)
      return true;
    const std::vector<double> m = c.numbers("in." + tag + ".mask");
    return std::any_of(m.begin(), m.end(), [](double x) { return x < 0; });
  }
};

using SubFn = std::function<Tensor(const Sub&)>;

Tensor over_images(const Tensor& x, const std::function<Tensor(const Tensor&)>& fn) {
  return op::nhwc_to_nchw(fn(op::nchw_to_nhwc(x)));
}

// x with its dimension `dim` as the last one; negative: from the end.
Tensor with_last(const Tensor& x, int dim) {
  const int rank = x.rank(), wanted = dim < 0 ? dim + rank : dim;
  if (wanted < 0 || wanted >= rank)
    throw Error(ErrorCode::format, fmt::format("\"dim\" {} of {} dimensions", dim, rank));
  if (wanted == rank - 1) return x;
  std::vector<int> order;
  for (int d = 0; d < rank; ++d) {
    if (d != wanted) order.push_back(d);
  }
  order.push_back(wanted);
  return op::permute(x, order);
}

Tensor conv(const Sub& s) {
  s.only("dilation", 1);
  s.only("groups", 1);
  const int pad = static_cast<int>(s.number("padding", 0)),
            more = static_cast<int>(s.number("pad_right_bottom", 0));
  const op::ConvOptions o{static_cast<int>(s.number("stride", 1)), pad, pad, pad + more, pad + more};
  return over_images(s.in("x"),
                     [&](const Tensor& x) { return op::conv2d(x, s.weight("weight"), s.weight("bias"), o); });
}

// Attention with one matrix for each picture that is added to its scores: the mask of the reference in full.
Tensor sdpa_biased(const Sub& s, const Tensor& q, op::AttentionOptions o) {
  const std::vector<int64_t>& shape = s.c.file().info("in." + s.tag + ".mask").shape;
  const std::vector<double> stored = s.c.numbers("in." + s.tag + ".mask");
  const bool added = s.adds_mask();
  const std::array<int64_t, 4> whole{q.dim(0), q.dim(1), q.dim(2), s.in("k").dim(2)};
  const Tensor k = s.in("k"), v = s.in("v");
  std::vector<Tensor> parts;
  for (int64_t b = 0; b < whole[0]; ++b) {
    std::vector<float> bias;
    for (int64_t h = 0; h < whole[1]; ++h)
      for (int64_t i = 0; i < whole[2]; ++i)
        for (int64_t j = 0; j < whole[3]; ++j) {
          const std::array<int64_t, 4> at{b, h, i, j};
          int64_t place = 0;
          for (size_t d = 0; d < shape.size(); ++d) {
            const size_t from = 4 - shape.size() + d;
            place = place * shape[d] + (shape[d] == whole[from] ? at[from] : 0);
          }
          const double m = stored.at(static_cast<size_t>(place));
          // Far below any score, and finite: a row that keeps nothing is an even mean, not NaN.
          constexpr double kDropped = -1e30;
          bias.push_back(static_cast<float>(added ? std::max(m, kDropped) : m != 0 ? 0 : kDropped));
        }
    o.bias = Tensor::from(q.device(), std::span<const float>(bias), {whole[1], whole[2], whole[3]});
    parts.push_back(op::attention(op::narrow(q, 0, b, 1), op::narrow(k, 0, b, 1), op::narrow(v, 0, b, 1), o));
  }
  return op::concat(parts, 0);
}

Tensor sdpa(const Sub& s) {
  op::AttentionOptions o;
  o.scale = s.number("scale", 0);
  for (const char* key : {"is_causal", "causal"}) o.causal = o.causal || field(s.config, key, false);
  const Tensor q = s.in("q"), k = s.in("k");
  if (o.causal && q.dim(2) != k.dim(2))
    throw Error(ErrorCode::unsupported, "a causal mask over another number of keys than queries");
  if (s.c.has_in(s.tag + ".mask")) {
    const std::vector<int64_t>& shape = s.c.file().info("in." + s.tag + ".mask").shape;
    const bool per_query = shape.size() > 2 && shape[shape.size() - 2] != 1;
    const bool heads = shape.size() == 4 && shape[1] != 1;
    if (per_query || heads || s.adds_mask()) return sdpa_biased(s, q, o);
    o.key_mask = s.c.key_mask(s.tag + ".mask", q.dim(0), k.dim(2));
  }
  return op::attention(q, k, s.in("v"), o);
}

// (exp(-a) h + a + exp(-b) c + b) / 2 (homoscedastic uncertainty, Kendall et al. 2018)
Tensor kendall(const Sub& s) {
  const auto term = [](const Tensor& loss, const Tensor& log_variance) {
    return op::add(op::mul(op::unary(op::affine(log_variance, -1), op::Unary::exp), loss), log_variance);
  };
  return op::affine(op::add(term(s.in("h"), s.weight("lvh")), term(s.in("c"), s.weight("lvc"))), 0.5f);
}

SubFn unary(op::Unary f) {
  return [f](const Sub& s) { return op::unary(s.in("x"), f); };
}

const std::map<std::string, SubFn>& table() {
  static const std::map<std::string, SubFn> t{
      {"linear", [](const Sub& s) { return op::linear(s.in("x"), s.weight("weight"), s.weight("bias")); }},
      {"layernorm",
       [](const Sub& s) {
         return op::layer_norm(s.in("x"), s.weight("weight"), s.weight("bias"), s.number("eps", 1e-6f));
       }},
      {"rmsnorm",
       [](const Sub& s) { return op::rms_norm(s.in("x"), s.weight("scale"), s.number("eps", 1e-6f)); }},
      {"gelu_tanh", unary(op::Unary::gelu_tanh)},
      {"silu", unary(op::Unary::silu)},
      {"sigmoid", unary(op::Unary::sigmoid)},
      {"elu_plus", unary(op::Unary::elu_plus1)},  // the digit belongs to the name
      {"softplus", unary(op::Unary::softplus)},
      {"tanh", unary(op::Unary::tanh)},
      {"swiglu", [](const Sub& s) { return op::swiglu(s.in("x")); }},
      {"softmax", [](const Sub& s) { return op::softmax(s.in("x")); }},
      {"l2norm", [](const Sub& s) { return op::l2norm(s.in("x"), s.number("eps", 1e-6f)); }},
      {"modulate",
       [](const Sub& s) {
         return op::layer_norm_modulate(s.in("x"), s.in("shift"), s.in("scale"), s.number("eps", 1e-6f));
       }},
      {"gate_residual", [](const Sub& s) { return op::gate_residual(s.in("x"), s.in("gate"), s.in("y")); }},
      {"sdpa", sdpa},
      {"sdpa_mask", sdpa},
      {"conv", conv},
      {"groupnorm",
       [](const Sub& s) {
         const int groups = static_cast<int>(s.number("groups", 32));
         return over_images(s.in("x"), [&](const Tensor& x) {
           return op::group_norm(x, s.weight("weight"), s.weight("bias"), groups, s.number("eps", 1e-6f));
         });
       }},
      {"upsample_nearest", [](const Sub& s) { return over_images(s.in("x"), op::upsample_nearest2); }},
      {"bilinear",
       [](const Sub& s) {
         s.only("align_corners", 0);
         s.only("antialias", 0);
         const auto size = required<std::vector<int64_t>>(s.config, "size");
         return over_images(
             s.in("x"), [&](const Tensor& x) { return op::resize_bilinear(x, size.front(), size.back()); });
       }},
      {"smooth_l",
       [](const Sub& s) { return s.reduced(op::smooth_l1(s.in("x"), s.in("y"), s.number("beta", 1))); }},
      {"mse", [](const Sub& s) { return s.reduced(op::mse(s.in("x"), s.in("y"))); }},
      {"cosine",
       [](const Sub& s) {
         const Tensor x = s.in("x"), y = s.in("y");
         const auto last = [&](const Tensor& t) { return with_last(t, field(s.config, "dim", -1)); };
         return op::cosine_similarity(last(x), last(y), s.number("eps", 1e-8f));
       }},
      {"kendall", kendall},
  };
  return t;
}

// "smooth_l1_0" -> "smooth_l": digits and separators at the end number the sub-case.
std::string letters(std::string tag) {
  while (!tag.empty() && (std::isdigit(static_cast<unsigned char>(tag.back())) || tag.back() == '_'))
    tag.pop_back();
  return tag;
}

}  // namespace

void run_ops(Case& c) {
  for (const auto& [tag, config] : c.config().items()) {
    const auto it = table().find(letters(tag));
    if (it == table().end()) throw Error(ErrorCode::unsupported, fmt::format("unknown op '{}'", tag));
    const ErrorContext context(tag);
    Tensor y;
    {
      const auto scope = c.tape().record();
      y = it->second({c, tag, config});
    }
    c.out(tag + ".y", y);
    c.backward({{y, "loss_cotangent." + tag}});
  }
}

void run_adamw(Case& c) {
  c.tolerance("out.", 1e-5);
  for (const auto& [tag, config] : c.config().items()) {
    if (const auto max_norm = optional_field<float>(config, "max_norm")) {
      // Clipping: the scale of all gradients together.
      std::vector<std::pair<std::string, Shape>> layout;
      for (int i = 0; c.has_in(fmt::format("{}.g{}", tag, i)); ++i) {
        layout.emplace_back(fmt::format("g{}", i), c.in(fmt::format("{}.g{}", tag, i)).shape());
      }
      const Arena arena(c.device(), layout);
      for (size_t i = 0; i < arena.size(); ++i) op::accumulate(arena[i], c.in(fmt::format("{}.g{}", tag, i)));
      const Tensor norm = global_norm(arena.flat());
      scale_inplace(arena.flat(), clip_scale(norm, *max_norm));
      c.out(tag + ".norm", norm);
      for (size_t i = 0; i < arena.size(); ++i) c.out(fmt::format("{}.g{}", tag, i), arena[i]);
      continue;
    }
    const auto betas = field(config, "betas", std::vector<double>{0.9, 0.999});
    const AdamWOptions o{field(config, "lr", 1e-3), betas.front(), betas.back(), field(config, "eps", 1e-8),
                         field(config, "weight_decay", 0.01)};
    std::vector<std::pair<std::string, Shape>> layout;
    for (const std::string& name : c.weight_names(tag + "."))
      layout.emplace_back(name, c.weight_shape(tag + "." + name));
    const Arena p(c.device(), layout), g(c.device(), layout), m(c.device(), layout), v(c.device(), layout);
    for (size_t i = 0; i < layout.size(); ++i) op::accumulate(p[i], c.weight(tag + "." + layout[i].first));
    const int64_t steps = required<int64_t>(config, "steps");
    for (int64_t step = 1; step <= steps; ++step) {
      g.flat().fill_zero();
      for (size_t i = 0; i < layout.size(); ++i) {
        const Tensor all = c.in(tag + ".grads." + layout[i].first);
        op::accumulate(g[i], op::contiguous(all.slice(0, step - 1, 1)).view(layout[i].second));
      }
      adamw(p.flat(), g.flat(), m.flat(), v.flat(), o, step);
      for (size_t i = 0; i < layout.size(); ++i) {
        const std::string name = fmt::format("{}.step{}.{}", tag, step, layout[i].first);
        if (c.file().has("out." + name)) c.out(name, p[i]);
      }
    }
    for (size_t i = 0; i < layout.size(); ++i) {
      c.out(fmt::format("{}.exp_avg.{}", tag, layout[i].first), m[i]);
      c.out(fmt::format("{}.exp_avg_sq.{}", tag, layout[i].first), v[i]);
    }
  }
}

}  // namespace vkflux::verify
