// The layouts met in the wild (sources: the published checkpoints' own tensor lists).
#include <fmt/format.h>

#include "model/io/names.h"

namespace vkflux::io {
namespace {

using Kind = NameRule::Kind;

// The last part may have other rows than the first where `last_any_size`.
void stacked(std::vector<NameRule>& rules, const std::string& ours, const std::vector<std::string>& foreign,
             bool last_any_size = false) {
  for (size_t i = 0; i < foreign.size(); ++i) {
    rules.push_back({foreign[i] + ".{w}", ours + ".{w}", Kind::rows, static_cast<int>(i),
                     last_any_size && i + 1 == foreign.size()});
  }
}

constexpr const char kDouble[] = "double_blocks.{i}.", kSingle[] = "single_blocks.{i}.";

void same(std::vector<NameRule>& rules, const std::string& foreign, const std::string& ours) {
  rules.push_back({foreign + ".{w}", ours + ".{w}"});
}

// Of double blocks, in both generations of FLUX.
void joint_attention(std::vector<NameRule>& r) {
  const std::string d = kDouble, td = "transformer_blocks.{i}.";
  stacked(r, d + "img_attn.qkv", {td + "attn.to_q", td + "attn.to_k", td + "attn.to_v"});
  stacked(r, d + "txt_attn.qkv", {td + "attn.add_q_proj", td + "attn.add_k_proj", td + "attn.add_v_proj"});
  r.push_back({td + "attn.norm_q.weight", d + "img_attn.norm.query_norm.scale"});
  r.push_back({td + "attn.norm_k.weight", d + "img_attn.norm.key_norm.scale"});
  r.push_back({td + "attn.norm_added_q.weight", d + "txt_attn.norm.query_norm.scale"});
  r.push_back({td + "attn.norm_added_k.weight", d + "txt_attn.norm.key_norm.scale"});
  same(r, td + "attn.to_out.0", d + "img_attn.proj");
  same(r, td + "attn.to_add_out", d + "txt_attn.proj");
}

// Repackaged files that renamed the norm vectors.
void renamed_norms(std::vector<NameRule>& r) {
  const std::string d = kDouble, s = kSingle;
  for (const char* n : {"query_norm", "key_norm"}) {
    for (const char* a : {"img_attn", "txt_attn"}) {
      r.push_back({fmt::format("{}{}.norm.{}.weight", d, a, n), fmt::format("{}{}.norm.{}.scale", d, a, n)});
    }
    r.push_back({fmt::format("{}norm.{}.weight", s, n), fmt::format("{}norm.{}.scale", s, n)});
  }
}

NameTable make_flux1() {
  NameTable t;
  t.prefixes = {"model.diffusion_model.", "diffusion_model."};
  auto& r = t.rules;
  const auto pair = [&](const std::string& foreign, const std::string& ours) { same(r, foreign, ours); };
  pair("x_embedder", "img_in");
  pair("context_embedder", "txt_in");
  const std::vector<std::pair<std::string, std::string>> embedders{
      {"timestep_embedder", "time_in"}, {"text_embedder", "vector_in"}, {"guidance_embedder", "guidance_in"}};
  for (const auto& [foreign, ours] : embedders) {
    pair("time_text_embed." + foreign + ".linear_1", ours + ".in_layer");
    pair("time_text_embed." + foreign + ".linear_2", ours + ".out_layer");
  }
  const std::string d = kDouble, td = "transformer_blocks.{i}.";
  pair(td + "norm1.linear", d + "img_mod.lin");
  pair(td + "norm1_context.linear", d + "txt_mod.lin");
  joint_attention(r);
  pair(td + "ff.net.0.proj", d + "img_mlp.0");
  pair(td + "ff.net.2", d + "img_mlp.2");
  pair(td + "ff_context.net.0.proj", d + "txt_mlp.0");
  pair(td + "ff_context.net.2", d + "txt_mlp.2");
  const std::string s = kSingle, ts = "single_transformer_blocks.{i}.";
  pair(ts + "norm.linear", s + "modulation.lin");
  stacked(r, s + "linear1", {ts + "attn.to_q", ts + "attn.to_k", ts + "attn.to_v", ts + "proj_mlp"}, true);
  pair(ts + "proj_out", s + "linear2");
  r.push_back({ts + "attn.norm_q.weight", s + "norm.query_norm.scale"});
  r.push_back({ts + "attn.norm_k.weight", s + "norm.key_norm.scale"});
  pair("proj_out", "final_layer.linear");
  r.push_back({"norm_out.linear.{w}", "final_layer.adaLN_modulation.1.{w}", Kind::swap_halves});
  renamed_norms(r);
  return t;
}

NameTable make_flux2() {
  NameTable t;
  t.prefixes = {"model.diffusion_model.", "diffusion_model."};
  auto& r = t.rules;
  const auto pair = [&](const std::string& foreign, const std::string& ours) { same(r, foreign, ours); };
  pair("x_embedder", "img_in");
  pair("context_embedder", "txt_in");
  for (const char* e : {"time", "guidance"}) {
    const std::string embedder =
        fmt::format("time_guidance_embed.{}_embedder.", e == std::string("time") ? "timestep" : e);
    pair(embedder + "linear_1", fmt::format("{}_in.in_layer", e));
    pair(embedder + "linear_2", fmt::format("{}_in.out_layer", e));
  }
  for (const char* m :
       {"double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"})
    pair(fmt::format("{}.linear", m), fmt::format("{}.lin", m));
  joint_attention(r);
  const std::string td = "transformer_blocks.{i}.", ts = "single_transformer_blocks.{i}.";
  for (const auto& [foreign, ours] : {std::pair{"ff", "img_mlp"}, std::pair{"ff_context", "txt_mlp"}}) {
    pair(fmt::format("{}{}.linear_in", td, foreign), fmt::format("{}{}.0", kDouble, ours));
    pair(fmt::format("{}{}.linear_out", td, foreign), fmt::format("{}{}.2", kDouble, ours));
  }
  const std::string s = kSingle;
  pair(ts + "attn.to_qkv_mlp_proj", s + "linear1");
  pair(ts + "attn.to_out", s + "linear2");
  r.push_back({ts + "attn.norm_q.weight", s + "norm.query_norm.scale"});
  r.push_back({ts + "attn.norm_k.weight", s + "norm.key_norm.scale"});
  pair("proj_out", "final_layer.linear");
  r.push_back({"norm_out.linear.{w}", "final_layer.adaLN_modulation.1.{w}", Kind::swap_halves});
  renamed_norms(r);
  return t;
}

/// What diffusers calls the tensors of one half of an autoencoder, and what we call them.
std::vector<std::pair<std::string, std::string>> vae_half(bool up, int64_t levels) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto pair = [&](const std::string& foreign, const std::string& ours) {
    out.emplace_back(foreign + ".{w}", ours + ".{w}");
  };
  for (int64_t level = 0; level < levels; ++level) {
    const std::string f = fmt::format("{}_blocks.{}.", up ? "up" : "down", up ? levels - 1 - level : level);
    const std::string o = fmt::format("{}.{}.", up ? "up" : "down", level);
    for (const char* part : {"norm1", "conv1", "norm2", "conv2"})
      pair(f + "resnets.{i}." + part, o + "block.{i}." + part);
    pair(f + "resnets.{i}.conv_shortcut", o + "block.{i}.nin_shortcut");
    pair(f + (up ? "upsamplers.0.conv" : "downsamplers.0.conv"),
         o + (up ? "upsample.conv" : "downsample.conv"));
  }
  for (int b = 0; b < 2; ++b) {
    for (const char* part : {"norm1", "conv1", "norm2", "conv2"}) {
      pair(fmt::format("mid_block.resnets.{}.{}", b, part), fmt::format("mid.block_{}.{}", b + 1, part));
    }
  }
  pair("mid_block.attentions.0.group_norm", "mid.attn_1.norm");
  pair("mid_block.attentions.0.to_q", "mid.attn_1.q");
  pair("mid_block.attentions.0.to_k", "mid.attn_1.k");
  pair("mid_block.attentions.0.to_v", "mid.attn_1.v");
  pair("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out");
  // The names of diffusers before 0.18, still found in files.
  pair("mid_block.attentions.0.query", "mid.attn_1.q");
  pair("mid_block.attentions.0.key", "mid.attn_1.k");
  pair("mid_block.attentions.0.value", "mid.attn_1.v");
  pair("mid_block.attentions.0.proj_attn", "mid.attn_1.proj_out");
  pair("conv_norm_out", "norm_out");
  return out;
}

/// The names of files that hold a decoder alone, and say so nowhere. Read, never written.
void bare_decoder(std::vector<NameRule>& r, int64_t levels) {
  const auto bare = [&](const std::string& foreign, const std::string& ours) {
    r.push_back({foreign, "decoder." + ours, Kind::copy, 0, false, true});
  };
  for (const auto& [foreign, ours] : vae_half(true, levels)) bare(foreign, ours);
  for (const char* own :
       {"conv_in", "conv_out", "norm_out", "up.{i}.block.{j}.norm1", "up.{i}.block.{j}.conv1",
        "up.{i}.block.{j}.norm2", "up.{i}.block.{j}.conv2", "up.{i}.block.{j}.nin_shortcut",
        "up.{i}.upsample.conv", "mid.block_{i}.norm1", "mid.block_{i}.conv1", "mid.block_{i}.norm2",
        "mid.block_{i}.conv2", "mid.attn_1.norm", "mid.attn_1.q", "mid.attn_1.k", "mid.attn_1.v",
        "mid.attn_1.proj_out"})
    bare(fmt::format("{}.{{w}}", own), fmt::format("{}.{{w}}", own));
}

}  // namespace

const NameTable& flux1_names() {
  static const NameTable table = make_flux1();
  return table;
}

const NameTable& flux2_names() {
  static const NameTable table = make_flux2();
  return table;
}

NameTable vae_names(int64_t levels) {
  NameTable t;
  t.prefixes = {"first_stage_model.", "vae."};
  for (const auto& [half, up] : {std::pair{"encoder.", false}, std::pair{"decoder.", true}}) {
    for (const auto& [foreign, ours] : vae_half(up, levels)) t.rules.push_back({half + foreign, half + ours});
  }
  t.rules.push_back({"quant_conv.{w}", "encoder.quant_conv.{w}"});
  t.rules.push_back({"post_quant_conv.{w}", "decoder.post_quant_conv.{w}"});
  bare_decoder(t.rules, levels);
  t.ignore = {"bn.num_batches_tracked", "loss.*", "model_ema.*"};
  return t;
}

// As transformers 5 saves the text model alone: without the prefix. Read, never written.
static std::vector<NameRule> bare_clip_names() {
  std::vector<NameRule> rules;
  const auto bare = [&](const std::string& name) {
    rules.push_back({name, "text_model." + name, Kind::copy, 0, false, true});
  };
  for (const char* table : {"token_embedding", "position_embedding"})
    bare(fmt::format("embeddings.{}.weight", table));
  for (const char* part : {"layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.q_proj",
                           "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"})
    bare(fmt::format("encoder.layers.{{i}}.{}.{{w}}", part));
  bare("final_layer_norm.{w}");
  return rules;
}

const NameTable& clip_names() {
  static const NameTable table{
      bare_clip_names(),
      {"text_encoders.clip_l.transformer.", "cond_stage_model.transformer.", "clip_l.transformer."},
      {"text_model.embeddings.position_ids", "embeddings.position_ids", "text_projection.weight",
       "logit_scale", "vision_model.*", "visual_projection.weight"}};
  return table;
}

// The encoder's names in GGUF files. Read, never written.
static std::vector<NameRule> foreign_t5_names() {
  std::vector<NameRule> rules;
  const auto add = [&](const std::string& name, const std::string& ours) {
    rules.push_back({name + ".weight", ours + ".weight", Kind::copy, 0, false, true});
  };
  add("encoder.embed_tokens", "shared");
  add("token_embd", "shared");
  add("enc.output_norm", "encoder.final_layer_norm");
  const std::string block = "encoder.block.{i}.layer.",
                    attention = "encoder.block.{i}.layer.0.SelfAttention.";
  for (const char* part : {"q", "k", "v", "o"})
    add(fmt::format("enc.blk.{{i}}.attn_{}", part), attention + part);
  add("enc.blk.{i}.attn_rel_b", attention + "relative_attention_bias");
  add("enc.blk.{i}.attn_norm", block + "0.layer_norm");
  add("enc.blk.{i}.ffn_norm", block + "1.layer_norm");
  for (const auto& [name, part] :
       {std::pair{"gate", "wi_0"}, std::pair{"up", "wi_1"}, std::pair{"down", "wo"}})
    add(fmt::format("enc.blk.{{i}}.ffn_{}", name), block + "1.DenseReluDense." + part);
  return rules;
}

const NameTable& t5_names() {
  static const NameTable table{foreign_t5_names(),
                               {"text_encoders.t5xxl.transformer.", "t5xxl.transformer."},
                               {"spiece_model", "decoder.*", "lm_head.weight", "dec.*"}};
  return table;
}

}  // namespace vkflux::io
