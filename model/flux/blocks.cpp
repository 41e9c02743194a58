#include "model/flux/blocks.h"

namespace vkflux {
namespace {

constexpr float kEps = 1e-6f;

}  // namespace

DoubleStream::DoubleStream(const Flux1Config& c)
    : mod{c.hidden, 6 * c.hidden},
      qkv{c.hidden, 3 * c.hidden},
      proj{c.hidden, c.hidden},
      mlp_in{c.hidden, c.mlp_hidden},
      mlp_out{c.mlp_hidden, c.hidden},
      norm{c.head_dim} {}

Tensor DoubleStream::finish(const Tensor& x, const Tensor& o, const std::vector<Tensor>& m,
                            bool in_place) const {
  const Tensor y = op::gate_residual(x, m[2], proj(o));
  const Tensor a = op::layer_norm_modulate(y, m[3], m[4], kEps);
  return op::gate_residual(y, m[5], mlp_out(mlp_in(a, op::Activation::gelu_tanh)), in_place ? x : Tensor());
}

Streams DoubleBlock::operator()(const Streams& x, const BlockContext& context, int index) const {
  const std::vector<Tensor> mi = modulation(img.mod, context.silu_vec, 6);
  const std::vector<Tensor> mt = modulation(txt.mod, context.silu_vec, 6);
  const Tensor qkv_img = img.qkv(op::layer_norm_modulate(x.img, mi[0], mi[1], kEps));  // [B, I, 3H]
  const Tensor qkv_txt = txt.qkv(op::layer_norm_modulate(x.txt, mt[0], mt[1], kEps));  // [B, T, 3H]
  const op::Qkv joint =
      op::qk_norm_rope({{qkv_txt, txt.norm.query, txt.norm.key}, {qkv_img, img.norm.query, img.norm.key}},
                       context.rope, heads);
  const std::string name = "double." + std::to_string(index);
  const Tensor o = attend(joint, img.qkv.weight, context, index, name);
  const Streams parts = split_streams(o, x.txt.dim(1));
  Streams y;
  y.img = img.finish(x.img, parts.img, mi, context.in_place);
  y.txt = txt.finish(x.txt, parts.txt, mt, context.in_place);
  observe(context.trace, name + ".img", y.img);
  observe(context.trace, name + ".txt", y.txt);
  return y;
}

SingleBlock::SingleBlock(const Flux1Config& c)
    : heads(c.heads),
      hidden(c.hidden),
      mlp_hidden(c.mlp_hidden),
      mod{c.hidden, 3 * c.hidden},
      linear1{c.hidden, 3 * c.hidden + c.mlp_hidden},
      linear2{c.hidden + c.mlp_hidden, c.hidden},
      norm{c.head_dim} {}

Tensor SingleBlock::operator()(const Tensor& x, const BlockContext& context, int index, int first) const {
  const std::vector<Tensor> m = modulation(mod, context.silu_vec, 3);
  const Tensor a = op::layer_norm_modulate(x, m[0], m[1], kEps);
  // Both linears are used in two parts, so neither [q | k | v | mlp] nor [o | mlp] is ever copied together.
  const Tensor qkv = linear1.rows(a, 0, 3 * hidden),
               mlp = linear1.rows(a, 3 * hidden, mlp_hidden, op::Activation::gelu_tanh);
  const std::string name = "single." + std::to_string(index);
  const op::Qkv joint = op::qk_norm_rope({{qkv, norm.query, norm.key}}, context.rope, heads);
  const Tensor o = op::merge_heads(attend(joint, linear1.weight, context, first + index, name));
  const Tensor out = op::gate_residual(x, m[2], linear2.joined(o, mlp), context.in_place ? x : Tensor());
  observe(context.trace, name, out);
  return out;
}

}  // namespace vkflux
