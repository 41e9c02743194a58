#include "model/text/tokenizer_spiece.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <unordered_set>

#include "model/io/json.h"
#include "model/text/base64.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kMaxPieces = 4'000'000;
constexpr size_t kMaxPieceBytes = 512;
constexpr size_t kMaxReplacementBytes = 256;  // bounds how much longer a text can become; NFKC needs 33
constexpr float kMaxScore = 1e6f;

[[noreturn]] void bad(const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("not a usable SentencePiece model: {}", what));
}

/// One field of a protobuf message: a number (wire types 0 and 5) or a run of bytes (wire type 2).
struct Field {
  uint32_t number = 0;
  uint64_t value = 0;
  std::string_view bytes;
};

class ProtoReader {
 public:
  explicit ProtoReader(std::string_view message) : rest_(message) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const uint64_t tag = varint();
    Field field{static_cast<uint32_t>(tag >> 3), 0, {}};
    switch (tag & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5: {
        const std::string_view word = take(4);
        for (size_t i = 4; i-- > 0;) field.value = field.value << 8 | static_cast<uint8_t>(word[i]);
        break;
      }
      default:
        bad(fmt::format("wire type {} in its protobuf", tag & 7));
    }
    return field;
  }

 private:
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) bad(fmt::format("a field of {} bytes where {} are left", size, rest_.size()));
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    bad("a number of over 64 bits in its protobuf");
  }

  std::string_view rest_;
};

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_number(std::string& out, uint32_t field, uint64_t value) {
  put_varint(out, field << 3);
  put_varint(out, value);
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

UnigramModel::Piece read_piece(std::string_view message) {
  UnigramModel::Piece piece;
  ProtoReader reader(message);
  while (const auto field = reader.next()) {
    if (field->number == 1) piece.text = field->bytes;
    if (field->number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
    if (field->number == 3) piece.type = static_cast<uint32_t>(field->value);
  }
  return piece;
}

void read_trainer(std::string_view message, UnigramModel& model) {
  ProtoReader reader(message);
  while (const auto field = reader.next()) {
    if (field->number == 3 && field->value != 1) bad("it is of another kind than unigram");
    if (field->number == 24 && field->value != 0) bad("it marks spaces after words, T5's are before");
    if (field->number == 47) model.end = field->bytes;
    if (field->number == 48) model.pad = field->bytes;
  }
}

void read_normalizer(std::string_view message, UnigramModel& model) {
  ProtoReader reader(message);
  while (const auto field = reader.next()) {
    if (field->number == 2) model.charsmap = field->bytes;
    if (field->number == 3) model.add_dummy_prefix = field->value != 0;
    if (field->number == 4) model.remove_extra_whitespaces = field->value != 0;
    if (field->number == 5) model.escape_whitespaces = field->value != 0;
  }
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    utf8proc_int32_t codepoint = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                    static_cast<utf8proc_ssize_t>(text.size()), &codepoint);
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

uint32_t little_endian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

/// Follows every path through the character map's double-array trie (units of 32 bits: label in bits 0..7,
/// leaf flag 8, offset in the rest with bit 9 for a shift by 8) and checks that each step a lookup could take
/// stays inside.
void check_charsmap(std::string_view map) {
  if (map.empty()) return;
  const size_t trie_bytes = map.size() < 4 ? 0 : little_endian(map, 0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= map.size() - 4)
    bad("the sizes in its character map don't add up");
  const std::string_view strings = map.substr(4 + trie_bytes);
  const size_t n = trie_bytes / 4;
  const auto unit = [&](size_t at) {
    if (at >= n) bad(fmt::format("its character map points to unit {} of {}", at, n));
    return little_endian(map, 4 + 4 * at);
  };
  const auto offset = [](uint32_t u) { return size_t{u >> 10} << ((u & 0x200u) >> 6); };
  std::vector<char> seen(n, 0);
  std::vector<size_t> bases{offset(unit(0))};
  while (!bases.empty()) {
    const size_t base = bases.back();
    bases.pop_back();
    for (size_t label = 0; label < 256; ++label) {
      const size_t at = base ^ label;
      const uint32_t u = unit(at);
      if ((u & 0x800000FFu) != label || seen[at]) continue;
      seen[at] = 1;
      const size_t next = at ^ offset(u);
      bases.push_back(next);
      if ((u >> 8 & 1) == 0) continue;
      const size_t value = unit(next) & 0x7FFFFFFFu;
      if (value >= strings.size()) bad("its character map points past its strings");
      const std::string_view replacement = strings.substr(value, strings.find('\0', value) - value);
      if (replacement.size() > kMaxReplacementBytes) {
        bad(fmt::format("its character map replaces a character by {} bytes", replacement.size()));
      }
    }
  }
}

/// T5's normaliser is the character map, in newer files followed by steps for white space, which the model
/// does anyway.
void read_json_normalizer(const nlohmann::json& step, UnigramModel& model) {
  if (step.is_null()) return;
  const std::string type = step.is_object() && step.contains("type") && step["type"].is_string()
                               ? step["type"].get<std::string>()
                               : "";
  if (type == "Sequence" && step.contains("normalizers") && step["normalizers"].is_array()) {
    for (const auto& inner : step["normalizers"]) read_json_normalizer(inner, model);
  } else if (type == "Precompiled" && step.contains("precompiled_charsmap") &&
             step["precompiled_charsmap"].is_string()) {
    const auto charsmap = decode_base64(step["precompiled_charsmap"].get_ref<const std::string&>());
    if (!charsmap) bad("\"precompiled_charsmap\" isn't base64");
    model.charsmap = *charsmap;
  } else if (type != "Strip" && type != "Replace") {
    bad(fmt::format("normalizer of type \"{}\"; expected Precompiled, as T5's", type));
  }
}

void read_json_vocab(const nlohmann::json& vocab, UnigramModel& model) {
  for (const auto& entry : vocab) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      bad(fmt::format("vocab entry {} isn't [piece, score]", model.pieces.size()));
    }
    model.pieces.push_back({entry[0].get<std::string>(), entry[1].get<float>(), UnigramModel::normal});
  }
}

int32_t added_id(const nlohmann::json& id, const std::string& origin) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMaxPieces) {
    throw Error(ErrorCode::format,
                fmt::format("{}: an added token's id is {}", origin, io::json_text(id).substr(0, 40)));
  }
  return id.get<int32_t>();
}

}  // namespace

void UnigramModel::check() const {
  if (pieces.empty() || pieces.size() > kMaxPieces)
    bad(fmt::format("{} pieces; expected 1 to {}", pieces.size(), kMaxPieces));
  std::unordered_set<std::string_view> texts;
  size_t unknowns = 0;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& p = pieces[id];
    const bool good_text = !p.text.empty() && p.text.size() <= kMaxPieceBytes && is_utf8(p.text) &&
                           p.text.find('\0') == std::string::npos && texts.insert(p.text).second;
    if (!good_text || !(std::abs(p.score) <= kMaxScore) || p.type < normal || p.type > byte) {
      bad(fmt::format(
          "piece {} (of {} bytes, score {}, type {}) is empty, too long, doubled, not UTF-8 or has a value "
          "out of range",
          id, p.text.size(), p.score, p.type));
    }
    unknowns += p.type == unknown ? 1 : 0;
  }
  for (const auto& [text, id] : added) {
    if (text.empty() || text.size() > kMaxPieceBytes || id < 0 || static_cast<size_t>(id) >= kMaxPieces)
      bad(fmt::format("an added token of {} bytes has id {}", text.size(), id));
  }
  if (unknowns != 1) bad(fmt::format("{} pieces for unknown text; expected one", unknowns));
  check_charsmap(charsmap);
}

std::string UnigramModel::to_proto() const {
  std::string out, unknown_text;
  bool has_bytes = false;
  int64_t unknown_id = -1, end_id = -1, pad_id = -1;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& p = pieces[id];
    if (p.type == unknown) unknown_id = static_cast<int64_t>(id);
    if (p.text == end) end_id = static_cast<int64_t>(id);
    if (p.text == pad) pad_id = static_cast<int64_t>(id);
    std::string message;
    put_bytes(message, 1, p.text);
    put_varint(message, 2 << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(p.score);
    for (unsigned shift = 0; shift < 32; shift += 8) message.push_back(static_cast<char>(bits >> shift));
    put_number(message, 3, p.type);
    put_bytes(out, 1, message);
    if (p.type == unknown) unknown_text = p.text;
    has_bytes = has_bytes || p.type == byte;
  }
  std::string trainer, normalizer;
  put_number(trainer, 3, 1);
  put_number(trainer, 4, pieces.size());
  put_number(trainer, 35, has_bytes ? 1 : 0);
  // Who builds a tokenizer from the file believes these ids, whose defaults are another model's.
  put_number(trainer, 40, static_cast<uint64_t>(unknown_id));
  put_number(trainer, 41, ~uint64_t{0});  // -1: there is no start
  put_number(trainer, 42, static_cast<uint64_t>(end_id));
  put_number(trainer, 43, static_cast<uint64_t>(pad_id));
  put_bytes(trainer, 45, unknown_text);
  put_bytes(trainer, 47, end);
  put_bytes(trainer, 48, pad);
  put_bytes(out, 2, trainer);
  if (!charsmap.empty()) put_bytes(normalizer, 2, charsmap);
  put_number(normalizer, 3, add_dummy_prefix ? 1 : 0);
  put_number(normalizer, 4, remove_extra_whitespaces ? 1 : 0);
  put_number(normalizer, 5, escape_whitespaces ? 1 : 0);
  put_bytes(out, 3, normalizer);
  return out;
}

void UnigramModel::add_published_extra_ids() {
  constexpr int32_t kPublished = 32000, kExtra = 100;
  if (pieces.size() != kPublished || !added.empty()) return;
  for (int32_t i = 0; i < kExtra; ++i) added[fmt::format("<extra_id_{}>", i)] = kPublished + kExtra - 1 - i;
}

UnigramModel parse_sentencepiece(std::string_view bytes) {
  UnigramModel model;
  ProtoReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == 1) model.pieces.push_back(read_piece(field->bytes));
    if (field->number == 2) read_trainer(field->bytes, model);
    if (field->number == 3) read_normalizer(field->bytes, model);
    if (model.pieces.size() > kMaxPieces) bad(fmt::format("over {} pieces", kMaxPieces));
  }
  model.check();
  return model;
}

UnigramModel parse_unigram_json(std::string_view text) {
  const auto root = io::parse_sorted_json(text, "tokenizer.json");
  const auto model_json = root.is_object() ? root.value("model", nlohmann::json()) : nlohmann::json();
  if (!model_json.is_object() || model_json.value("type", nlohmann::json("Unigram")) != "Unigram" ||
      !model_json.contains("vocab") || !model_json["vocab"].is_array()) {
    bad("tokenizer.json has no Unigram model with a \"vocab\" array");
  }
  UnigramModel model;
  read_json_vocab(model_json["vocab"], model);
  std::map<std::string, size_t> ids;
  for (size_t id = 0; id < model.pieces.size(); ++id) ids.emplace(model.pieces[id].text, id);
  const auto added = root.value("added_tokens", nlohmann::json::array());
  for (const auto& token : added) {  // special tokens never match text
    if (!token.is_object() || token.value("special", nlohmann::json(false)) != true) continue;
    const auto content = token.value("content", nlohmann::json());
    const auto found = content.is_string() ? ids.find(content.get<std::string>()) : ids.end();
    if (found != ids.end()) {
      model.pieces[found->second].type = UnigramModel::control;
    } else if (content.is_string()) {
      model.added[content.get<std::string>()] =
          added_id(token.value("id", nlohmann::json()), "tokenizer.json");
    }
  }
  const auto unk = model_json.value("unk_id", nlohmann::json());
  if (!unk.is_number_unsigned() || unk.get<uint64_t>() >= model.pieces.size())
    bad("\"unk_id\" is missing or out of range");
  model.pieces[unk.get<size_t>()].type = UnigramModel::unknown;
  read_json_normalizer(root.value("normalizer", nlohmann::json()), model);
  model.check();
  return model;
}

void add_configured_tokens(std::string_view config, UnigramModel& model) {
  if (config.empty()) return;
  const std::string origin = "tokenizer_config.json";
  const auto json = io::parse_sorted_json(config, origin);
  if (!json.is_object()) throw Error(ErrorCode::format, origin + ": expected a JSON object");
  const auto listed = json.find("added_tokens_decoder");
  if (listed != json.end() && listed->is_object()) {
    for (const auto& [key, token] : listed->items()) {
      const auto text = token.is_object() ? token.value("content", nlohmann::json()) : nlohmann::json();
      const bool digits = !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == key.npos;
      if (!digits || !text.is_string())
        throw Error(ErrorCode::format, fmt::format("{}: added_tokens_decoder has an unusable entry", origin));
      model.added[text.get<std::string>()] = std::stoi(key);
    }
  } else if (const auto count = json.find("extra_ids"); count != json.end() && !count->is_null()) {
    constexpr int32_t kMostExtra = 100'000;
    const int32_t extra = added_id(*count, origin);
    if (extra > kMostExtra)
      throw Error(ErrorCode::format, fmt::format("{}: {} extra ids; at most {}", origin, extra, kMostExtra));
    const auto first = static_cast<int32_t>(model.pieces.size());
    for (int32_t i = 0; i < extra; ++i) model.added[fmt::format("<extra_id_{}>", i)] = first + extra - 1 - i;
  }
  model.check();
}

}  // namespace vkflux
