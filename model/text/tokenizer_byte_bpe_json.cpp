// Reads tokenizer.json and vocab.json with merges.txt of byte-level BPE tokenizers.
#include <fmt/format.h>

#include <algorithm>

#include "model/text/tokenizer_byte_bpe.h"
#include "model/text/tokenizer_json.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using namespace tokenizer_json;
using Form = ByteBpeModel::Form;

[[noreturn]] void unsupported(const std::string& origin, const char* what, const json& value,
                              const char* known) {
  const std::string shown = value.is_object() ? text_of(value, "type") : io::json_text(value);
  throw Error(ErrorCode::unsupported, fmt::format("{}: the {} {} isn't computed; known are {}", origin, what,
                                                  io::shown(shown), known));
}

ByteBpeModel::Added added_of(const json& token, int64_t id, const std::string& origin) {
  ByteBpeModel::Added a;
  a.text = text_of(token, "content");
  a.id = id;
  const bool special = flag_of(token, "special", false, origin);
  a.normalized = flag_of(token, "normalized", !special, origin);
  a.left = flag_of(token, "lstrip", false, origin);
  a.right = flag_of(token, "rstrip", false, origin);
  a.single_word = flag_of(token, "single_word", false, origin);
  return a;
}

void take_vocabulary(const json& vocab, const std::string& origin, ByteBpeModel& out) {
  if (!vocab.is_object()) throw Error(ErrorCode::format, origin + ": the vocabulary is no object");
  for (const auto& [token, id] : vocab.items()) out.tokens.emplace_back(token, id_of(id, origin));
}

void take_merges(const json& merges, const std::string& origin, ByteBpeModel& out) {
  if (!merges.is_array()) throw Error(ErrorCode::format, origin + ": the merges are no array");
  size_t number = 0;
  for (const json& m : merges) {
    ++number;
    if (m.is_string()) {
      take_merge(m.get_ref<const std::string&>(), number, origin, out);
    } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      out.merges.emplace_back(m[0].get<std::string>(), m[1].get<std::string>());
    } else {
      throw Error(ErrorCode::format,
                  fmt::format("{}: merge {} is neither \"a b\" nor [\"a\", \"b\"]", origin, number));
    }
  }
}

void take_normalizer(const json& n, const std::string& origin, ByteBpeModel& out) {
  if (n.is_null()) return;
  const std::string type = text_of(n, "type");
  const std::pair<const char*, Form> known[] = {
      {"NFC", Form::nfc}, {"NFD", Form::nfd}, {"NFKC", Form::nfkc}, {"NFKD", Form::nfkd}};
  for (const auto& [name, form] : known) {
    if (type == name) return out.forms.push_back(form);
  }
  if (type != "Sequence" || !member(n, "normalizers").is_array())
    unsupported(origin, "normalizer", n, "NFC, NFD, NFKC, NFKD and Sequence");
  for (const json& inner : n["normalizers"]) take_normalizer(inner, origin, out);
}

void take_split(const json& p, const std::string& origin, ByteBpeModel& out) {
  const json& pattern = member(p, "pattern");
  std::string regex = text_of(pattern, "Regex");
  if (regex.empty()) {
    const std::string literal = text_of(pattern, "String");
    if (literal.empty()) throw Error(ErrorCode::format, origin + ": a Split without a pattern");
    for (const char c : literal) {
      const bool plain =
          (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c & 0x80);
      regex += plain ? std::string(1, c) : std::string("\\") + c;
    }
  }
  if (text_of(p, "behavior") != "Isolated" || flag_of(p, "invert", false, origin))
    unsupported(origin, "Split's behaviour", member(p, "behavior"), "Isolated without invert");
  out.steps.push_back({false, regex});
}

void take_pre_tokenizer(const json& p, const std::string& origin, ByteBpeModel& out, bool& bytes) {
  const std::string type = text_of(p, "type");
  if (type == "Sequence" && member(p, "pretokenizers").is_array()) {
    for (const json& inner : p["pretokenizers"]) take_pre_tokenizer(inner, origin, out, bytes);
  } else if (bytes) {
    unsupported(origin, "pre_tokenizer after ByteLevel", p, "none");
  } else if (type == "Split") {
    take_split(p, origin, out);
  } else if (type == "Digits") {
    out.steps.push_back({false, flag_of(p, "individual_digits", false, origin) ? R"(\p{N})" : R"(\p{N}+)"});
  } else if (type == "ByteLevel") {
    bytes = true;
    const bool regex = flag_of(p, "use_regex", true, origin);
    out.steps.push_back(
        {flag_of(p, "add_prefix_space", true, origin), regex ? std::string(kGpt2Pattern) : ""});
  } else {
    unsupported(origin, "pre_tokenizer", p, "Split, Digits, ByteLevel and Sequence");
  }
}

/// What stands around a text that is encoded by itself.
void take_post_processor(const json& p, const std::string& origin, ByteBpeModel& out) {
  const std::string type = text_of(p, "type");
  if (p.is_null() || type == "ByteLevel") return;
  if (type == "Sequence" && member(p, "processors").is_array()) {
    for (const json& inner : p["processors"]) take_post_processor(inner, origin, out);
    return;
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    for (const auto& [key, ids] : {std::pair{"cls", &out.before}, {"sep", &out.after}}) {
      const json& pair = member(p, key);
      if (!pair.is_array() || pair.size() != 2)
        throw Error(ErrorCode::format,
                    fmt::format("{}: the post_processor's \"{}\" isn't [token, id]", origin, key));
      ids->push_back(id_of(pair[1], origin));
    }
    return;
  }
  if (type != "TemplateProcessing" || !member(p, "single").is_array())
    unsupported(origin, "post_processor", p, "ByteLevel, TemplateProcessing, RobertaProcessing and Sequence");
  bool text = false;
  for (const json& piece : p["single"]) {
    if (!member(piece, "Sequence").is_null()) {
      text = true;
      continue;
    }
    const std::string name = text_of(member(piece, "SpecialToken"), "id");
    const json& ids = member(member(member(p, "special_tokens"), name.c_str()), "ids");
    if (name.empty() || !ids.is_array())
      throw Error(ErrorCode::format,
                  fmt::format("{}: the post_processor names the token \"{}\", which has no ids", origin,
                              io::shown(name)));
    for (const json& id : ids) (text ? out.after : out.before).push_back(id_of(id, origin));
  }
}

/// A side that is "left" or "right".
std::optional<bool> left_of(const json& object, const char* key, const std::string& origin) {
  const json& value = member(object, key);
  if (value.is_null()) return {};
  std::string side = value.is_string() ? value.get<std::string>() : io::json_text(value);
  std::transform(side.begin(), side.end(), side.begin(),
                 [](unsigned char c) { return c < 128 ? std::tolower(c) : c; });
  if (side != "left" && side != "right")
    throw Error(ErrorCode::format,
                fmt::format("{}: \"{}\" is {}, expected left or right", origin, key, io::shown(side)));
  return side == "left";
}

/// A token's text, written as a string or as an object with "content".
std::string role_of(const json& config, const char* key) {
  const json& value = member(config, key);
  return value.is_object() ? text_of(value, "content") : text_of(config, key);
}

std::string chat_template_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return {};
  for (const json& named : value) {
    if (text_of(named, "name") == "default") return text_of(named, "template");
  }
  return {};
}

void take_config(std::string_view text, ByteBpeModel& out) {
  const std::string origin = "tokenizer_config.json";
  const json config = object_of(text, origin);
  const json& added = member(config, "added_tokens_decoder");
  if (added.is_object()) {
    for (const auto& [id, token] : added.items()) {
      if (id.empty() || id.size() > 9 || id.find_first_not_of("0123456789") != std::string::npos)
        throw Error(ErrorCode::format,
                    fmt::format("{}: added_tokens_decoder has the key \"{}\", expected an id", origin,
                                io::shown(id)));
      add(out, added_of(token, std::stoll(id), origin));
    }
  }
  for (const auto& [key, role] :
       {std::pair{"bos_token", &out.start}, {"eos_token", &out.end}, {"pad_token", &out.pad}}) {
    if (const std::string token = role_of(config, key); !token.empty()) *role = token;
  }
  if (const auto side = left_of(config, "padding_side", origin)) out.pad_left = side;
  if (!text.empty() && !out.pad_left) out.pad_left = false;  // as tokenizers do that aren't told
  if (const auto side = left_of(config, "truncation_side", origin)) out.cut_left = side;
  if (const std::string chat = chat_template_of(member(config, "chat_template")); !chat.empty())
    out.chat_template = chat;
  const auto id_of_role = [&](const std::string& token) -> std::optional<int64_t> {
    for (const auto& a : out.added) {
      if (a.text == token) return a.id;
    }
    for (const auto& [t, id] : out.tokens) {
      if (t == token) return id;
    }
    return {};
  };
  // Said outright, these stand in place of the post_processor.
  if (member(config, "add_bos_token").is_null() && member(config, "add_eos_token").is_null()) return;
  out.before.clear(), out.after.clear();
  for (const auto& [key, token, ids] :
       {std::tuple{"add_bos_token", &out.start, &out.before}, {"add_eos_token", &out.end, &out.after}}) {
    if (!flag_of(config, key, false, origin)) continue;
    const auto id = id_of_role(*token);
    if (!id)
      throw Error(ErrorCode::format,
                  fmt::format("{}: \"{}\" is true, but the token \"{}\" isn't in the vocabulary", origin, key,
                              io::shown(*token)));
    ids->push_back(*id);
  }
}

/// Special tokens that have a role are found in texts, too.
void finish(ByteBpeModel& out) {
  for (const std::string& role : {out.start, out.end, out.pad}) {
    if (role.empty()) continue;
    const bool known =
        std::any_of(out.added.begin(), out.added.end(), [&](const auto& a) { return a.text == role; });
    for (const auto& [token, id] : out.tokens) {
      if (!known && token == role) add(out, {role, id});
    }
  }
}

}  // namespace

ByteBpeModel parse_byte_bpe_json(std::string_view text, std::string_view config) {
  const std::string origin = "tokenizer.json";
  const json root = object_of(text, origin);
  const json& model = member(root, "model");
  const std::string type = text_of(model, "type");
  if (!model.is_object() || (!type.empty() && type != "BPE") || !member(model, "vocab").is_object())
    throw Error(ErrorCode::format, fmt::format("{}: expected a byte-level BPE model, its type is \"{}\"",
                                               origin, io::shown(type)));
  ByteBpeModel out;
  take_vocabulary(model["vocab"], origin, out);
  take_merges(member(model, "merges"), origin, out);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_of(model, key).empty()) unsupported(origin, key, model[key], "none, as in byte-level BPE");
  }
  if (member(model, "dropout").is_number() && model["dropout"].get<double>() != 0)
    unsupported(origin, "dropout", model["dropout"], "none");
  if (flag_of(model, "byte_fallback", false, origin))
    unsupported(origin, "byte_fallback", model["byte_fallback"], "false");
  out.whole_first = flag_of(model, "ignore_merges", false, origin);
  out.fuse_unknown = flag_of(model, "fuse_unk", false, origin);
  if (const std::string unknown = text_of(model, "unk_token"); !unknown.empty()) {
    const json& id = member(model["vocab"], unknown.c_str());
    if (!id.is_null()) out.unknown = id_of(id, origin);
  }
  const json& added = member(root, "added_tokens");
  if (added.is_array()) {
    for (const json& token : added) add(out, added_of(token, id_of(member(token, "id"), origin), origin));
  }
  take_normalizer(member(root, "normalizer"), origin, out);
  bool bytes = false;
  take_pre_tokenizer(member(root, "pre_tokenizer"), origin, out, bytes);
  if (!bytes)
    unsupported(origin, "pre_tokenizer", member(root, "pre_tokenizer"), "those that end in ByteLevel");
  take_post_processor(member(root, "post_processor"), origin, out);
  if (member(root, "padding").is_object()) {
    out.pad_left = left_of(root["padding"], "direction", origin);
    out.pad = text_of(root["padding"], "pad_token");
  }
  if (member(root, "truncation").is_object()) out.cut_left = left_of(root["truncation"], "direction", origin);
  take_config(config, out);
  finish(out);
  return out;
}

ByteBpeModel parse_byte_bpe_files(std::string_view vocab, std::string_view merges, std::string_view added,
                                  std::string_view config) {
  ByteBpeModel out;
  take_vocabulary(object_of(vocab, "vocab.json"), "vocab.json", out);
  size_t number = 0;
  for (size_t at = 0; at < merges.size(); ++number) {
    const size_t end = std::min(merges.find('\n', at), merges.size());
    std::string_view line = merges.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !(number == 0 && line.starts_with("#version")))
      take_merge(line, number + 1, "merges.txt", out);
    at = end + 1;
  }
  out.forms = {Form::nfc};
  out.steps = {{false, std::string(kQwenPattern)}, {false, ""}};
  out.pad = out.end = "<|endoftext|>";
  const io::Json named = object_of(added, "added_tokens.json");
  for (const auto& [token, id] : named.items())
    add(out, {token, id_of(id, "added_tokens.json")});
  take_config(config, out);
  finish(out);
  return out;
}

}  // namespace vkflux
