// From prompts to what FLUX.2's transformer reads of them: the prompt within its chat template, the tokens
// padded to one length, the hidden states of some layers side by side.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/text/chat_template.h"
#include "model/text/decoder.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_byte_bpe.h"

namespace vkflux {

/// Whose prompts: FLUX.2 dev's, with a system message and padding on the left, or klein's, one message of the
/// user's with thinking switched off, padded on the right.
enum class PromptKind { mistral, qwen3 };
/// Hidden states that the published transformers read: 10, 20, 30 and 9, 18, 27.
std::vector<int64_t> published_states(PromptKind kind);
/// Those of "text_states" in model_index.json's "vkflux" section (any JSON), else `fallback`.
std::vector<int64_t> prompt_states(const io::Json& section, const std::string& origin,
                                   const std::vector<int64_t>& fallback);

/// A tokenizer with the chat template around every prompt.
class ChatTokenizer final : public Tokenizer {
 public:
  /// The template, the padding token and its side are what the tokenizer's files say, else what the published
  /// model has. special_in_prompt: special tokens that a prompt names become their ids, as in the reference;
  /// else they are text like any other. Error format without a padding token.
  ChatTokenizer(std::shared_ptr<const ByteBpe> bpe, PromptKind kind, bool special_in_prompt = true);

  /// Exactly `length` ids for each prompt and which of them are no padding; what is too long is cut.
  DecoderTokens tokens(const std::vector<std::string>& prompts, int length) const;

  /// The prompt's own ids, without those of the template.
  std::vector<int32_t> tokenize(std::string_view text) const override;
  std::vector<int32_t> encode(std::string_view text, int length) const override;
  std::string piece(int32_t id) const override { return bpe_->piece(id); }
  size_t room(int length) const override;
  int32_t pad_id() const override { return pad_; }
  int32_t eos_id() const override { return end_; }
  int32_t vocab_size() const override { return bpe_->vocab_size(); }

 private:
  std::vector<int32_t> whole(std::string_view prompt) const;
  std::string rendered(const std::string& prompt) const;
  std::pair<size_t, size_t> around() const;

  std::shared_ptr<const ByteBpe> bpe_;
  PromptKind kind_;
  bool special_in_prompt_;
  std::unique_ptr<const ChatTemplate> template_;  // null: the published one
  int32_t pad_ = 0, end_ = 0;
  bool pad_left_ = false, cut_left_ = false;
};

/// -> [B, T, states C], token by token the states one after the other. With padding on the left, of which
/// every row is the same, only the tokens that are there and one row of padding are computed.
Tensor encode_prompts(const DecoderLm& model, const DecoderTokens& tokens, const std::vector<int64_t>& states,
                      Trace* trace = nullptr);

}  // namespace vkflux
