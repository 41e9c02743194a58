// Every loader of untrusted files, for the mutation tests and the fuzz targets. A new loader is one row in
// one of the loaders_*.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace vkflux::test {

struct LoaderCase {
  std::string name;
  std::string file_name;            // what the loader expects the file to be called; may have folders
  std::vector<std::string> corpus;  // contents of good files
  /// Reads the file and uses what it holds as far as a program would. May throw nothing but vkflux::Error.
  std::function<void(const std::string& path)> load = {};
  /// Makes a damaged file pass the first check (length, checksum), so that the damage gets further. May be
  /// empty.
  std::function<void(std::string& bytes)> repair = {};
  /// Puts files that the loader opens by itself into the folder. May be empty.
  std::function<void(const std::string& folder)> prepare = {};
  /// Words of an error invalid_argument that is right too: the file is good, but not for this use.
  std::string mismatch = {};
  uint64_t rounds = 800;  // of the mutation test
  bool tolerant = false;  // takes what it can from any file, so it refuses few or none
};

/// All of them.
const std::vector<LoaderCase>& loader_cases();
const LoaderCase& loader_case(const std::string& name);

/// Makes the header length of a safetensors file what the text says: everything up to its last braces.
void repair_safetensors(std::string& bytes);

// By folder of the library.
std::vector<LoaderCase> io_loaders();
std::vector<LoaderCase> tokenizer_loaders();
std::vector<LoaderCase> model_loaders();
std::vector<LoaderCase> lora_loaders();
std::vector<LoaderCase> train_loaders();

}  // namespace vkflux::test
