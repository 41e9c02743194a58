#include "model/known_fields.h"

#include <fmt/format.h>

namespace vkflux {
namespace {

using Names = std::set<std::string_view>;

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
    "logit_scale_init_value", "vision_config", "gradient_checkpointing",
    // Of decoders.
    "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters",
    "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "attention_bias",
    "spatial_merge_size", "multimodal_projector_bias", "projector_hidden_act", "image_token_index",
    "image_token_id", "vision_feature_layer"};

}  // namespace

const Names& text_fields() {
  return kText;
}

void tell_unknown_fields(std::string_view part, const io::Json& config, const Names& known,
                         const std::function<void(const std::string&)>& remark) {
  if (!config.is_object() || !remark) return;
  for (const auto& [key, value] : config.items()) {
    const bool says_nothing = value.is_null() || (value.is_structured() && value.empty());
    if (key.starts_with('_') || says_nothing || known.contains(key)) continue;
    remark(
        fmt::format("{}/config.json: the field \"{}\" isn't known and has no effect: where it changes "
                    "something, pictures differ",
                    part, io::shown(key)));
  }
}

}  // namespace vkflux
