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

namespace vkflux {

/// A model with its students, and the pictures it draws.
class Pipeline final : public Model {
 public:
  /// A folder of any family in model/families.cpp.
  static std::unique_ptr<Pipeline> load(Device& device, const std::string& dir,
                                        const ModelOptions& options = {});
  Pipeline(Device& device, std::unique_ptr<Model> model) : device_(device), model_(std::move(model)) {}

  Device& device() const { return device_; }
  const ModelInfo& info() const override { return model_->info(); }

  /// Reads the students of this transformer's layers from a file of `vkflux distill`; they serve routed runs
  /// from now on, in place of earlier ones. Errors as in load_students().
  void install_students(const std::string& path);
  /// Null before install_students().
  const Students* students() const { return students_.get(); }

  /// Error invalid_argument for requests that can't be.
  std::unique_ptr<GenerateJob> generate(GenerateRequest request);

  /// The parts, loaded now unless they are here; the backbone has the installed students in its bank.
  std::shared_ptr<Backbone> backbone() override;
  std::shared_ptr<LatentCodec> codec() override { return model_->codec(); }
  /// Loads the text encoders, runs them, lets them go unless parts are kept. -> [prompts, ...]
  Condition encode(const std::vector<std::string>& prompts) override { return model_->encode(prompts); }
  std::string not_finite_in_encode(const std::vector<std::string>& prompts) override {
    return model_->not_finite_in_encode(prompts);
  }
  bool use_f32(ModelStage stage) override { return model_->use_f32(stage); }
  std::vector<TextCut> cuts(const std::vector<std::string>& prompts) const override {
    return model_->cuts(prompts);
  }

 private:
  Device& device_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Students> students_;
};

}  // namespace vkflux
