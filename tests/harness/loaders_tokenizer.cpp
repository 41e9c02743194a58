// The files of CLIP and T5 tokenizers.
#include <filesystem>

#include "model/io/file.h"
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
      {"t5_gguf", "t5.gguf", {io::read_file(kData + "gguf/t5_tokenizer.gguf")}, use_t5_file},
      {"t5_spiece", "spiece.model", {io::read_file(kTokenizers + "t5/spiece.model")}, use_t5},
      {"t5_tokenizer", "tokenizer.json", {io::read_file(kTokenizers + "t5_json/tokenizer.json")}, use_t5},
  };
}

}  // namespace vkflux::test
