#include "train/data/tokenizer_training.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/text/characters.h"
#include "train/data/bpe_merges.h"
#include "train/data/emoji_list.h"
#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr const char *kEndOfWord = "</w>", *kClipFolder = "tokenizer", *kT5Folder = "tokenizer_2";
constexpr int kMaxSentenceBytes = 1 << 18;  // SentencePiece leaves out longer ones
constexpr int kByteSymbols = 512;

std::vector<BpeWord> count_words(const std::vector<TrainingText>& texts) {
  const PieceSplitter splitter({}, kClipPattern);
  std::map<std::string, int64_t> counts;
  for (const TrainingText& text : texts) {
    const std::string clean = normalize_clip_text(text.text);
    for (std::string_view piece : splitter.split(clean)) counts[std::string(piece)] += text.weight;
  }
  std::vector<BpeWord> words;
  for (const auto& [piece, count] : counts) {
    BpeWord word{{}, count};
    for (char c : piece) word.symbols.push_back(byte_alphabet()[static_cast<uint8_t>(c)]);
    word.symbols.back() += kEndOfWord;
    words.push_back(std::move(word));
  }
  return words;
}

void write_json(const fs::path& path, const io::Json& value) {
  io::atomic_write(path.string(), io::json_text(value, 2) + "\n");
}

class TextIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit TextIterator(const std::vector<TrainingText>& texts) : texts_(texts) { settle(); }
  bool done() const override { return at_ >= texts_.size(); }
  void Next() override {
    ++repeat_;
    settle();
  }
  const std::string& value() const override { return texts_[at_].text; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  void settle() {
    while (!done() && (texts_[at_].text.empty() || repeat_ >= texts_[at_].weight)) {
      ++at_;
      repeat_ = 0;
    }
  }
  const std::vector<TrainingText>& texts_;
  size_t at_ = 0;
  int repeat_ = 0;
};

/// Characters that the normaliser reads as caption_text() does; it leaves others as they are.
bool is_normalised(uint32_t c) {
  return (c >= 0x21 && c <= 0x7E) || (c >= 0xA0 && c <= 0x17F) || (c >= 0x2010 && c <= 0x2027) || c == '\t' ||
         c == '\n' || c == '\r';
}

/// Whether anything of a text is left by the normaliser. SentencePiece ends the process over a corpus of
/// nothing.
bool has_letters(const TrainingText& text) {
  constexpr char32_t kSpaceSymbol = 0x2581;  // SentencePiece's own
  const std::u32string characters = to_characters(text.text);
  return text.weight > 0 && std::any_of(characters.begin(), characters.end(), [](char32_t c) {
           return is_normalised(c) ? !caption_text(to_utf8(std::u32string(1, c))).empty()
                                   : c != kSpaceSymbol && !is_space(c);
         });
}

/// The texts with spaces in place of rare characters, where there are too many for a vocabulary, as of
/// thousands of Chinese ones: the most frequent take half of it. SentencePiece refuses texts that it has no
/// room for.
std::vector<TrainingText> without_rare_characters(std::vector<TrainingText> texts, int vocab_size) {
  constexpr size_t kReserve = 64;  // special pieces, and some words
  std::map<char32_t, int64_t> counts;
  for (const TrainingText& text : texts) {
    for (const char32_t c : to_characters(text.text)) counts[c] += text.weight;
  }
  const size_t room = vocab_size > 0 ? static_cast<size_t>(vocab_size) : 0;
  if (counts.size() + kReserve <= room || counts.size() <= room / 2) return texts;
  std::vector<std::pair<int64_t, char32_t>> falling;
  for (const auto& [c, count] : counts) falling.emplace_back(-count, c);
  std::sort(falling.begin(), falling.end());
  for (size_t i = room / 2; i < falling.size(); ++i) counts.erase(falling[i].second);
  for (TrainingText& text : texts) {
    std::u32string characters = to_characters(text.text);
    for (char32_t& c : characters) c = counts.count(c) ? c : U' ';
    text.text = to_utf8(characters);
  }
  return texts;
}

/// Normalisation rules in SentencePiece's form: hexadecimal source, tab, hexadecimal replacement.
std::string normalization_rules() {
  std::string rules;
  const auto add = [&](uint32_t from) {
    const std::string plain = caption_text(to_utf8(std::u32string(1, from)));
    const std::string text = plain.empty() ? " " : plain;
    if (text.size() == 1 && static_cast<uint32_t>(text[0]) == from) return;
    rules += fmt::format("{:X}\t", from);
    for (size_t i = 0; i < text.size(); ++i)
      rules += fmt::format("{}{:X}", i ? " " : "", static_cast<uint8_t>(text[i]));
    rules += '\n';
  };
  for (uint32_t c = 0; c <= 0x2027; ++c) {
    if (is_normalised(c)) add(c);
  }
  return rules;
}

/// SentencePiece reads the rules from a file only.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& contents) {
    std::string name = temporary_folder() + "/vkflux_rules_XXXXXX";
    const int fd = ::mkstemp(name.data());
    if (fd < 0) throw Error(ErrorCode::io, fmt::format("{}: cannot make a temporary file", name));
    ::close(fd);
    path_ = name;
    io::atomic_write(path_, contents);
  }
  ~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// SentencePiece's first candidates are strings found in two distinct words, so a word that stands in no
/// other would never be a piece. Its plural, once, makes it one.
std::vector<TrainingText> with_plurals(const std::vector<TrainingText>& texts) {
  std::set<std::string> words;
  for (const TrainingText& text : texts) {
    const std::string clean = caption_text(text.text);
    for (size_t at = 0; at < clean.size();) {
      const size_t end = std::min(clean.find(' ', at), clean.size());
      words.insert(clean.substr(at, end - at));
      at = end + 1;
    }
  }
  std::vector<TrainingText> out = texts;
  for (const std::string& word : words) out.push_back({word + "s", 1});
  return out;
}

}  // namespace

ClipVocabulary train_clip_bpe(const std::vector<TrainingText>& texts, int vocab_size) {
  if (vocab_size < kByteSymbols + 3) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("vocabulary of {}: expected at least {} (bytes, one merge, start, end)",
                            vocab_size, kByteSymbols + 3));
  }
  ClipVocabulary out;
  int64_t id = 0;
  for (const char* suffix : {"", kEndOfWord}) {
    for (uint8_t byte : byte_order()) out.ids[byte_alphabet()[byte] + suffix] = id++;
  }
  learn_merges(
      count_words(texts), [&] { return id < vocab_size - 2; },
      [&](const BpePair& pair) {
        out.merges.push_back(pair);
        if (out.ids.try_emplace(pair.first + pair.second, id).second) ++id;
      });
  for (const std::string& token : {out.start, out.end}) out.special[token] = out.ids[token] = id++;
  out.pad = out.unknown = out.end;
  return out;
}

void write_clip_tokenizer(const fs::path& folder, const ClipVocabulary& vocabulary, int max_length) {
  std::vector<const std::string*> by_id(vocabulary.ids.size());
  for (const auto& [token, id] : vocabulary.ids) by_id.at(static_cast<size_t>(id)) = &token;
  io::Json vocab = io::Json::object();
  for (size_t id = 0; id < by_id.size(); ++id) vocab[*by_id[id]] = id;
  std::string merges = "#version: 0.2\n";
  for (const auto& [left, right] : vocabulary.merges) merges += fmt::format("{} {}\n", left, right);
  io::Json roles{{"bos_token", vocabulary.start},
                 {"eos_token", vocabulary.end},
                 {"pad_token", vocabulary.pad},
                 {"unk_token", vocabulary.unknown}};
  io::atomic_write((folder / "vocab.json").string(), io::json_text(vocab) + "\n");
  io::atomic_write((folder / "merges.txt").string(), merges);
  write_json(folder / "special_tokens_map.json", roles);
  roles["do_lower_case"] = true;
  roles["add_prefix_space"] = false;
  roles["model_max_length"] = max_length;
  roles["tokenizer_class"] = "CLIPTokenizer";
  write_json(folder / "tokenizer_config.json", roles);
}

std::string train_t5_unigram(const std::vector<TrainingText>& texts, int vocab_size) {
  const std::vector<TrainingText> common = without_rare_characters(texts, vocab_size);
  if (std::none_of(common.begin(), common.end(), has_letters)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} captions have no letters or digits to make a tokenizer from", texts.size()));
  }
  const TemporaryFile rules(normalization_rules());
  const std::unordered_map<std::string, std::string> settings{
      {"model_type", "unigram"},
      {"vocab_size", fmt::format("{}", vocab_size)},
      {"hard_vocab_limit", "false"},
      {"character_coverage", "1.0"},
      {"max_sentence_length", fmt::format("{}", kMaxSentenceBytes)},
      {"normalization_rule_tsv", rules.path()},
      {"num_threads", "1"},  // the sums of the EM steps depend on the number of threads
      {"shuffle_input_sentence", "false"},
      {"pad_id", "0"},
      {"eos_id", "1"},
      {"unk_id", "2"},
      {"bos_id", "-1"},
      {"minloglevel", "2"}};
  const std::vector<TrainingText> corpus = with_plurals(common);
  TextIterator iterator(corpus);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
  if (!status.ok()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("SentencePiece training: {}", status.ToString()));
  }
  return parse_sentencepiece(model)
      .to_proto();  // without the settings of the training, whose temporary path would differ
}

void write_t5_tokenizer(const fs::path& folder, const std::string& model, int max_length) {
  io::Json roles{{"eos_token", "</s>"}, {"pad_token", "<pad>"}, {"unk_token", "<unk>"}};
  io::atomic_write((folder / "spiece.model").string(), model);
  write_json(folder / "special_tokens_map.json", roles);
  roles["extra_ids"] = 0;
  roles["model_max_length"] = max_length;
  roles["tokenizer_class"] = "T5Tokenizer";
  write_json(folder / "tokenizer_config.json", roles);
}

std::vector<TrainingText> tokenizer_texts(const Dataset& data) {
  std::vector<TrainingText> texts;
  bool tints = false;
  for (const DatasetItem& item : data.items()) {
    for (const std::string& caption : item.captions) texts.push_back({caption, 1});
    tints = tints || item.tintable;
  }
  for (size_t i = 0; tints && i < kTintColors.size(); ++i)
    texts.push_back({std::string(kTintColors[i].name), 1});
  return texts;
}

void write_tokenizers(const fs::path& folder, const std::vector<TrainingText>& texts,
                      const TokenizerSizes& sizes) {
  const ClipVocabulary clip = train_clip_bpe(texts, sizes.clip_vocab);
  const std::string t5 = train_t5_unigram(texts, sizes.t5_vocab);
  write_clip_tokenizer(folder / kClipFolder, clip, sizes.clip_length);
  write_t5_tokenizer(folder / kT5Folder, t5, sizes.t5_length);
}

bool has_tokenizers(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder / kClipFolder, ignored) && fs::is_directory(folder / kT5Folder, ignored);
}

void copy_tokenizers(const fs::path& from, const fs::path& to) {
  if (!has_tokenizers(from)) {
    throw Error(ErrorCode::io, fmt::format("{}: no folders {} and {}, as a model has them", from.string(),
                                           kClipFolder, kT5Folder));
  }
  load_clip_tokenizer((from / kClipFolder).string());
  load_t5_tokenizer((from / kT5Folder).string());
  for (const char* part : {kClipFolder, kT5Folder}) {
    std::error_code error;
    for (fs::directory_iterator it(from / part, error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;
      if (!it->is_regular_file(ignored)) continue;
      io::atomic_write((to / part / it->path().filename()).string(), io::read_file(it->path().string()));
    }
    if (error)
      throw Error(ErrorCode::io, fmt::format("{}: cannot list: {}", (from / part).string(), error.message()));
  }
}

TokenLengths token_lengths(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  std::vector<size_t> lengths;
  for (const std::string& text : texts) lengths.push_back(tokenizer.tokenize(text).size());
  if (lengths.empty()) return {};
  std::sort(lengths.begin(), lengths.end());
  const auto quantile = [&](size_t percent) { return lengths[(lengths.size() - 1) * percent / 100]; };
  return {quantile(50), quantile(90), quantile(99), lengths.back()};
}

}  // namespace vkflux
