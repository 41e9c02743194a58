// T5's tokenizer: a SentencePiece unigram model through the SentencePiece library.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/text/tokenizer.h"
#include "model/text/tokenizer_spiece.h"

namespace vkflux {

class T5Tokenizer final : public Tokenizer {
 public:
  /// Error format when the model has no end or padding piece, or the library refuses it.
  explicit T5Tokenizer(const UnigramModel& model);
  ~T5Tokenizer() override;

  std::vector<int32_t> tokenize(std::string_view text) const override;
  /// Content cut to length - 1, end, padding. `length` is at least 1.
  std::vector<int32_t> encode(std::string_view text, int length) const override;
  std::string piece(int32_t id) const override;
  size_t room(int length) const override { return static_cast<size_t>(std::max(0, length - 1)); }
  int32_t pad_id() const override { return pad_; }
  int32_t eos_id() const override { return end_; }
  int32_t vocab_size() const override { return size_; }

 private:
  struct Processor;
  std::unique_ptr<Processor> processor_;
  std::map<std::string, int32_t, std::less<>> special_;  // tokens that are cut out of a text
  std::vector<std::string> pieces_;
  int32_t pad_ = 0, end_ = 0, size_ = 0;
};

}  // namespace vkflux
