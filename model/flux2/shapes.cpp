#include "model/flux2/shapes.h"

#include "model/flux2/parts.h"
#include "model/parts_model.h"
#include "model/text/prompt_encoder.h"

namespace vkflux {
namespace {

constexpr int64_t kTextTokens = 512;

class ShapesModel final : public PartsModel {
 public:
  ShapesModel(Device& device, std::string_view name, const ModelOptions& options)
      : PartsModel(device), configs_(flux2_configs(name)) {
    info_.layout = flux2_layout(configs_.transformer);
    info_.pixels_per_cell = configs_.vae.cell();
    info_.schedule = Schedule::flux2();
    info_.references = true;
    info_.reference_rule = ReferenceRule::capped_area;
    info_.defaults.steps = configs_.transformer.guidance ? 50 : 4;
    info_.defaults.txt_tokens = options.text_tokens ? options.text_tokens : kTextTokens;
    weights_ = std::make_unique<PartWeights>(device, flux2_recipes(device, configs_, {}), shapes_alone(),
                                             PartWeights::Options{options.weights, {}, options.keep_parts});
  }

  std::shared_ptr<Backbone> backbone() override { return weights_->get<Flux2>("transformer"); }
  std::shared_ptr<LatentCodec> codec() override { return vae_codec(device_, *weights_, configs_.vae); }
  Condition encode(const std::vector<std::string>& prompts) override {
    DecoderTokens tokens;
    tokens.ids.assign(prompts.size(),
                      std::vector<int32_t>(static_cast<size_t>(info_.defaults.txt_tokens), 1));
    return {{"txt", encode_prompts(*weights_->get<DecoderLm>("text_encoder"), tokens, configs_.states)}};
  }

 private:
  Flux2Configs configs_;
};

}  // namespace

std::unique_ptr<Model> flux2_shapes(Device& device, std::string_view name, const ModelOptions& options) {
  return std::make_unique<ShapesModel>(device, name, options);
}

}  // namespace vkflux
