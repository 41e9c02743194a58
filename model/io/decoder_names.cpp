// The layouts of decoder-only language models (sources: transformers' and llama.cpp's own tensor lists).
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "model/io/gguf.h"
#include "model/io/names.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

using Kind = NameRule::Kind;

constexpr std::string_view kLayers = "layers.0.self_attn.q_proj.weight";

// Before "model.layers" or "layers", in the file's own names.
std::string prefix_of(const TensorSource& file) {
  for (const auto& [name, info] : file.tensors()) {
    if (!name.ends_with(kLayers)) continue;
    std::string prefix = name.substr(0, name.size() - kLayers.size());
    // Other transformers call their attention so, too.
    if (!file.has(prefix + "embed_tokens.weight")) continue;
    if (prefix.ends_with("model.") && !prefix.ends_with("_model.")) prefix.resize(prefix.size() - 6);
    return prefix;
  }
  return {};
}

int64_t gguf_head(const TensorSource& file, std::string& architecture) {
  constexpr int64_t kPublished = 128;
  const auto* gguf = dynamic_cast<const GgufFile*>(&file);
  if (!gguf) return kPublished;
  const Json& values = gguf->values();
  architecture = get_or<std::string>(values, "general.architecture", "", file.path());
  const auto number = [&](const char* key) {
    return get_or<int64_t>(values, architecture + key, 0, file.path());
  };
  for (const char* key : {".rope.dimension_count", ".attention.key_length"}) {
    if (const int64_t n = number(key); n > 0) return n;
  }
  const int64_t width = number(".embedding_length"), heads = number(".attention.head_count");
  return width > 0 && heads > 0 && width >= heads ? width / heads : kPublished;
}

struct Pair {
  const char *gguf, *ours;
};
constexpr Pair kWhole[] = {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}};
constexpr Pair kOfLayer[] = {{"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
                             {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
                             {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
                             {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
                             {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
                             {"ffn_down", "mlp.down_proj"}};

// llama.cpp's converters turn the rows of q and k so that pairs of a rotation lie side by side.
bool interleaves(const std::string& architecture) {
  return architecture == "llama" || architecture == "mistral3" || architecture == "mistral";
}

void gguf_rules(std::vector<NameRule>& rules, const std::string& architecture, int64_t head) {
  for (const Pair& p : kWhole)
    rules.push_back({fmt::format("{}.weight", p.gguf), fmt::format("{}.weight", p.ours)});
  for (const Pair& p : kOfLayer) {
    const std::string_view part(p.gguf);
    NameRule rule{fmt::format("blk.{{i}}.{}.{{w}}", part),
                  fmt::format("model.layers.{{i}}.{}.{{w}}", p.ours)};
    if (interleaves(architecture) && (part == "attn_q" || part == "attn_k"))
      rule.kind = Kind::interleaved, rule.head = head;
    rules.push_back(rule);
  }
}

// One more than the largest number between `before` and a dot.
int64_t layers_in(const TensorSource& file, const std::string& before) {
  int64_t most = 0;
  for (const auto& [name, info] : file.tensors()) {
    if (!name.starts_with(before)) continue;
    int64_t n = 0;
    size_t at = before.size();
    while (at < name.size() && at < before.size() + 4 && name[at] >= '0' && name[at] <= '9')
      n = 10 * n + (name[at++] - '0');
    if (at > before.size() && at < name.size() && name[at] == '.') most = std::max(most, n + 1);
  }
  return most;
}

// Whether a file has exactly the layers that FLUX.2 reads of a published model: what leaves the last one
// isn't its final state, whether the norm that makes it so was kept or not.
bool is_cut_for_flux2(const TensorSource& file, const std::string& prefix, int64_t layers) {
  constexpr std::pair<int64_t, int64_t> kCuts[] = {{5120, 30}, {2560, 27}, {4096, 27}};  // width, layers
  for (const char* name : {"model.norm.weight", "norm.weight", "output_norm.weight"}) {
    if (!file.has(prefix + name)) continue;
    const TensorInfo& norm = file.info(prefix + name);
    return std::any_of(std::begin(kCuts), std::end(kCuts), [&](const auto& cut) {
      return norm.shape == std::vector<int64_t>{cut.first} && layers == cut.second;
    });
  }
  return false;
}

}  // namespace

NameTable decoder_names(const TensorSource& file, int64_t layers) {
  NameTable t;
  const std::string prefix = prefix_of(file);
  if (!prefix.empty()) t.prefixes.push_back(prefix);
  t.ignore = {"lm_head.*",
              "output.weight",
              "vision_tower.*",
              "model.vision_tower.*",
              "multi_modal_projector.*",
              "model.multi_modal_projector.*",
              "model.visual.*",
              "visual.*",
              "tekken_model",
              "tokenizer_json",
              "model.layers.{i}.self_attn.rotary_emb.inv_freq",
              "layers.{i}.self_attn.rotary_emb.inv_freq"};
  std::string architecture;
  const int64_t head = gguf_head(file, architecture);
  gguf_rules(t.rules, architecture, head);
  for (const char* name : {"embed_tokens.weight", "norm.weight", "layers.{i}.input_layernorm.weight",
                           "layers.{i}.post_attention_layernorm.weight", "layers.{i}.self_attn.q_norm.weight",
                           "layers.{i}.self_attn.k_norm.weight"})
    t.rules.push_back({name, fmt::format("model.{}", name)});
  for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
    t.rules.push_back(
        {fmt::format("layers.{{i}}.{}.{{w}}", part), fmt::format("model.layers.{{i}}.{}.{{w}}", part)});
  for (NameRule& rule : t.rules) rule.fallback = true;
  bool cut = false;
  for (const char* before : {"model.layers.", "layers.", "blk."}) {
    const int64_t there = layers_in(file, prefix + before);
    cut = cut || is_cut_for_flux2(file, prefix, there) || (layers >= 0 && layers < there);
    for (int64_t i = layers; layers >= 0 && i < there; ++i)
      t.ignore.push_back(fmt::format("{}{}.*", before, i));
  }
  if (cut) t.ignore.insert(t.ignore.end(), {"model.norm.weight", "norm.weight", "output_norm.weight"});
  return t;
}

NameTable decoder_gguf_names(const std::string& architecture, int64_t head) {
  NameTable t;
  gguf_rules(t.rules, architecture, head);
  return t;
}

}  // namespace vkflux::io
