#include "model/text/tokenizer_gguf.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/text/tokenizer_t5.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using io::Json;

const std::string kPrefix = "tokenizer.ggml.";

[[noreturn]] void bad(const std::string& key, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}{}: {}", kPrefix, key, what));
}

const Json* find(const Json& values, const std::string& key) {
  const auto it = values.find(kPrefix + key);
  return it == values.end() ? nullptr : &*it;
}

const Json& list(const Json& values, const std::string& key) {
  const Json* found = find(values, key);
  if (!found || !found->is_array()) bad(key, "it is missing, or no array");
  return *found;
}

bool flag(const Json& values, const std::string& key, bool fallback) {
  const Json* found = find(values, key);
  if (!found) return fallback;
  if (!found->is_boolean()) bad(key, "expected true or false");
  return found->get<bool>();
}

std::string charsmap(const Json& values) {
  const Json* found = find(values, "precompiled_charsmap");
  if (!found) return {};
  if (!found->is_array()) bad("precompiled_charsmap", "it is no array");
  std::string out;
  for (const Json& byte : *found) {
    if (!io::holds<int16_t>(byte) || byte.get<int16_t>() < -128 || byte.get<int16_t>() > 255)
      bad("precompiled_charsmap", "it has values that are no bytes");
    out.push_back(static_cast<char>(byte.get<int16_t>()));
  }
  return out;
}

bool is_extra(const UnigramModel::Piece& piece) {
  return piece.text.starts_with("<extra_id_") && piece.text.ends_with(">");
}

/// The text of the piece that has a role, or what the model has without one.
std::string role(const Json& values, const std::string& key, const UnigramModel& model,
                 const std::string& fallback) {
  const Json* found = find(values, key);
  if (!found) return fallback;
  if (!io::holds<uint32_t>(*found) || found->get<uint32_t>() >= model.pieces.size())
    bad(key, fmt::format("it is {}, of {} pieces", io::shown(io::json_text(*found)), model.pieces.size()));
  return model.pieces[found->get<uint32_t>()].text;
}

}  // namespace

bool has_gguf_unigram(const Json& values) {
  const Json* kind = find(values, "model");
  return kind && kind->is_string() && kind->get_ref<const std::string&>() == "t5";
}

UnigramModel parse_gguf_unigram(const Json& values) {
  const Json &tokens = list(values, "tokens"), &scores = list(values, "scores"),
             &types = list(values, "token_type");
  if (scores.size() != tokens.size() || types.size() != tokens.size())
    bad("tokens", fmt::format("{} pieces, {} scores and {} types don't go together", tokens.size(),
                              scores.size(), types.size()));
  UnigramModel model;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!tokens[i].is_string() || !scores[i].is_number() || !io::holds<uint32_t>(types[i]))
      bad("tokens", fmt::format("piece {} is no text with a score and a type", i));
    model.pieces.push_back({tokens[i].get<std::string>(), scores[i].get<float>(), types[i].get<uint32_t>()});
  }
  model.end = role(values, "eos_token_id", model, model.end);
  model.pad = role(values, "padding_token_id", model, model.pad);
  // What fills the embedding's rows up is no piece, and the extra ids are told from text by whole.
  while (!model.pieces.empty()) {
    const UnigramModel::Piece& last = model.pieces.back();
    const auto id = static_cast<int32_t>(model.pieces.size() - 1);
    if (is_extra(last)) {
      model.added[last.text] = id;
    } else if (last.type != UnigramModel::unused) {
      break;
    }
    model.pieces.pop_back();
  }
  model.charsmap = charsmap(values);
  model.add_dummy_prefix = flag(values, "add_space_prefix", true);
  model.remove_extra_whitespaces = flag(values, "remove_extra_whitespaces", true);
  model.add_published_extra_ids();
  model.check();
  return model;
}

std::unique_ptr<Tokenizer> t5_tokenizer_from_gguf(const Json& values, const std::string& origin) {
  const ErrorContext context(origin);
  return std::make_unique<T5Tokenizer>(parse_gguf_unigram(values));
}

}  // namespace vkflux
