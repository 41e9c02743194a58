#include "model/flux/known_fields.h"

#include <algorithm>
#include <set>

#include "model/vae/autoencoder.h"

namespace vkflux {
namespace {

using Names = std::set<std::string_view>;

const Names kTransformer{"patch_size",          "in_channels",         "out_channels",
                         "num_layers",          "num_single_layers",   "attention_head_dim",
                         "num_attention_heads", "joint_attention_dim", "pooled_projection_dim",
                         "guidance_embeds",     "axes_dims_rope"};
/// Of transformers' configs: those that are read, and training, generation and bookkeeping.
const Names kText{
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "eos_token_id", "projection_dim",
    "text_config", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "dense_act_fn",
    "is_gated_act", "is_decoder", "is_encoder_decoder", "num_decoder_layers",
    // Nothing of a forward pass.
    "attention_dropout", "dropout", "dropout_rate", "classifier_dropout", "initializer_factor",
    "initializer_range", "use_cache", "output_past", "n_positions", "add_cross_attention", "architectures",
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task",
    "forced_bos_token_id", "forced_eos_token_id", "id2label", "label2id", "length_penalty", "max_length",
    "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "pad_token_id",
    "prefix", "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict",
    "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers_version", "typical_p", "use_bfloat16",
    "logit_scale_init_value", "vision_config", "gradient_checkpointing"};

const Names& names_of(std::string_view part) {
  if (part == "transformer") return kTransformer;
  return part == "vae" ? autoencoder_fields() : kText;
}

}  // namespace

std::vector<std::string> unknown_fields(std::string_view part, const io::Json& config) {
  std::vector<std::string> out;
  if (!config.is_object()) return out;
  for (const auto& [key, value] : config.items()) {
    const bool says_nothing = value.is_null() || (value.is_structured() && value.empty());
    if (!key.starts_with('_') && !says_nothing && !names_of(part).contains(key)) out.push_back(key);
  }
  return out;
}

}  // namespace vkflux
