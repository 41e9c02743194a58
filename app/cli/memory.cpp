#include "app/cli/memory.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string held(const ModelPart& part, const PartResidency& r) {
  const int64_t streamed = r.streamed();
  if (streamed > 0)
    return fmt::format("{} of its {} layers pass through the device at every use", streamed,
                       part.layers.size());
  return r.stays ? "stays on the device" : "on the device while it is used";
}

}  // namespace

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const std::vector<ModelPart>& parts) {
  Json j{{"budget_bytes", plan.budget}, {"fits", plan.fits}};
  if (!plan.fits) j["problem"] = plan.problem;
  j["peak_bytes"] = plan.used();
  j["peak_block_bytes"] = plan.reserved();
  j["phases"] = Json::array();
  for (const PhasePeak& p : plan.phases)
    j["phases"].push_back(
        {{"phase", name(p.phase)}, {"peak_bytes", p.used}, {"peak_block_bytes", p.reserved}});
  j["parts"] = Json::array();
  for (const ModelPart& p : parts) {
    const PartResidency& r = plan.residency.parts.at(p.name);
    j["parts"].push_back({{"name", p.name},
                          {"bytes", p.bytes},
                          {"stays", r.stays},
                          {"layers", p.layers.size()},
                          {"streamed_layers", r.streamed()}});
  }
  const Tiling& t = plan.residency.tiling;
  j["tiles"] = t.on() ? Json{{"rows", t.rows}, {"columns", t.columns}, {"overlap", t.overlap}} : Json();
  return j;
}

std::string plan_text(const MemoryPlan& plan, const std::vector<ModelPart>& parts) {
  std::string out = fmt::format("device memory: {}\n", bytes_text(plan.budget));
  for (const PhasePeak& p : plan.phases)
    out += fmt::format("  {:<16}{:>10} in use, {:>10} in blocks\n", name(p.phase), bytes_text(p.used),
                       bytes_text(p.reserved));
  for (const ModelPart& p : parts) {
    out += fmt::format("  {:<16}{:>10}, {}\n", p.name, bytes_text(p.bytes),
                       held(p, plan.residency.parts.at(p.name)));
  }
  const Tiling& t = plan.residency.tiling;
  out += t.on() ? fmt::format("  pictures in tiles of {} x {} cells, {:.0f} % of each shared with the next\n",
                              t.rows, t.columns, 100 * t.overlap)
                : "  pictures in one piece\n";
  out += plan.fits ? "it fits" : "it doesn't fit: " + plan.problem;
  return out;
}

void hold_to_plan(Pipeline& pipeline, const GenerateRequest& request, uint64_t reserve) {
  if (pipeline.parts().empty()) return;
  const MemoryPlan& plan = pipeline.plan(request, reserve);
  spdlog::info("{}", plan_text(plan, pipeline.parts()));
  if (reserve > 0) spdlog::info("beside that {} for training", bytes_text(reserve));
}

}  // namespace vkflux::cli
