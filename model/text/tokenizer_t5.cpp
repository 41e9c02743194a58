#include "model/text/tokenizer_t5.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <utf8proc.h>

#include <algorithm>

#include "model/io/file.h"
#include "model/text/tokenizer_bpe.h"
#include "vk/error.h"

namespace vkflux {
namespace {

int32_t id_of(const UnigramModel& model, const std::string& text, std::string_view role) {
  const auto found =
      std::find_if(model.pieces.begin(), model.pieces.end(), [&](const auto& p) { return p.text == text; });
  if (found == model.pieces.end()) {
    throw Error(ErrorCode::format, fmt::format("the model has no {} piece \"{}\"", role, io::shown(text)));
  }
  return static_cast<int32_t>(found - model.pieces.begin());
}

}  // namespace

struct T5Tokenizer::Processor {
  sentencepiece::SentencePieceProcessor library;
};

T5Tokenizer::T5Tokenizer(const UnigramModel& model) : processor_(std::make_unique<Processor>()) {
  model.check();
  pad_ = id_of(model, model.pad, "padding");
  end_ = id_of(model, model.end, "end");
  size_ = static_cast<int32_t>(model.pieces.size());
  for (const UnigramModel::Piece& p : model.pieces) {
    if (p.type == UnigramModel::control || p.type == UnigramModel::unknown)
      special_[p.text] = static_cast<int32_t>(pieces_.size());
    pieces_.push_back(p.text);
  }
  for (const auto& [text, id] : model.added) {
    special_[text] = id;
    size_ = std::max(size_, id + 1);
  }
  std::string reason;
  try {
    const auto status = processor_->library.LoadFromSerializedProto(model.to_proto());
    if (status.ok()) return;
    reason = status.ToString();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  throw Error(ErrorCode::format, fmt::format("SentencePiece refuses the model: {}", reason));
}

T5Tokenizer::~T5Tokenizer() = default;

std::vector<int32_t> T5Tokenizer::tokenize(std::string_view text) const {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("text of {} bytes; a prompt has at most {}", text.size(), kMaxTextBytes));
  }
  for (std::string_view rest = text; !rest.empty();) {
    utf8proc_int32_t codepoint = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                                    static_cast<utf8proc_ssize_t>(rest.size()), &codepoint);
    if (n < 0) {
      throw Error(ErrorCode::invalid_argument, fmt::format("text of {} bytes isn't valid UTF-8, at byte {}",
                                                           text.size(), text.size() - rest.size()));
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  std::vector<int32_t> ids;
  for (const TextSpan& span : cut_special_tokens(text, special_)) {
    if (span.special >= 0) {
      ids.push_back(span.special);
      continue;
    }
    std::vector<int> part;
    const auto status = processor_->library.Encode(span.text, &part);
    if (!status.ok()) throw Error(ErrorCode::internal, fmt::format("SentencePiece: {}", status.ToString()));
    ids.insert(ids.end(), part.begin(), part.end());
  }
  return ids;
}

std::string T5Tokenizer::piece(int32_t id) const {
  if (id >= 0 && static_cast<size_t>(id) < pieces_.size()) return pieces_[static_cast<size_t>(id)];
  const auto found =
      std::find_if(special_.begin(), special_.end(), [&](const auto& entry) { return entry.second == id; });
  return found == special_.end() ? std::string() : found->first;
}

std::vector<int32_t> T5Tokenizer::encode(std::string_view text, int length) const {
  if (length < 1) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("T5 tokens: length {}; expected at least 1, for the end", length));
  }
  auto ids = tokenize(text);
  ids.resize(std::min(ids.size(), room(length)));
  ids.push_back(end_);
  ids.resize(static_cast<size_t>(length), pad_);
  return ids;
}

}  // namespace vkflux
