// Prompt to picture with a model of any family:
//
//   auto pipeline = Pipeline::load(device, "models/emoji");
//   auto job = pipeline->generate({.prompts = {"red apple"}});
//   while (job->step()) show(job->progress());
//   write(job->result().images[0]);
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/attention/hkr/students.h"
#include "model/generate_job.h"
#include "model/plan/plan.h"

namespace vkflux {

/// A model with its students, and the pictures it draws.
class Pipeline final : public Model {
 public:
  /// A folder of any family in model/families.cpp.
  static std::unique_ptr<Pipeline> load(Device& device, const std::string& dir,
                                        const ModelOptions& options = {});
  Pipeline(Device& device, std::unique_ptr<Model> model, const ModelOptions& options = {})
      : device_(device), model_(std::move(model)), options_(options) {}

  Device& device() const { return device_; }
  const ModelInfo& info() const override { return model_->info(); }

  /// Reads the students of this transformer's layers from a file of `vkflux distill`; they serve routed runs
  /// from now on, in place of earlier ones. Errors as in load_students().
  void install_students(const std::string& path);
  /// Null before install_students().
  const Students* students() const { return students_.get(); }

  /// Holds the model from now on so that the request fits the device's memory (model/plan/plan.h). The same
  /// plan serves requests of the same sizes, until other programs take memory. Error out_of_device_memory
  /// when nothing fits a budget that was given.
  const MemoryPlan& plan(const GenerateRequest& request, uint64_t reserve = 0);
  /// The same without holding to it, or a word about what doesn't fit.
  MemoryPlan planned_for(const GenerateRequest& request);
  /// Of the last request; without phases when the model isn't planned.
  const MemoryPlan& memory_plan() const { return plan_; }
  /// Plans and begins. Error invalid_argument for requests that can't be.
  std::unique_ptr<GenerateJob> generate(GenerateRequest request);

  /// The parts, loaded now unless they are here; the backbone has the installed students in its bank.
  std::shared_ptr<Backbone> backbone() override;
  std::shared_ptr<LatentCodec> codec() override;
  /// Loads the text encoders, runs them, lets them go unless parts are kept. -> [prompts, ...]
  Condition encode(const std::vector<std::string>& prompts) override { return model_->encode(prompts); }
  std::string not_finite_in_encode(const std::vector<std::string>& prompts) override {
    return model_->not_finite_in_encode(prompts);
  }
  bool use_f32(ModelStage stage) override { return model_->use_f32(stage); }
  std::vector<TextCut> cuts(const std::vector<std::string>& prompts) const override {
    return model_->cuts(prompts);
  }
  std::vector<ModelPart> parts() const override { return model_->parts(); }
  const Residency& residency() const override { return model_->residency(); }
  void set_residency(const Residency& residency) override { model_->set_residency(residency); }
  uint64_t held_bytes() const override { return model_->held_bytes(); }
  std::shared_ptr<void> set_aside() override { return model_->set_aside(); }

 private:
  void adapt(PlanPhase phase);
  MemoryPlan search(const GenerateRequest& request, uint64_t budget);
  void make_plan(uint64_t budget);

  Device& device_;
  std::unique_ptr<Model> model_;
  ModelOptions options_;
  std::unique_ptr<Students> students_;
  std::optional<GenerateRequest> planned_;  // what the plan is for
  MemoryPlan plan_;
  uint64_t reserve_ = 0;
};

}  // namespace vkflux
