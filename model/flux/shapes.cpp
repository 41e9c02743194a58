#include "model/flux/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/flux/weights.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr std::array<std::string_view, 2> kNames{"flux1-dev", "flux1-schnell"};

/// The parameters of a module as a file that has no values.
class Shapes final : public io::TensorSource {
 public:
  Shapes(const std::string& name, const std::vector<Param>& params) : TensorSource(name) {
    for (const Param& p : params) {
      io::TensorInfo info;
      info.name = p.name;
      info.dtype = io::FileDType::bf16;
      info.shape.assign(p.shape.begin(), p.shape.end());
      info.end = 2 * static_cast<uint64_t>(p.shape.numel());
      tensors_.emplace(p.name, info);
    }
  }

 private:
  void read_range(const io::TensorInfo& tensor, uint64_t, std::span<std::byte>) const override {
    throw Error(ErrorCode::internal, path() + ": " + tensor.name + " has no values, only a shape");
  }
};

template <class Module, class Config>
std::shared_ptr<const io::NamedTensors> shapes_of_module(FluxPart part, const Config& config) {
  Module module(config);
  const auto source = std::make_shared<Shapes>(name(part), parameters(module));
  return {new io::NamedTensors(*source, {}), [source](const io::NamedTensors* named) { delete named; }};
}

class ShapesModel final : public Model {
 public:
  ShapesModel(Device& device, bool dev, const ModelOptions& options) {
    configs_.clip = ClipTextConfig();
    configs_.transformer.guidance = dev;
    info_.layout = flux1_layout(configs_.transformer);
    info_.pixels_per_cell = configs_.vae.factor();
    info_.schedule = dev ? Schedule::flux1_dev() : Schedule::flux1_schnell();
    if (!dev) info_.defaults.steps = 4;
    info_.defaults.txt_tokens = dev ? 512 : 256;
    const auto open = [this](FluxPart part, const io::NameTable&) { return shapes(part); };
    weights_ = std::make_unique<FluxWeights>(device, configs_, open,
                                             FluxWeights::Options{options.weights, {}, options.keep_parts});
  }

  const ModelInfo& info() const override { return info_; }
  std::shared_ptr<Backbone> backbone() override { return weights_->transformer(); }
  std::shared_ptr<LatentCodec> codec() override { return weights_->codec(); }
  Condition encode(const std::vector<std::string>& prompts) override {
    const auto ids = [&](int64_t length, int32_t id) {
      return TokenIds(prompts.size(), std::vector<int32_t>(static_cast<size_t>(length), id));
    };
    const auto eos = static_cast<int32_t>(configs_.clip.eos);
    const Tensor y = weights_->clip()->forward(ids(configs_.clip.positions, eos)).pooled;
    return {{"txt", weights_->t5()->forward(ids(info_.defaults.txt_tokens, 1))}, {"y", y}};
  }
  std::vector<ModelPart> parts() const override { return weights_->parts(); }
  const Residency& residency() const override { return weights_->residency(); }
  void set_residency(const Residency& r) override { weights_->set_residency(r); }
  std::shared_ptr<void> set_aside() override { return weights_->set_aside(); }

 private:
  std::shared_ptr<const io::NamedTensors> shapes(FluxPart part) const {
    switch (part) {
      case FluxPart::clip:
        return shapes_of_module<ClipText>(part, configs_.clip);
      case FluxPart::t5:
        return shapes_of_module<T5Encoder>(part, configs_.t5);
      case FluxPart::transformer:
        return shapes_of_module<Flux1>(part, configs_.transformer);
      case FluxPart::vae:
        break;
    }
    return shapes_of_module<AutoencoderKL>(part, configs_.vae);
  }

  FluxConfigs configs_;
  ModelInfo info_;
  std::unique_ptr<FluxWeights> weights_;
};

}  // namespace

std::vector<std::string_view> shape_names() {
  return {kNames.begin(), kNames.end()};
}

std::unique_ptr<Model> flux1_shapes(Device& device, std::string_view name, const ModelOptions& options) {
  if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("no shapes of {}: there are {}", name, fmt::join(kNames, ", ")));
  }
  return std::make_unique<ShapesModel>(device, name == kNames[0], options);
}

}  // namespace vkflux
