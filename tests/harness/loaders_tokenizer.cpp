// The files of CLIP, T5 and byte-level BPE tokenizers, and chat templates.
#include <fmt/format.h>

#include <filesystem>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/text/prompt_encoder.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_places.h"
#include "tests/harness/gzip_of.h"
#include "tests/harness/loaders.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/",
                  kTokenizers = kData + "tokenizers/";
constexpr const char* kText = "a cat's 10 emoji <|endoftext|> caf\u00e9 \uff26\uff55 \U0001f600";

void use_clip(const std::string& path) {
  load_clip_tokenizer(path)->encode(kText, 24);
}

void use_t5(const std::string& path) {
  load_t5_tokenizer(path)->encode(kText, 24);
}

// What a T5 encoder's own file holds.
void use_t5_file(const std::string& path) {
  if (const auto tokenizer = t5_tokenizer_of_tensors(path)) tokenizer->encode(kText, 24);
}

// Merges in the form in which open-clip ships them, gzipped or not.
std::string merges() {
  return "\"version: 0.2\nc a\nca t</w>\nt h\nth e</w>\na n\nan d</w>\ne m\nem o\nemo j\n";
}

// One file of the folder form; the others stay as they are.
LoaderCase clip_file(const std::string& name, const std::string& file) {
  return {name,
          file,
          {io::read_file(kTokenizers + "clip/" + file)},
          [](const std::string& p) { use_clip(fs::path(p).parent_path().string()); },
          {},
          [](const std::string& folder) {
            fs::copy(kTokenizers + "clip", folder,
                     fs::copy_options::overwrite_existing | fs::copy_options::recursive);
          }};
}

void use_bpe(const ByteBpe& bpe) {
  bpe.ids(kText);
  bpe.ids(kText, false);
}

// A vocabulary of few tokens, with everything that a tokenizer.json may say.
std::string small_bpe() {
  io::Json vocab = io::Json::object();
  for (const std::string& byte : byte_alphabet()) vocab[byte] = vocab.size();
  vocab["ca"] = 256, vocab["cat"] = 257, vocab["<pad>"] = 258;
  const auto token = [](const char* text, int id) {
    return io::Json{
        {"id", id}, {"content", text}, {"lstrip", true}, {"normalized", false}, {"special", true}};
  };
  const io::Json split{
      {"type", "Split"}, {"pattern", {{"Regex", "\\p{L}+|\\s+(?!\\S)"}}}, {"behavior", "Isolated"}};
  return io::Json{
      {"added_tokens", {token("<pad>", 258), token("<|endoftext|>", 259)}},
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers", io::Json::array({split, {{"type", "ByteLevel"}, {"use_regex", true}}})}}},
      {"post_processor", {{"type", "RobertaProcessing"}, {"sep", {"b", 1}}, {"cls", {"a", 0}}}},
      {"padding", {{"direction", "Left"}, {"pad_token", "<pad>"}}},
      {"model",
       {{"type", "BPE"}, {"unk_token", "a"}, {"vocab", vocab}, {"merges", io::Json::array({"c a", "ca t"})}}}}
      .dump();
}

std::string small_tekken() {
  return R"({"config":{"pattern":"\\p{L}+|.","default_vocab_size":260,"default_num_special_tokens":3},
"special_tokens":[{"rank":0,"token_str":"<s>"},{"rank":1,"token_str":"<pad>"}],"vocab":[)" +
         [] {
           std::string rows;
           constexpr std::string_view kDigits =
               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
           for (size_t b = 0; b < 256; ++b)
             rows += fmt::format(R"({{"rank":{},"token_bytes":"{}{}=="}},)", b, kDigits[b >> 2],
                                 kDigits[(b & 3) << 4]);
           return rows + R"({"rank":256,"token_bytes":"Y2E="}]})";
         }();
}

void use_template(const std::string& path) {
  const ChatTemplate chat(io::read_file(path));
  const io::Json user{{"role", "user"}, {"content", "a cat"}};
  try {
    chat.render(
        {{"messages", io::Json::array({user})}, {"bos_token", "<s>"}, {"add_generation_prompt", true}});
  } catch (const Error& error) {
    // What the template itself objects to.
    if (error.code() != ErrorCode::invalid_argument) throw;
  }
}

}  // namespace

std::vector<LoaderCase> tokenizer_loaders() {
  return {
      clip_file("clip_vocab", "vocab.json"),
      clip_file("clip_merges", "merges.txt"),
      clip_file("clip_config", "tokenizer_config.json"),
      {"clip_tokenizer",
       "tokenizer.json",
       {io::read_file(kTokenizers + "clip_json/tokenizer.json")},
       use_clip},
      {"clip_vocabulary", "bpe_simple_vocab_16e6.txt", {merges(), gzip_of(merges())}, use_clip},
      {"bpe_tokenizer",
       "tokenizer.json",
       {small_bpe()},
       [](const std::string& p) { use_bpe(*load_byte_bpe(p)); }},
      {"bpe_config",
       "tokenizer_config.json",
       {io::read_file(kTokenizers + "qwen/tokenizer_config.json"),
        io::read_file(kTokenizers + "qwen_files/tokenizer_config.json")},
       [](const std::string& p) { use_bpe(*load_byte_bpe(fs::path(p).parent_path().string())); },
       {},
       [](const std::string& folder) { io::atomic_write(folder + "/tokenizer.json", small_bpe()); }},
      {"bpe_tekken",
       "tekken.json",
       {small_tekken()},
       [](const std::string& p) { use_bpe(*load_byte_bpe(p)); }},
      {"bpe_gguf",
       "bpe.gguf",
       {io::read_file(kTokenizers + "tekken.gguf")},
       [](const std::string& p) {
         if (const auto bpe = byte_bpe_of_tensors(p)) use_bpe(*bpe);
       }},
      {"chat_template",
       "chat_template.jinja",
       {io::read_file(kTokenizers + "qwen/chat_template.jinja"),
        io::read_file(kTokenizers + "tekken_hf/chat_template.jinja")},
       use_template},
      {"t5_gguf", "t5.gguf", {io::read_file(kData + "gguf/t5_tokenizer.gguf")}, use_t5_file},
      {"t5_spiece", "spiece.model", {io::read_file(kTokenizers + "t5/spiece.model")}, use_t5},
      {"t5_tokenizer", "tokenizer.json", {io::read_file(kTokenizers + "t5_json/tokenizer.json")}, use_t5},
  };
}

}  // namespace vkflux::test
