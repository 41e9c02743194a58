#include "model/pipeline.h"

#include "vk/error.h"

namespace vkflux {

std::unique_ptr<Pipeline> Pipeline::load(Device& device, const std::string& dir,
                                         const ModelOptions& options) {
  const ErrorContext context(dir);
  const FoundModel found = find_model(dir, options);
  if (options.remark)
    for (const std::string& remark : found.files.remarks) options.remark(remark);
  return std::make_unique<Pipeline>(device, found.family->open(device, found.files, options));
}

void Pipeline::install_students(const std::string& path) {
  students_ = std::make_unique<Students>(load_students(device_, path, info().layout));
}

std::shared_ptr<Backbone> Pipeline::backbone() {
  std::shared_ptr<Backbone> backbone = model_->backbone();
  if (students_) install(*students_, backbone->attention());
  return backbone;
}

std::unique_ptr<GenerateJob> Pipeline::generate(GenerateRequest request) {
  return std::make_unique<GenerateJob>(device_, *this, std::move(request));
}

}  // namespace vkflux
