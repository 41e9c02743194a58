#include "app/verify/flux_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "model/rope.h"
#include "model/sampler/run.h"

namespace vkflux::verify {

Tensor rope_of(Case& c, const Tensor& ids, const nlohmann::json& config, double theta) {
  const std::vector<float> host = ids.to_host();
  return rope_table(c.device(), host, ids.dim(0), required<std::vector<int64_t>>(config, "axes_dim"),
                    field(config, "theta", theta));
}

std::vector<float> rotation_matrices(const Tensor& table) {
  std::vector<float> out;
  const std::vector<float> t = table.to_host();
  for (size_t i = 0; i < t.size(); i += 2) out.insert(out.end(), {t[i], -t[i + 1], t[i + 1], t[i]});
  return out;
}

int64_t mlp_width(int64_t hidden, const nlohmann::json& j) {
  return static_cast<int64_t>(static_cast<double>(hidden) * required<double>(j, "mlp_ratio"));
}

std::vector<float> joined_ids(Case& c, const std::vector<std::string>& inputs) {
  const auto scope = Tape::pause();
  std::vector<Tensor> parts;
  for (const std::string& name : inputs) parts.push_back(c.in(name));
  return op::concat(parts, 1).to_host();
}

Conditioned::Conditioned(Case& c, Backbone& model) : Backbone(model.layout()), model_(model) {
  if (c.has_in("img_cond")) channels_ = c.in("img_cond");
  if (c.has_in("img_cond_seq")) tokens_ = c.in("img_cond_seq");
}

void Conditioned::prepare(PassInputs& in, std::span<const float> ids) {
  PassInputs whole = joined(in);
  model_.prepare(whole, ids);
  whole.x = in.x;
  in = whole;
}

Tensor Conditioned::finish(Pass& pass) {
  return op::clone(op::narrow(model_.finish(pass), 1, 0, count_));
}

std::unique_ptr<Pass> Conditioned::embed(const PassInputs& in, Trace* trace) {
  count_ = in.x.dim(1);
  PassInputs whole = joined(in);
  whole.attention = nullptr;  // the caller's begin() asks for it
  return model_.begin(whole, false, trace);
}

PassInputs Conditioned::joined(const PassInputs& in) const {
  PassInputs whole = in;
  if (channels_.defined()) whole.x = op::concat({whole.x, channels_}, 2);
  if (tokens_.defined()) whole.x = op::concat({whole.x, tokens_}, 1);
  return whole;
}

void check_trajectory(Case& c, Backbone& model, const Condition& condition,
                      const std::vector<std::string>& ids) {
  SamplingOptions options;
  options.levels = c.numbers("in.timesteps");
  std::vector<std::string> all = ids;
  if (c.has_in("img_cond_seq_ids")) all.push_back("img_cond_seq_ids");
  options.ids = joined_ids(c, all);
  options.guidance = field(c.config(), "guidance", 4.0f);  // of the reference
  Conditioned backbone(c, model);
  SamplingRun run(backbone, condition, {}, c.in("img"), options);
  c.tolerance("out.", 5e-4);
  c.tolerance("mid.", 5e-4);
  while (!run.finished()) {
    const int64_t i = run.step_index();
    c.mid(fmt::format("step.{}.img", i), run.x());
    run.step();
    c.mid(fmt::format("step.{}.pred", i), run.output());
  }
  c.out("img", run.x());
}

namespace {

// The sinusoids of time_factor * t: float32 angles alone cost as much as this for t = 1.
constexpr double kSinusoids = 3e-4;

/// One sub-case, whose tensors' names begin with `tag`.
void check_rope(Case& c, const std::string& tag, const nlohmann::json& config, double theta) {
  if (c.has_in(tag + "t")) {
    const Tensor t = c.in(tag + "t");
    const Tensor e =
        op::timestep_embedding(t, required<int64_t>(config, "dim"), field(config, "max_period", 10000.0f),
                               field(config, "time_factor", 1000.0f));
    double largest = 1;
    for (const float x : t.to_host()) largest = std::max(largest, std::fabs(static_cast<double>(x)));
    c.tolerance("out." + tag, kSinusoids * largest, true);
    c.out(tag + "emb", e);
    c.out(tag + "emb_f32", e);
    return;
  }
  const Tensor table = rope_of(c, c.in(tag + "ids"), config, theta);
  c.tolerance("out." + tag + "pe", kRopeTolerance, true);
  c.out(tag + "pe", rotation_matrices(table));
  std::vector<std::pair<Tensor, std::string>> turned;
  for (const char* name : {"q", "k"}) {
    if (!c.has_in(tag + name)) continue;
    const auto scope = c.tape().record();
    turned.emplace_back(op::rope(c.in(tag + name), table), "loss_cotangent." + tag + name);
  }
  for (const auto& [y, cotangent] : turned) c.out(cotangent.substr(cotangent.find('.') + 1), y);
  if (!turned.empty()) c.backward(turned);
}

}  // namespace

void check_rope(Case& c, double theta) {
  if (c.has_in("ids")) return check_rope(c, "", c.config(), theta);
  for (const auto& [tag, config] : c.config().items()) check_rope(c, tag + ".", config, theta);
}

}  // namespace vkflux::verify
