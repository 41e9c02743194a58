// The table of who answers an attention call, played through the product: a bank with students, a run, and in
// training mode a distiller that watches it.
#include <algorithm>
#include <memory>

#include "app/verify/case.h"
#include "app/verify/host_options.h"
#include "app/verify/table_check.h"
#include "autograd/ops.h"
#include "model/attention/run.h"
#include "model/routing/router.h"
#include "train/distill/distiller.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;

constexpr int64_t kKeys = 4, kHeadDim = 16;             // of the table's calls, with one picture and one head
constexpr int64_t kLeastBlocks = 8, kMostBlocks = 256;  // of each kind

BackboneLayout table_layout(int64_t blocks) {
  BackboneLayout layout;
  layout.family = "table";
  for (const char* kind : {"double", "single"}) {
    for (int64_t i = 0; i < blocks; ++i)
      layout.layers.push_back({fmt::format("{}_blocks.{}", kind, i), 1, kHeadDim, kind[0] == 's'});
  }
  return layout;
}

/// A student that counts its calls, and fails when the row wants that.
class CountedStudent final : public Attention {
 public:
  CountedStudent(std::shared_ptr<Attention> student, bool fails, int& calls)
      : student_(std::move(student)), fails_(fails), calls_(calls) {}
  Tensor forward(const AttentionCall& call) override {
    ++calls_;
    if (fails_) throw Error(ErrorCode::invalid_argument, "the row wants the student to fail");
    return student_->forward(call);
  }
  std::string refusal(const AttentionShape& shape) const override { return student_->refusal(shape); }
  Cost cost(const AttentionShape& shape) const override { return student_->cost(shape); }

 private:
  std::shared_ptr<Attention> student_;
  bool fails_;
  int& calls_;
};

/// Counts the calls of full attention and remembers whose answer came back.
class CallCounter final : public AttentionTap {
 public:
  explicit CallCounter(AttentionTap* trainer) : trainer_(trainer) {}
  bool wants_full(const AttentionCall& call) override { return trainer_ && trainer_->wants_full(call); }
  void taught(const AttentionCall& call, const Tensor& full) override {
    taught_ = true;
    trainer_->taught(call, full);
  }
  void observe(const AttentionCall&, const Served& served, const Tensor&) override { kind_ = served.kind; }
  bool full() const { return kind_ == AttentionKind::full; }
  int full_calls() const { return taught_ || full() ? 1 : 0; }

 private:
  AttentionTap* trainer_;
  bool taught_ = false;
  AttentionKind kind_ = AttentionKind::full;
};

/// What a host's mask over the single blocks asks for: full attention above the threshold, and where the mask
/// says nothing.
RoutePlan plan_of(const Json& row, const BackboneLayout& layout) {
  RouteDecision decision;
  const auto blocks = static_cast<size_t>(layout.replaceable().size());
  decision.student.assign(blocks, 1);
  const Json ttr = object_field(row, "ttr");
  if (optional_field<Json>(ttr, "controller_mask_override")) {
    const auto mask =
        host_route_mask(io::Json(ttr["controller_mask_override"])).value_or(std::vector<float>());
    const double threshold = host_threshold(io::Json(ttr.value("controller_threshold", Json())));
    for (size_t l = 0; l < blocks; ++l)
      decision.student[l] = l < mask.size() && static_cast<double>(mask[l]) <= threshold;
  }
  return route_plan(decision, layout);
}

Students students_of(const Json& row, const Students& made) {
  Students out = made;
  out.max_safe_loss = field(row, "max_safe_inference_loss", out.max_safe_loss);
  for (auto& [name, student] : out.layers) {
    Readiness& r = student->readiness;
    r.updates = r.criteria.min_updates;
    r.ema_cosine_dist = required<bool>(row, "ready") ? 0.0 : 1.0;
    r.refresh();
    if (row.contains("last_loss")) student->last_loss = number_or_nan(row["last_loss"]);
  }
  return out;
}

Json route(Device& device, const Json& row) {
  const CallOptions options{io::Json(row.value("options", Json()))};
  const int64_t index = options.block_index().value_or(0),
                blocks = std::clamp(index + 1, kLeastBlocks, kMostBlocks);
  const BackboneLayout layout = table_layout(blocks);
  DistillOptions settings;
  settings.settings.feature_dim = 32;
  settings.settings.layer_start = field(row, "layer_start", int64_t{-1});
  settings.settings.layer_end = field(row, "layer_end", int64_t{-1});
  settings.settings.preview = field(row, "training_preview_ttr", true);
  settings.settings.min_swap_layers = settings.settings.max_swap_layers =
      field(row, "in_swap_set", true) ? blocks : 0;
  AttentionBank bank(layout.layers);
  Distiller distiller(device, layout, settings);
  const bool training = field(row, "training_mode", false);
  if (!field(row, "training_enabled", true)) distiller.set_total_updates(0);
  if (const auto left = optional_field<int64_t>(row, "steps_remaining")) distiller.set_total_updates(*left);
  RoutePlan plan = plan_of(row, layout);
  const Students students = students_of(row, distiller.students());
  if (training) {
    distiller.attach(bank);
    plan = distiller.begin_step(0, 1);
  } else {
    install(students, bank);
  }
  const int64_t block = std::clamp<int64_t>(index, 0, blocks - 1);
  const auto layer = static_cast<int>(block + (options.is_single() ? blocks : 0));
  int student_calls = 0;
  if (auto student = bank.find(layer, AttentionKind::hkr)) {
    bank.set(layer, AttentionKind::hkr,
             std::make_shared<CountedStudent>(student, field(row, "student_raises", false), student_calls));
  }
  TokenLayout tokens;
  tokens.image = kKeys;
  bool usable = true;
  if (const auto mask_shape = optional_field<std::vector<int64_t>>(row, "mask_shape")) {
    const std::vector<int64_t>& shape = *mask_shape;
    usable = key_mask_supported(shape, 1, kKeys);
    const Shape dims(shape);
    const std::vector<uint8_t> keep(static_cast<size_t>(dims.numel()), 1);
    tokens.key_mask = Tensor::from(device, std::span<const uint8_t>(keep), dims);
    if (usable) tokens.key_mask = tokens.key_mask.view({1, kKeys});
  }
  CallCounter counter(training ? &distiller : nullptr);
  AttentionRun run(device, bank, {&counter});
  StepInfo step;
  step.sigma = 1;
  const Tensor x = op::normal(device, {1, 1, kKeys, kHeadDim}, 1, 0);
  run.step(plan, [&] {
    const AttentionPass pass = run.pass(1, tokens);
    // Full attention takes no such mask either: only the decision is asked for.
    return usable ? pass.forward({x, x, x, tokens, layer, step}) : x;
  });
  const int64_t before = distiller.updates_done();
  distiller.end_step();
  const bool full =
      usable ? counter.full() : run.served()[static_cast<size_t>(layer)].kind == AttentionKind::full;
  return {{"path", full ? "teacher" : "student"},
          {"teacher_calls", usable ? counter.full_calls() : full},
          {"student_calls", student_calls},
          {"train_calls", distiller.updates_done() - before}};
}

}  // namespace

void run_ttr_routing(Device& device, const Json& file, Report& report) {
  run_rows(
      "routing", list_field(file, "rows"), [&](const Json& row) { return route(device, row); }, report);
}

}  // namespace vkflux::verify
