#include "model/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "vk/error.h"
#include "vk/rehearsal.h"

namespace vkflux {
namespace {

/// The model as a job sees it, noting which phase it is in.
class Watched final : public Model {
 public:
  Watched(Device& device, Model& model, MemoryPlan& plan) : device_(device), model_(model), plan_(plan) {}

  const ModelInfo& info() const override { return model_.info(); }
  std::shared_ptr<Backbone> backbone() override {
    enter(PlanPhase::denoise);
    return model_.backbone();
  }
  std::shared_ptr<LatentCodec> codec() override {
    enter(phase_ >= PlanPhase::denoise ? PlanPhase::decode : PlanPhase::encode_picture);
    return model_.codec();
  }
  Condition encode(const std::vector<std::string>& prompts) override {
    enter(PlanPhase::encode);
    return model_.encode(prompts);
  }
  PlanPhase phase() const { return phase_; }
  /// The phase's peak is complete.
  void close() {
    if (!open_) return;
    const MemoryUsage u = device_.pool().usage();
    plan_.phases.push_back({phase_, u.peak, u.peak_reserved});
    open_ = false;
  }

 private:
  void enter(PlanPhase phase) {
    if (open_ && phase == phase_) return;
    close();
    device_.pool().reset_peak();
    phase_ = phase;
    open_ = true;
  }

  Device& device_;
  Model& model_;
  MemoryPlan& plan_;
  PlanPhase phase_ = PlanPhase::encode;
  bool open_ = false;
};

// The same work in fewer steps: after the third nothing new happens.
GenerateRequest shortened(const Model& model, GenerateRequest r) {
  constexpr int64_t kSteps = 4;
  if (r.steps == 0) r.steps = model.info().defaults.steps;
  if (!r.levels.empty()) r.steps = static_cast<int64_t>(r.levels.size()) - 1;
  r.levels.clear();
  r.steps = std::min(r.steps, kSteps);
  r.strength = 1;
  r.router = nullptr;
  r.tap = nullptr;
  r.preview = nullptr;
  return r;
}

/// Finds a way of holding a model that fits.
class Search {
 public:
  Search(Device& device, Model& model, const GenerateRequest& request, const PlanWish& wish)
      : device_(device), model_(model), request_(request), wish_(wish), parts_(model.parts()) {
    held_ = model.residency();
    held_.tiling = wish.tiling == TilingWish::always ? usual() : Tiling{};
    for (auto& [name, part] : held_.parts) part.streams.clear();
  }

  MemoryPlan run() {
    MemoryPlan plan = attempt(PlanPhase::decode);
    while (!plan.fits && !parts_.empty()) {
      if (!relieve(plan.phases.empty() ? PlanPhase::encode : plan.phases.back().phase)) return plan;
      plan = attempt(PlanPhase::decode);
    }
    return plan;
  }

 private:
  MemoryPlan attempt(PlanPhase until) const {
    return rehearse(device_, model_, request_, held_, wish_, until);
  }
  Tiling usual() const {
    Tiling t = wish_.tile;
    if (t.on()) return t;
    constexpr int64_t kCells = 64;
    t.rows = t.columns = kCells / coarseness();
    return t;
  }
  /// How much larger a cell is than FLUX.1's, whose cells the numbers of tiles are made for.
  int64_t coarseness() const { return std::max<int64_t>(1, model_.info().pixels_per_cell / 8); }

  // One thing less on the device in this phase; false: there is nothing more.
  bool relieve(PlanPhase phase) {
    for (const ModelPart& p : by_use()) {
      PartResidency& held = held_.parts[p.name];
      if (!held.stays || works_in(p, phase)) continue;
      held.stays = false;
      return true;
    }
    if (phase == PlanPhase::encode_picture || phase == PlanPhase::decode) return tile(phase);
    for (const ModelPart& p : by_use()) {
      if (works_in(p, phase) && !p.layers.empty() && held_.parts[p.name].streams.empty())
        return stream(p, phase);
    }
    for (const ModelPart& p : by_use()) {
      PartResidency& held = held_.parts[p.name];
      if (!held.stays) continue;
      held.stays = false;
      return true;
    }
    return false;
  }
  // Those that are used seldom first.
  std::vector<ModelPart> by_use() const {
    std::vector<ModelPart> out = parts_;
    std::stable_sort(out.begin(), out.end(), [](const ModelPart& a, const ModelPart& b) {
      return a.use != b.use ? a.use < b.use : a.bytes > b.bytes;
    });
    return out;
  }
  static bool works_in(const ModelPart& part, PlanPhase phase) {
    switch (part.use) {
      case PartUse::per_prompt:
        return phase == PlanPhase::encode;
      case PartUse::per_step:
        return phase == PlanPhase::denoise;
      case PartUse::per_picture:
        return phase == PlanPhase::decode || phase == PlanPhase::encode_picture;
    }
    return false;
  }
  // As few streamed layers as it takes.
  bool stream(const ModelPart& part, PlanPhase phase) {
    std::vector<bool>& streams = held_.parts[part.name].streams;
    const size_t n = part.layers.size();
    size_t fits = n, less = 0;
    while (fits - less > 1) {
      const size_t middle = (fits + less) / 2;
      streams = spread(n, middle);
      const MemoryPlan plan = attempt(phase);
      (plan.fits ? fits : less) = middle;
    }
    streams = spread(n, fits);
    return true;
  }
  // The largest tile that fits.
  bool tile(PlanPhase phase) {
    if (wish_.tiling == TilingWish::never || held_.tiling.on()) return false;
    held_.tiling = wish_.tile;
    if (wish_.tile.on()) return true;
    for (const int64_t cells : {96, 64, 48, 32, 24, 16, 12, 8}) {
      held_.tiling.rows = held_.tiling.columns = std::max<int64_t>(1, cells / coarseness());
      if (attempt(phase).fits) return true;
    }
    return true;
  }

  Device& device_;
  Model& model_;
  const GenerateRequest& request_;
  const PlanWish& wish_;
  std::vector<ModelPart> parts_;
  Residency held_;
};

}  // namespace

const char* name(PlanPhase phase) {
  constexpr std::array<const char*, kPlanPhases> names{"encode", "encode picture", "denoise", "decode"};
  return names[static_cast<size_t>(phase)];
}

std::string bytes_text(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1000 ? fmt::format("{:.0f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

uint64_t MemoryPlan::used() const {
  uint64_t most = 0;
  for (const PhasePeak& p : phases) most = std::max(most, p.used);
  return most;
}

uint64_t MemoryPlan::reserved(PlanPhase phase) const {
  const auto it =
      std::find_if(phases.begin(), phases.end(), [&](const PhasePeak& p) { return p.phase == phase; });
  return it == phases.end() ? 0 : it->reserved;
}

uint64_t MemoryPlan::reserved() const {
  uint64_t most = 0;
  for (const PhasePeak& p : phases) most = std::max(most, p.reserved);
  return most;
}

MemoryPlan rehearse(Device& device, Model& model, const GenerateRequest& request, const Residency& residency,
                    const PlanWish& wish, PlanPhase until) {
  MemoryPlan plan;
  plan.budget = wish.budget;
  plan.residency = residency;
  if (wish.budget && wish.budget <= wish.others) {
    plan.problem = "what isn't the model's takes all of it";
    return plan;
  }
  const Rehearsal rehearsal(device, wish.budget ? wish.budget - wish.others : 0);
  {
    const auto aside = model.set_aside();
    model.set_residency(residency);
    Watched watched(device, model, plan);
    try {
      GenerateJob job(device, watched, shortened(model, request));
      while (job.progress().phase != JobPhase::done && watched.phase() <= until) {
        if (job.progress().phase == JobPhase::decode && until < PlanPhase::decode) break;
        job.step();
      }
      plan.fits = true;
    } catch (const Error& e) {
      const bool codec = watched.phase() == PlanPhase::decode || watched.phase() == PlanPhase::encode_picture;
      if (e.code() != ErrorCode::out_of_device_memory && !(codec && e.code() == ErrorCode::unsupported))
        throw;
      plan.fits = watched.phase() > until;
      plan.problem = fmt::format("{}: {}", name(watched.phase()), e.what());
    }
    watched.close();
  }
  for (PhasePeak& p : plan.phases) {
    p.used += wish.others;
    p.reserved += wish.others;
  }
  return plan;
}

MemoryPlan make_plan(Device& device, Model& model, const GenerateRequest& request, const PlanWish& wish) {
  return Search(device, model, request, wish).run();
}

}  // namespace vkflux
