// Golden cases of single ops: sub-cases are told by the letters of their tag ("linear3" is a linear).
#include <fmt/format.h>

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
  float number(const char* key, float fallback) const {
    return config.contains(key) && config[key].is_number() ? config[key].get<float>() : fallback;
  }
};

using SubFn = std::function<Tensor(const Sub&)>;

Tensor over_images(const Tensor& x, const std::function<Tensor(const Tensor&)>& fn) {
  return op::nhwc_to_nchw(fn(op::nchw_to_nhwc(x)));
}

Tensor conv(const Sub& s) {
  const int pad = static_cast<int>(s.number("padding", 0)),
            more = static_cast<int>(s.number("pad_right_bottom", 0));
  const op::ConvOptions o{static_cast<int>(s.number("stride", 1)), pad, pad, pad + more, pad + more};
  return over_images(s.in("x"),
                     [&](const Tensor& x) { return op::conv2d(x, s.weight("weight"), s.weight("bias"), o); });
}

Tensor sdpa(const Sub& s) {
  op::AttentionOptions o;
  o.scale = s.number("scale", 0);
  const Tensor q = s.in("q");
  if (s.c.has_in(s.tag + ".mask")) {
    const Tensor mask = s.in("mask");
    o.key_mask = mask.view({q.dim(0), mask.dim(-1)});
  }
  return op::attention(q, s.in("k"), s.in("v"), o);
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
         const auto size = s.config.at("size").get<std::vector<int64_t>>();
         return over_images(s.in("x"),
                            [&](const Tensor& x) { return op::resize_bilinear(x, size.at(0), size.at(1)); });
       }},
      {"smooth_l", [](const Sub& s) { return op::smooth_l1(s.in("x"), s.in("y"), s.number("beta", 1)); }},
      {"mse", [](const Sub& s) { return op::mse(s.in("x"), s.in("y")); }},
      {"cosine",
       [](const Sub& s) { return op::cosine_similarity(s.in("x"), s.in("y"), s.number("eps", 1e-8f)); }},
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
    if (config.contains("max_norm")) {
      // Clipping: the scale of all gradients together.
      std::vector<std::pair<std::string, Shape>> layout;
      for (int i = 0; c.has_in(fmt::format("{}.g{}", tag, i)); ++i) {
        layout.emplace_back(fmt::format("g{}", i), c.in(fmt::format("{}.g{}", tag, i)).shape());
      }
      const Arena arena(c.device(), layout);
      for (size_t i = 0; i < arena.size(); ++i) op::accumulate(arena[i], c.in(fmt::format("{}.g{}", tag, i)));
      const Tensor norm = global_norm(arena.flat());
      scale_inplace(arena.flat(), clip_scale(norm, config["max_norm"].get<float>()));
      c.out(tag + ".norm", norm);
      for (size_t i = 0; i < arena.size(); ++i) c.out(fmt::format("{}.g{}", tag, i), arena[i]);
      continue;
    }
    const auto betas = config.at("betas").get<std::vector<double>>();
    const AdamWOptions o{config.at("lr").get<double>(), betas.at(0), betas.at(1),
                         config.at("eps").get<double>(), config.at("weight_decay").get<double>()};
    std::vector<std::pair<std::string, Shape>> layout;
    for (const std::string& name : c.weight_names(tag + "."))
      layout.emplace_back(name, c.weight_shape(tag + "." + name));
    const Arena p(c.device(), layout), g(c.device(), layout), m(c.device(), layout), v(c.device(), layout);
    for (size_t i = 0; i < layout.size(); ++i) op::accumulate(p[i], c.weight(tag + "." + layout[i].first));
    const int64_t steps = config.at("steps").get<int64_t>();
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
