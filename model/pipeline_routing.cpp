// The routed side of a run: decisions before its first step, reports after every step.
#include <fmt/format.h>

#include "model/pipeline.h"
#include "vk/error.h"

namespace vkflux {

void Pipeline::install_students(const std::string& path) {
  auto students = std::make_unique<Students>(load_students(device_, path, student_model(Flux1(flux_))));
  if (transformer_) {
    const int64_t layers = flux_.depth + flux_.depth_single;
    for (int64_t i = 0; i < layers; ++i) {
      transformer_->attention().set(static_cast<int>(i), AttentionKind::hkr, nullptr);
    }
    install(*students, transformer_->attention());
  }
  students_ = std::move(students);
}

GenerateJob::~GenerateJob() {
  if (transformer_ && request_.tap) transformer_->attention().remove_tap(request_.tap);
}

std::vector<RoutePlan> GenerateJob::plan_routes() {
  if (!request_.router) return {};
  const Flux1Config& c = pipeline_.transformer_config();
  std::vector<RouteInput> inputs;
  for (size_t i = 0; i + 1 < levels_.size(); ++i) {
    inputs.push_back({levels_[i], result_.cfg, result_.width, result_.height});
  }
  decisions_ = request_.router->plan(inputs, request_.route_seed.value_or(request_.seed));
  if (decisions_.size() != inputs.size()) {
    throw Error(ErrorCode::internal,
                fmt::format("the router decided {} of {} steps", decisions_.size(), inputs.size()));
  }
  std::vector<RoutePlan> plans;
  for (const RouteDecision& d : decisions_) {
    if (static_cast<int64_t>(d.student.size()) != c.depth_single) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the router decides about {} single blocks, but this transformer has {}",
                              d.student.size(), c.depth_single));
    }
    plans.push_back(route_plan(d, c.depth));
  }
  return plans;
}

void GenerateJob::denoise_routed() {
  AttentionBank& bank = transformer_->attention();
  const RoutePlan before = bank.plan();
  if (!decisions_.empty() && result_.reports.empty()) bank.pardon();
  const double flops = pipeline_.device().stream().counters().flops;
  denoiser_->step();
  report_step(flops);
  if (!decisions_.empty()) bank.route(before);
}

void GenerateJob::report_step(double flops_before) {
  AttentionBank& bank = transformer_->attention();
  const Flux1Config& c = pipeline_.transformer_config();
  StepReport r;
  r.index = denoiser_->step_index() - 1;
  r.sigma = levels_[static_cast<size_t>(r.index)];
  r.flops = pipeline_.device().stream().counters().flops - flops_before;
  const int64_t unit = pipeline_.pixels_per_token();
  const AttentionShape shape{images_, c.heads, pipeline_.defaults().txt_tokens,
                             result_.width / unit * (result_.height / unit), c.head_dim};
  const double passes = result_.cfg == 1 ? 1 : 2;
  const double full = passes * bank.find(0, AttentionKind::full)->cost(shape).flops;
  const std::vector<ServedLayer>& served = bank.served();
  for (size_t i = 0; i < served.size(); ++i) {
    r.full_attention_flops += full;
    const AttentionKind kind = served[i].kind;
    Attention* strategy = bank.find(static_cast<int>(i), kind);
    r.attention_flops += kind == AttentionKind::full ? full : passes * strategy->cost(shape).flops;
    const int block = static_cast<int>(static_cast<int64_t>(i) - c.depth);
    if (kind != AttentionKind::full) r.student.push_back(block);
    if (!served[i].refusal.empty()) r.refused.push_back({block, served[i].refusal});
  }
  if (!decisions_.empty()) {
    const RouteDecision& d = decisions_[static_cast<size_t>(r.index)];
    r.routed = true;
    r.threshold = d.threshold;
    for (size_t i = 0; i < d.student.size(); ++i) {
      if (d.student[i]) r.planned.push_back(static_cast<int>(i));
    }
  }
  result_.reports.push_back(std::move(r));
}

}  // namespace vkflux
