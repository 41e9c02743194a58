#include "model/flux/shapes.h"

#include "model/flux/parts.h"
#include "model/parts_model.h"

namespace vkflux {
namespace {

class ShapesModel final : public PartsModel {
 public:
  ShapesModel(Device& device, bool dev, const ModelOptions& options) : PartsModel(device) {
    configs_.clip = ClipTextConfig();
    configs_.transformer.guidance = dev;
    info_.layout = flux1_layout(configs_.transformer);
    info_.pixels_per_cell = configs_.vae.cell();
    info_.schedule = dev ? Schedule::flux1_dev() : Schedule::flux1_schnell();
    if (!dev) info_.defaults.steps = 4;
    info_.defaults.txt_tokens = dev ? 512 : 256;
    weights_ = std::make_unique<PartWeights>(device, flux1_recipes(configs_), shapes_alone(),
                                             PartWeights::Options{options.weights, {}, options.keep_parts});
  }

  std::shared_ptr<Backbone> backbone() override { return weights_->get<Flux1>("transformer"); }
  std::shared_ptr<LatentCodec> codec() override { return vae_codec(device_, *weights_, configs_.vae); }
  Condition encode(const std::vector<std::string>& prompts) override {
    const auto ids = [&](int64_t length, int32_t id) {
      return TokenIds(prompts.size(), std::vector<int32_t>(static_cast<size_t>(length), id));
    };
    const auto eos = static_cast<int32_t>(configs_.clip.eos);
    const Tensor y =
        weights_->get<ClipText>("text_encoder")->forward(ids(configs_.clip.positions, eos)).pooled;
    return {{"txt", weights_->get<T5Encoder>("text_encoder_2")->forward(ids(info_.defaults.txt_tokens, 1))},
            {"y", y}};
  }

 private:
  Flux1Configs configs_;
};

}  // namespace

std::unique_ptr<Model> flux1_shapes(Device& device, std::string_view name, const ModelOptions& options) {
  return std::make_unique<ShapesModel>(device, name == kFlux1Published[0], options);
}

}  // namespace vkflux
