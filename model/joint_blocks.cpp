#include "model/joint_blocks.h"

#include <fmt/format.h>

#include <charconv>
#include <set>

#include "vk/error.h"

namespace vkflux {

std::vector<Tensor> modulation(const Tensor& modulations, int64_t parts) {
  const int64_t batch = modulations.dim(0), width = modulations.dim(1) / parts;
  // One copy makes every part contiguous.
  const Tensor all = op::permute(op::reshape(modulations, {batch, parts, width}), {1, 0, 2});
  std::vector<Tensor> out;
  for (int64_t i = 0; i < parts; ++i) out.push_back(op::reshape(op::narrow(all, 0, i, 1), {batch, width}));
  return out;
}

std::vector<Tensor> modulation(const Linear& lin, const Tensor& silu_vec, int64_t parts) {
  return modulation(lin(silu_vec), parts);
}

void JointPass::join() {
  joined = op::concat({streams.txt, streams.img}, 1);
  if (!in_place) streams = {};
}

Tensor JointPass::drawn() const {
  const int64_t n = tokens.drawn();
  if (!joined.defined() && n == tokens.image) return streams.img;
  const Tensor img =
      joined.defined() ? op::narrow(joined, 1, tokens.text, n) : op::narrow(streams.img, 1, 0, n);
  // Of one picture they are dense where they lie.
  return img.is_contiguous() ? img : op::clone(img);
}

Tensor attend(const op::Qkv& joint, const Tensor& weight, const BlockContext& context, int layer,
              const std::string& trace_name) {
  observe(context.trace, trace_name + ".q_rope", joint.q);
  observe(context.trace, trace_name + ".k_rope", joint.k);
  if (context.keeping) context.keeping->push_back({joint.k, joint.v});
  Tensor k = joint.k, v = joint.v;
  if (context.kept) {
    const KeysValues& kept = context.kept->at(static_cast<size_t>(layer));
    k = op::concat({k, kept.k}, 2);
    v = op::concat({v, kept.v}, 2);
  }
  return context.attention.forward(
      {joint.q, k, v, context.tokens, layer, context.step, weight.dtype() != DType::f32});
}

Streams split_streams(const Tensor& o, int64_t text) {
  const int64_t image = o.dim(2) - text;
  // A part of one picture's tokens is dense where it lies; of several it is made dense by merging it alone.
  if (o.dim(0) == 1) {
    const Tensor all = op::merge_heads(o);
    return {op::narrow(all, 1, text, image), op::narrow(all, 1, 0, text)};
  }
  return {op::merge_heads(op::narrow(o, 2, text, image)), op::merge_heads(op::narrow(o, 2, 0, text))};
}

Tensor FinalLayer::operator()(const Tensor& x, const Tensor& silu_vec) const {
  const std::vector<Tensor> m = modulation(mod, silu_vec, 2);
  return linear(op::layer_norm_modulate(x, m[0], m[1], eps));
}

std::vector<AttentionLayer> joint_layers(int64_t depth, int64_t depth_single, int64_t heads,
                                         int64_t head_dim) {
  std::vector<AttentionLayer> out;
  for (int64_t i = 0; i < depth; ++i)
    out.push_back({fmt::format("double_blocks.{}", i), heads, head_dim, false});
  for (int64_t i = 0; i < depth_single; ++i)
    out.push_back({fmt::format("single_blocks.{}", i), heads, head_dim, true});
  return out;
}

std::vector<PassPart> joint_parts(const BackboneLayout& layout) {
  std::vector<PassPart> out;
  bool joined = false;
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    const AttentionLayer& layer = layout.layers[i];
    if (layer.replaceable && !joined) out.push_back({"join"});
    joined = joined || layer.replaceable;
    out.push_back({layer.name, static_cast<int>(i)});
  }
  return out;
}

void expect_input(std::string_view what, const char* name, const Tensor& x, const Shape& want) {
  if (!x.defined())
    throw Error(ErrorCode::invalid_argument, fmt::format("{} input {} is missing", what, name));
  if (!(x.shape() == want)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} input {} is {}, expected {}", what, name, x.shape().str(), want.str()));
  }
}

const Shape& need_shape(std::string_view what, const std::map<std::string, Shape>& shapes,
                        const std::string& name, int rank) {
  const auto it = shapes.find(name);
  if (it == shapes.end()) {
    throw Error(ErrorCode::format, fmt::format("not a {} transformer: tensor {} is missing", what, name));
  }
  if (it->second.rank() != rank) {
    throw Error(ErrorCode::format,
                fmt::format("{} has shape {}, expected rank {}", name, it->second.str(), rank));
  }
  for (const int64_t d : it->second) {
    if (d == 0) throw Error(ErrorCode::format, fmt::format("{} is empty: {}", name, it->second.str()));
  }
  return it->second;
}

int64_t count_blocks(const std::map<std::string, Shape>& shapes, std::string_view prefix) {
  std::set<int64_t> blocks;
  for (auto it = shapes.lower_bound(std::string(prefix)); it != shapes.end() && it->first.starts_with(prefix);
       ++it) {
    const char* begin = it->first.data() + prefix.size();
    const char* end = it->first.data() + it->first.size();
    int64_t i = 0;
    const auto r = std::from_chars(begin, end, i);
    if (r.ec != std::errc() || r.ptr == end || *r.ptr != '.' || i < 0 || i >= 4096) {
      throw Error(ErrorCode::format, fmt::format("tensor name {}: expected a block number", it->first));
    }
    blocks.insert(i);
  }
  const auto depth = static_cast<int64_t>(blocks.size());
  if (depth > 0 && *blocks.rbegin() != depth - 1) {
    throw Error(ErrorCode::format,
                fmt::format("{}{}. is there, but only {} blocks are", prefix, *blocks.rbegin(), depth));
  }
  return depth;
}

}  // namespace vkflux
