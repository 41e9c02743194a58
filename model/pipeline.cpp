#include "model/pipeline.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <tuple>

#include "model/model_files.h"
#include "vk/error.h"

namespace vkflux {
namespace {

// Whether two requests take the same memory.
bool same_memory(const GenerateRequest& a, const GenerateRequest& b) {
  const auto key = [](const GenerateRequest& r) {
    return std::tuple(r.width, r.height, r.steps, r.levels.size(), r.prompts.size(), r.batch,
                      r.cfg.value_or(0), r.init.has_value(), r.replay);
  };
  return key(a) == key(b);
}

}  // namespace

std::unique_ptr<Pipeline> Pipeline::load(Device& device, const std::string& dir,
                                         const ModelOptions& options) {
  const ErrorContext context(dir);
  const FoundModel found = find_model(dir, options);
  if (options.remark)
    for (const std::string& remark : found.files.remarks) options.remark(remark);
  return std::make_unique<Pipeline>(device, found.family->open(device, found.files, options), options);
}

void Pipeline::install_students(const std::string& path) {
  students_ = std::make_unique<Students>(load_students(device_, path, info().layout));
}

std::shared_ptr<Backbone> Pipeline::backbone() {
  adapt(PlanPhase::denoise);
  std::shared_ptr<Backbone> backbone = model_->backbone();
  if (students_) install(*students_, backbone->attention());
  return backbone;
}

std::unique_ptr<GenerateJob> Pipeline::generate(GenerateRequest request) {
  plan(request);
  return std::make_unique<GenerateJob>(device_, *this, std::move(request));
}

std::shared_ptr<LatentCodec> Pipeline::codec() {
  adapt(PlanPhase::decode);
  return model_->codec();
}

const MemoryPlan& Pipeline::plan(const GenerateRequest& request, uint64_t reserve) {
  const uint64_t usable = usable_bytes(device_);
  if (planned_ && same_memory(*planned_, request) && plan_.budget <= usable) return plan_;
  planned_ = request;
  reserve_ = reserve;
  planned_->router = nullptr;
  planned_->tap = nullptr;
  make_plan(usable);
  return plan_;
}

MemoryPlan Pipeline::planned_for(const GenerateRequest& request) {
  return search(request, usable_bytes(device_));
}

MemoryPlan Pipeline::search(const GenerateRequest& request, uint64_t budget) {
  PlanWish wish;
  wish.budget = budget;
  wish.others = device_.pool().usage().used - model_->held_bytes() + reserve_;
  wish.tiling = options_.tiling;
  wish.tile = options_.tile;
  return vkflux::make_plan(device_, *this, request, wish);
}

void Pipeline::make_plan(uint64_t budget) {
  if (parts().empty()) return;
  plan_ = search(*planned_, budget);
  const bool given = device_.pool().usage().budget != 0;
  if (!plan_.fits) {
    const std::string text =
        fmt::format("the picture doesn't fit {} of device memory: {}", bytes_text(budget), plan_.problem);
    if (given) throw Error(ErrorCode::out_of_device_memory, text);
    spdlog::warn("{}\n--vram says how much there is, where the driver tells too little", text);
  }
  model_->set_residency(plan_.residency);
}

// Other programs may have taken memory since the plan was made. What a phase before left in blocks is given
// back, since nobody else could use it.
void Pipeline::adapt(PlanPhase phase) {
  if (!planned_ || device_.rehearsing() || parts().empty()) return;
  const uint64_t usable = usable_bytes(device_);
  if (device_.pool().usage().reserved > usable / 2) device_.pool().trim();
  if (plan_.fits && plan_.reserved(phase) > usable) make_plan(usable);
}

}  // namespace vkflux
