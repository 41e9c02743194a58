#include "app/verify/case.h"
#include "model/text/clip.h"
#include "model/text/t5.h"

namespace vkflux::verify {
namespace {

TokenIds rows_of(Case& c, const std::string& name) {
  const std::vector<int64_t>& shape = c.file().info("in." + name).shape;
  const std::vector<double> flat = c.numbers("in." + name);
  const auto width = static_cast<ptrdiff_t>(shape.empty() ? 1 : shape.back());
  TokenIds out;
  for (auto it = flat.begin(); it != flat.end(); it += width) out.emplace_back(it, it + width);
  return out;
}

std::map<std::string, Shape> weight_shapes(const Case& c) {
  std::map<std::string, Shape> out;
  for (const std::string& name : c.weight_names()) out[name] = c.weight_shape(name);
  return out;
}

void run_clip(Case& c) {
  ClipTextConfig config = infer_clip_config(weight_shapes(c));
  apply_clip_json(config, io::Json(c.config()));
  ClipText model(config);
  c.use(model);
  Trace trace;
  ClipText::Output y;
  {
    const auto scope = c.tape().record();
    y = model.forward(rows_of(c, "input_ids"), &trace);
  }
  c.out("last_hidden_state", y.last_hidden_state);
  c.out("pooled", y.pooled);
  for (const auto& [name, value] : trace) c.mid(name, value);
  c.backward(
      {{y.last_hidden_state, "loss_cotangent.last_hidden_state"}, {y.pooled, "loss_cotangent.pooled"}});
}

void run_t5(Case& c) {
  T5Config config = infer_t5_config(weight_shapes(c));
  apply_t5_json(config, io::Json(c.config()));
  T5Encoder model(config);
  c.use(model);
  if (c.has_in("long.input_ids"))
    c.out("long.last_hidden_state", model.forward(rows_of(c, "long.input_ids")));
  Tensor y;
  Trace trace;
  {
    const auto scope = c.tape().record();
    y = model.forward(rows_of(c, "input_ids"), &trace);
  }
  c.out("last_hidden_state", y);
  for (const auto& [name, value] : trace) c.mid(name, value);
  c.backward({{y, "loss_cotangent.last_hidden_state"}});
}

}  // namespace

void run_text_encoder(Case& c) {
  c.kind().rfind("t5", 0) == 0 ? run_t5(c) : run_clip(c);
}

}  // namespace vkflux::verify
