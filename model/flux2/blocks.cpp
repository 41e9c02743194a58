#include "model/flux2/blocks.h"

namespace vkflux {

Flux2Stream::Flux2Stream(const Flux2Config& c)
    : qkv{c.hidden, 3 * c.hidden, false},
      proj{c.hidden, c.hidden, false},
      mlp_in{c.hidden, 2 * c.mlp_hidden, false},
      mlp_out{c.mlp_hidden, c.hidden, false},
      norm{c.head_dim},
      eps(static_cast<float>(c.eps)) {}

Tensor Flux2Stream::finish(const Tensor& x, const Tensor& o, const std::vector<Tensor>& m,
                           bool in_place) const {
  const Tensor y = op::gate_residual(x, m[2], proj(o));
  const Tensor a = op::layer_norm_modulate(y, m[3], m[4], eps);
  return op::gate_residual(y, m[5], mlp_out(op::swiglu(mlp_in(a))), in_place ? x : Tensor());
}

Streams Flux2DoubleBlock::operator()(const Streams& x, const BlockContext& context,
                                     const std::vector<Tensor>& mod_img, const std::vector<Tensor>& mod_txt,
                                     int index) const {
  const Tensor qkv_img = img.qkv(op::layer_norm_modulate(x.img, mod_img[0], mod_img[1], img.eps));
  const Tensor qkv_txt = txt.qkv(op::layer_norm_modulate(x.txt, mod_txt[0], mod_txt[1], txt.eps));
  const op::Qkv joint =
      op::qk_norm_rope({{qkv_txt, txt.norm.query, txt.norm.key}, {qkv_img, img.norm.query, img.norm.key}},
                       context.rope, heads, img.eps);
  const std::string name = "double." + std::to_string(index);
  const Streams o = split_streams(attend(joint, img.qkv.weight, context, index, name), x.txt.dim(1));
  Streams y;
  y.img = img.finish(x.img, o.img, mod_img, context.in_place);
  y.txt = txt.finish(x.txt, o.txt, mod_txt, context.in_place);
  observe(context.trace, name + ".img", y.img);
  observe(context.trace, name + ".txt", y.txt);
  return y;
}

Tensor Flux2DoubleBlock::alone(const Tensor& x, const BlockContext& context,
                               const std::vector<Tensor>& mod_img, int index) const {
  const Tensor qkv = img.qkv(op::layer_norm_modulate(x, mod_img[0], mod_img[1], img.eps));
  const op::Qkv joint = op::qk_norm_rope({{qkv, img.norm.query, img.norm.key}}, context.rope, heads, img.eps);
  const Tensor o = attend(joint, img.qkv.weight, context, index, "double." + std::to_string(index));
  return img.finish(x, op::merge_heads(o), mod_img, context.in_place);
}

Flux2SingleBlock::Flux2SingleBlock(const Flux2Config& c)
    : heads(c.heads),
      hidden(c.hidden),
      mlp_hidden(c.mlp_hidden),
      linear1{c.hidden, 3 * c.hidden + 2 * c.mlp_hidden, false},
      linear2{c.hidden + c.mlp_hidden, c.hidden, false},
      norm{c.head_dim},
      eps(static_cast<float>(c.eps)) {}

Tensor Flux2SingleBlock::operator()(const Tensor& x, const BlockContext& context,
                                    const std::vector<Tensor>& mod, int index, int first) const {
  const Tensor a = op::layer_norm_modulate(x, mod[0], mod[1], eps);
  // Both linears are used in two parts, so neither [q | k | v | mlp] nor [o | mlp] is ever copied together.
  const Tensor qkv = linear1.rows(a, 0, 3 * hidden),
               mlp = op::swiglu(linear1.rows(a, 3 * hidden, 2 * mlp_hidden));
  const std::string name = "single." + std::to_string(index);
  const op::Qkv joint = op::qk_norm_rope({{qkv, norm.query, norm.key}}, context.rope, heads, eps);
  const Tensor o = op::merge_heads(attend(joint, linear1.weight, context, first + index, name));
  const Tensor out = op::gate_residual(x, mod[2], linear2.joined(o, mlp), context.in_place ? x : Tensor());
  observe(context.trace, name, out);
  return out;
}

}  // namespace vkflux
