#include "train/data/chat_tokenizer_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "model/io/file.h"
#include "model/io/json.h"
#include "train/data/bpe_merges.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using io::Json;

constexpr int kLeastVocabulary = 300;
constexpr const char *kEnd = "<|endoftext|>", *kTurnEnd = "<|im_end|>";
const std::vector<std::string> kSpecial{kEnd, "<|im_start|>", kTurnEnd, "<think>", "</think>"};

/// Turns between their marks; with thinking switched off the model's own begins behind an empty thought.
constexpr std::string_view kTemplate =
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}";

ByteBpeModel bytes_alone() {
  ByteBpeModel m;
  for (const uint8_t byte : byte_order())
    m.tokens.emplace_back(byte_alphabet()[byte], static_cast<int64_t>(m.tokens.size()));
  m.forms = {ByteBpeModel::Form::nfc};
  m.steps = {{false, std::string(kQwenPattern)}, {false, ""}};
  return m;
}

std::vector<BpeWord> words_of(const std::vector<TrainingText>& texts) {
  const ByteBpe cutter(bytes_alone());
  std::map<std::string, int64_t> counts;
  int64_t all = 1;
  for (const TrainingText& text : texts) {
    all += text.weight;
    for (const std::string& piece : cutter.pieces(text.text)) counts[piece] += text.weight;
  }
  // In every prompt, but in no caption.
  for (const char* fixed : {"user", "assistant", "\n\n"}) counts[fixed] += all;
  std::vector<BpeWord> words;
  for (const auto& [piece, count] : counts) {
    BpeWord word{{}, count};
    for (const char c : piece) word.symbols.push_back(byte_alphabet()[static_cast<uint8_t>(c)]);
    words.push_back(std::move(word));
  }
  return words;
}

void write_json(const fs::path& path, const Json& value) {
  io::atomic_write(path.string(), io::json_text(value, 2) + "\n");
}

Json added_token(const std::string& text) {
  return {{"content", text}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false},  {"special", text.starts_with("<|")}};
}

}  // namespace

ByteBpeModel train_chat_bpe(const std::vector<TrainingText>& texts, int vocab_size) {
  if (vocab_size < kLeastVocabulary)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("vocabulary of {}: expected at least {}", vocab_size, kLeastVocabulary));
  ByteBpeModel m = bytes_alone();
  std::map<std::string, int64_t> known(m.tokens.begin(), m.tokens.end());
  const auto room = static_cast<size_t>(vocab_size) - kSpecial.size();
  learn_merges(
      words_of(texts), [&] { return m.tokens.size() < room; },
      [&](const BpePair& pair) {
        m.merges.push_back(pair);
        const auto id = static_cast<int64_t>(m.tokens.size());
        if (known.emplace(pair.first + pair.second, id).second)
          m.tokens.emplace_back(pair.first + pair.second, id);
      });
  for (const std::string& token : kSpecial)
    m.added.push_back({token, static_cast<int64_t>(m.tokens.size() + m.added.size())});
  m.pad = kEnd, m.end = kTurnEnd;
  m.chat_template = kTemplate;
  return m;
}

void write_chat_tokenizer(const fs::path& folder, const ByteBpeModel& m, int max_length) {
  Json vocab = Json::object(), merges = Json::array(), added = Json::array(), decoder = Json::object();
  std::string lines = "#version: 0.2\n";
  for (const auto& [token, id] : m.tokens) vocab[token] = id;
  for (const auto& [left, right] : m.merges) {
    merges.push_back({left, right});
    lines += fmt::format("{} {}\n", left, right);
  }
  for (const ByteBpeModel::Added& token : m.added) {
    Json entry{{"id", token.id}};
    entry.update(added_token(token.text));
    added.push_back(entry);
    decoder[std::to_string(token.id)] = added_token(token.text);
  }
  const Json bytes{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const Json split{
      {"type", "Split"}, {"pattern", {{"Regex", kQwenPattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  write_json(folder / "tokenizer.json",
             {{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens", added},
              {"normalizer", {{"type", "NFC"}}},
              {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split, bytes})}}},
              {"post_processor", bytes},
              {"decoder", bytes},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", ""},
                {"end_of_word_suffix", ""},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false},
                {"vocab", vocab},
                {"merges", merges}}}});
  io::atomic_write((folder / "vocab.json").string(), io::json_text(vocab) + "\n");
  io::atomic_write((folder / "merges.txt").string(), lines);
  io::atomic_write((folder / "chat_template.jinja").string(), m.chat_template);
  write_json(folder / "tokenizer_config.json", {{"add_bos_token", false},
                                                {"add_prefix_space", false},
                                                {"added_tokens_decoder", decoder},
                                                {"bos_token", nullptr},
                                                {"chat_template", m.chat_template},
                                                {"clean_up_tokenization_spaces", false},
                                                {"eos_token", m.end},
                                                {"errors", "replace"},
                                                {"model_max_length", max_length},
                                                {"pad_token", m.pad},
                                                {"padding_side", "right"},
                                                {"split_special_tokens", false},
                                                {"tokenizer_class", "Qwen2Tokenizer"},
                                                {"unk_token", nullptr}});
}

bool has_chat_tokenizer(const std::filesystem::path& folder) {
  const std::filesystem::path own = folder / "tokenizer";
  return io::is_there((own / "tokenizer.json").string()) &&
         io::is_there((own / "chat_template.jinja").string());
}

}  // namespace vkflux
