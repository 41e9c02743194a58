// Writes the good files of every loader as seeds: write_corpus FOLDER makes FOLDER/<loader>/<number>.
#include <cstdio>
#include <exception>

#include "model/io/file.h"
#include "tests/harness/loaders.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  try {
    for (const auto& loader : vkflux::test::loader_cases()) {
      for (size_t i = 0; i < loader.corpus.size(); ++i) {
        vkflux::io::atomic_write(std::string(argv[1]) + "/" + loader.name + "/" + std::to_string(i),
                                 loader.corpus[i]);
      }
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
