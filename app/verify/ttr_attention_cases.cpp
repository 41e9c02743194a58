// Golden cases of the HKR layer: its embedding, landmarks, branches, blend, and the teacher's attention.
#include <fmt/format.h>

#include <cmath>

#include "app/verify/case.h"
#include "autograd/ops.h"
#include "model/attention/hkr/hkr.h"
#include "model/attention/hkr/scalar_embedding.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using nlohmann::json;

constexpr double kEmbeddingTolerance = 1e-4;
constexpr int64_t kPhiShown = 64;  // features that the files keep

// Options by the reference's names; what isn't named keeps its value.
void read_options(const json& j, HkrOptions& o) {
  LandmarkOptions& l = o.landmarks;
  l.fraction = field(j, "landmark_fraction", l.fraction);
  l.min = field(j, "landmark_min", l.min);
  l.max = field(j, "landmark_max", l.max);
  l.text_tokens_guess = field(j, "text_tokens_guess", l.text_tokens_guess);
  l.qk_norm = field(j, "landmark_qk_norm", l.qk_norm);
  o.alpha_max = field(j, "alpha_max", o.alpha_max);
  o.gamma = field(j, "gamma", o.gamma);
  o.eps = field(j, "eps", o.eps);
  o.adaptive = field(j, "adaptive_alpha", o.adaptive);
  o.feature_norm = field(j, "qk_norm", o.feature_norm);
  for (const char* key : {"q_chunk", "query_chunk_size"}) o.query_chunk = field(j, key, o.query_chunk);
  for (const char* key : {"k_chunk", "key_chunk_size"}) o.key_chunk = field(j, key, o.key_chunk);
}

json sub_cases(const Case& c) {
  return field(c.config(), "sub_cases", c.config());
}

// The options of a sub-case of the file: those of all, then its own.
HkrOptions options_of(const Case& c, const json& sub) {
  HkrOptions o;
  // Without a table of sub-cases the config is one, and its keys are their tags.
  const json all = optional_field<json>(c.config(), "sub_cases") ? c.config() : json::object();
  for (const json& part :
       {all, object_field(all, "defaults"), sub, object_field(sub, "layer"), object_field(sub, "kw")})
    read_options(part, o);
  return o;
}

// Sub-cases may be described by more than options, and by nothing at all.
template <class Fn>
void each_sub_case(const Case& c, Fn fn) {
  const json all = sub_cases(c);
  for (const auto& [tag, sub] : all.items()) {
    if (!sub.is_object() || !c.has_in(tag + ".q")) continue;
    const ErrorContext context(tag);
    fn(tag, sub);
  }
}

// What weight `name` is in one sub-case: the same memory under an own id, for gradients per sub-case.
Tensor weight_of(Case& c, const std::string& tag, const std::string& name) {
  const Tensor leaf = c.weight(name).alias();
  c.watch("grad." + tag + "." + name, leaf);
  return leaf;
}

HkrFeatures features_of(Case& c, const HkrConfig& config, const std::string& tag, const std::string& net) {
  HkrFeatures phi(config);
  for (const Param& p : parameters(phi, "kernel." + net + ".")) *p.tensor = weight_of(c, tag, p.name);
  return phi;
}

// Of the feature networks alone: a file may hold nothing else of a layer.
HkrConfig config_of(const Case& c) {
  const std::string net = "kernel.phi_net_q.";
  HkrConfig config;
  config.layers = c.has_weight(net + "4.weight") ? 3 : 2;
  const Shape first = c.weight_shape(net + "0.weight"),
              last = c.weight_shape(fmt::format("{}{}.weight", net, 2 * (config.layers - 1)));
  config.head_dim = first[-1], config.hidden = first[0], config.feature_dim = last[0];
  return config;
}

Tensor mask_of(Case& c, const std::string& tag) {
  const Tensor k = c.in(tag + ".k");
  for (const char* name : {".key_mask", ".mask"}) {
    if (c.has_in(tag + name)) return c.key_mask(tag + name, k.dim(0), k.dim(2));
  }
  return {};
}

std::vector<uint8_t> any_row(const std::vector<uint8_t>& mask, size_t keys) {
  std::vector<uint8_t> valid(keys, 0);
  for (size_t i = 0; i < mask.size(); ++i) valid[i % keys] |= mask[i];
  return valid;
}

std::vector<int32_t> landmark_indices(const Tensor& k, const Tensor& mask, int64_t conditioning,
                                      const LandmarkOptions& o) {
  std::vector<uint8_t> valid;
  if (mask.defined()) valid = any_row(mask.to_host_bytes(), static_cast<size_t>(k.dim(2)));
  return select_landmarks(k.dim(2), conditioning, o, valid);
}

void out_landmarks(Case& c, const std::string& tag, const std::vector<int32_t>& index) {
  const std::string name = tag + ".landmarks";
  if (!c.file().has("out." + name)) return;
  c.tolerance("out." + name, 0);
  c.out(name, std::vector<float>(index.begin(), index.end()));
}

Tensor shown(const Tensor& phi) {
  return phi.slice(3, 0, std::min(kPhiShown, phi.dim(3)));
}

}  // namespace

void run_ttr_scalar_embedding(Case& c) {
  c.tolerance("out.", kEmbeddingTolerance, true);
  const std::vector<float> xs = c.in("x").to_host();
  for (const auto& [tag, sub] : c.config().items()) {
    const auto requested = required<int64_t>(sub, "requested");
    std::vector<float> all;
    for (const float x : xs) {
      const std::vector<float> e = scalar_embedding(x, requested);
      all.insert(all.end(), e.begin(), e.end());
    }
    if (c.file().has("out." + tag + ".f32")) c.out(tag + ".f32", all);
    c.out(tag, std::move(all));
  }
}

void run_ttr_kernel(Case& c) {
  const HkrConfig config = config_of(c);
  each_sub_case(c, [&](const std::string& tag, const json& sub) {
    const HkrOptions o = options_of(c, sub);
    const HkrFeatures phi_q = features_of(c, config, tag, "phi_net_q");
    const bool shared = tag.find("shared") != std::string::npos || !field(sub, "split_qk", true);
    HkrFeatures phi_k = phi_q;
    if (shared) {
      // The file may name the shared network's gradients either way.
      for (const Param& p : parameters(phi_k, "kernel.phi_net_k."))
        c.watch("grad." + tag + "." + p.name, *p.tensor);
    } else {
      phi_k = features_of(c, config, tag, "phi_net_k");
    }
    const Tensor q = c.in(tag + ".q"), k = c.in(tag + ".k"), v = c.in(tag + ".v");
    KernelBranch r;
    {
      const auto scope = c.tape().record();
      r = kernel_regression(phi_q, phi_k, q, k, v, mask_of(c, tag), o);
    }
    c.out(tag + ".y", r.out);
    if (c.file().has("out." + tag + ".den_min"))
      c.out(tag + ".den_min", std::vector<float>{std::max(r.den_min.item(), o.eps)});
    c.mid(tag + ".phi_q", shown(phi_q(q, o)));
    c.mid(tag + ".phi_k", shown(phi_k(k, o)));
    c.backward({{r.out, "loss_cotangent." + tag}});
  });
}

void run_ttr_landmark_branch(Case& c) {
  each_sub_case(c, [&](const std::string& tag, const json& sub) {
    const HkrOptions o = options_of(c, sub);
    const Tensor q = c.in(tag + ".q"), k = c.in(tag + ".k"), v = c.in(tag + ".v");
    const Tensor mask = mask_of(c, tag);
    const int64_t t = conditioning_tokens(k.dim(2), optional_field<int64_t>(sub, "cond"),
                                          optional_field<int64_t>(sub, "text"), o.landmarks);
    out_landmarks(c, tag, landmark_indices(k, mask, t, o.landmarks));
    Tensor y;
    {
      const auto scope = c.tape().record();
      y = landmark_attention(q, k, v, landmarks_of(k, mask, t, o.landmarks), o);
    }
    c.out(tag + ".y", y);
    c.backward({{y, "loss_cotangent." + tag}});
  });
}

void run_ttr_layer(Case& c) {
  const HkrConfig config = config_of(c);
  each_sub_case(c, [&](const std::string& tag, const json& sub) {
    const HkrOptions o = options_of(c, sub);
    HkrLayer layer(config, o);
    for (const Param& p : parameters(layer)) *p.tensor = weight_of(c, tag, p.name);
    HkrCall call{c.in(tag + ".q"),
                 c.in(tag + ".k"),
                 c.in(tag + ".v"),
                 mask_of(c, tag),
                 {optional_field<int64_t>(sub, "conditioning_token_count"),
                  optional_field<int64_t>(sub, "text_token_count"), optional_field<double>(sub, "sigma"),
                  optional_field<double>(sub, "cfg_scale")}};
    const int64_t t =
        conditioning_tokens(call.k.dim(2), call.context.conditioning, call.context.text, o.landmarks);
    out_landmarks(c, tag, landmark_indices(call.k, call.key_mask, t, o.landmarks));
    HkrResult r;
    {
      const auto scope = c.tape().record();
      r = layer.forward(call);
    }
    c.out(tag + ".y", r.out);
    c.mid(tag + ".out_kernel", r.out_kernel);
    c.mid(tag + ".out_land", r.out_land);
    if (r.conditioner.defined()) c.mid(tag + ".conditioner", r.conditioner);
    c.mid(tag + ".gate_sigmoid", r.gate);
    c.backward({{r.out, "loss_cotangent." + tag}});
  });
}

void run_ttr_teacher_attention(Case& c) {
  each_sub_case(c, [&](const std::string& tag, const json&) {
    const Tensor q = c.in(tag + ".q"), k = c.in(tag + ".k"), v = c.in(tag + ".v");
    op::AttentionOptions o;
    if (const Tensor mask = mask_of(c, tag); mask.defined()) o.key_mask = safe_mask(mask);
    Tensor y;
    {
      const auto scope = c.tape().record();
      y = op::attention(q, k, v, o);
    }
    c.out(tag + ".y", y);
    c.backward({{y, "loss_cotangent." + tag}});
  });
}

namespace {

Check exact(const std::string& name, int64_t got, int64_t want) {
  const double error = std::fabs(static_cast<double>(got - want));
  return {name, error, 0, true, error == 0, ""};
}

// The file's list (whole, or its head, tail and hash) against ours. Slots in tie_slots may be off by one.
Check compare_indices(const std::string& name, const json& row, const std::vector<int32_t>& got) {
  Check check{name, 0, 0, true, true, ""};
  std::vector<bool> tie(got.size(), false);
  const auto slots = field(row, "tie_slots", std::vector<size_t>{});
  for (const size_t s : slots) {
    if (s < tie.size()) tie[s] = true;
  }
  const auto compare = [&](const std::vector<int32_t>& want, size_t first) {
    if (first + want.size() > got.size()) {
      check.passed = false;
      check.note = fmt::format("{} indices, more were expected", got.size());
      return;
    }
    for (size_t i = 0; i < want.size(); ++i) {
      const int off = std::abs(got[first + i] - want[i]);
      check.error = std::max(check.error, static_cast<double>(off));
      if (off > (tie[first + i] ? 1 : 0)) check.passed = false;
    }
  };
  if (const auto whole = optional_field<std::vector<int32_t>>(row, "indices")) {
    const std::vector<int32_t>& want = *whole;
    if (want.size() != got.size()) {
      check.passed = false;
      check.note = fmt::format("{} indices, {} expected", got.size(), want.size());
    }
    compare(want, 0);
    return check;
  }
  const auto head = required<std::vector<int32_t>>(row, "indices_head");
  const auto tail = required<std::vector<int32_t>>(row, "indices_tail");
  compare(head, 0);
  compare(tail, got.size() < tail.size() ? 0 : got.size() - tail.size());
  if (!slots.empty()) return check;
  uint32_t hash = 0;
  int64_t sum = 0;
  for (const int32_t i : got) {
    hash = hash * 1000003u + static_cast<uint32_t>(i);
    sum += i;
  }
  if (hash != required<uint32_t>(row, "indices_hash") || sum != required<int64_t>(row, "indices_sum")) {
    check.passed = false;
    check.note = "the list's hash or sum differs";
  }
  return check;
}

}  // namespace

namespace {

// Which keys a row of the mask keeps: a list for each picture, or one list.
std::vector<uint8_t> any_kept(const json& mask, size_t keys) {
  std::vector<uint8_t> valid(keys, 0);
  const json rows = mask.empty() || !mask.front().is_array() ? json::array({mask}) : mask;
  for (const json& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) valid.at(i) |= as_flag(row[i]).value_or(false);
  }
  return valid;
}

}  // namespace

void run_ttr_landmarks(Device&, const json& file, Report& report) {
  size_t index = 0;
  for (const json& row : list_field(file, "cases")) {
    const std::string name = fmt::format("landmarks[{}]", index++);
    HkrOptions o;
    read_options(row, o);
    const auto keys = required<int64_t>(row, "num_keys");
    const int64_t t = conditioning_tokens(keys, optional_field<int64_t>(row, "conditioning_token_count"),
                                          optional_field<int64_t>(row, "text_token_count"), o.landmarks);
    report.checks.push_back(
        exact(name + ".conditioning", t, required<int64_t>(row, "resolved_conditioning_count")));
    report.checks.push_back(exact(name + ".budget", landmark_budget(keys - t, o.landmarks),
                                  required<int64_t>(row, "effective_landmark_count")));
    std::vector<uint8_t> valid;
    if (const auto mask = optional_field<json>(row, "key_mask"))
      valid = any_kept(*mask, static_cast<size_t>(keys));
    const std::vector<int32_t> got = select_landmarks(keys, t, o.landmarks, valid);
    report.checks.push_back(
        exact(name + ".count", static_cast<int64_t>(got.size()), required<int64_t>(row, "count")));
    report.checks.push_back(compare_indices(name + ".indices", row, got));
  }
  for (const json& row : list_field(file, "training_query_indices")) {
    const auto n = required<int64_t>(row, "seq_len"), cap = required<int64_t>(row, "cap");
    const std::string name = fmt::format("queries[{} of {}]", cap, n);
    const std::vector<int32_t> got = select_training_queries(n, cap);
    if (row.contains("indices") && row["indices"].is_null()) {  // null: all
      bool all = static_cast<int64_t>(got.size()) == n;
      for (size_t i = 0; all && i < got.size(); ++i) all = got[i] == static_cast<int32_t>(i);
      report.checks.push_back({name, 0, 0, true, all, all ? "" : "all rows were expected"});
    } else {
      report.checks.push_back(compare_indices(name, row, got));
    }
  }
}

}  // namespace vkflux::verify
