#include "model/flux2/component.h"

#include "model/flux2/transformer.h"

namespace vkflux {
namespace {

/// What the tensors tell of the published variants; fine-tunes look like what they began as.
std::string variant(const Flux2Config& c) {
  if (c.guidance) return c.hidden == 6144 ? "dev" : "with guidance, as dev";
  if (c.hidden == 4096) return "klein 9B: base, distilled and KV look the same";
  if (c.hidden == 3072) return "klein 4B: base and distilled look the same";
  return "without guidance, as klein";
}

std::optional<io::Json> describe(const io::TensorSource& file, const io::Json& json) {
  const io::NamedTensors named(file, io::flux2_names());
  if (!named.has("img_in.weight") || !named.has("final_layer.linear.weight") ||
      !named.has("double_stream_modulation_img.lin.weight"))
    return {};
  Flux2Config config = infer_flux2_config(shapes_of(named));
  if (json.is_object() && json.contains("axes_dims_rope")) apply_flux2_json(config, json);
  io::Json out = flux2_json(config);
  out["variant"] = variant(config);
  return out;
}

void check_tensors(const io::TensorSource& file, const io::Json&) {
  const io::NamedTensors named(file, io::flux2_names());
  Flux2 model(infer_flux2_config(shapes_of(named)));
  check(parameters(model), named);
}

}  // namespace

ComponentKind flux2_component() {
  return {"flux.2 transformer", describe, check_tensors};
}

}  // namespace vkflux
