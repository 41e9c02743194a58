// Every loader of untrusted files, for the mutation tests and the fuzz targets. A new loader is one row of
// the table in loaders.cpp.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace vkflux::test {

struct LoaderCase {
  std::string name;
  std::string file_name;            // what the loader expects the file to be called
  std::vector<std::string> corpus;  // contents of good files
  /// Reads the file and uses what it holds as far as a program would. May throw nothing but vkflux::Error.
  std::function<void(const std::string& path)> load;
  /// Makes a damaged file pass the first check (length, checksum), so that the damage gets further. May be
  /// empty.
  std::function<void(std::string& bytes)> repair;
  /// Puts files that the loader opens by itself into the folder. May be empty.
  std::function<void(const std::string& folder)> prepare;
};

const std::vector<LoaderCase>& loader_cases();
const LoaderCase& loader_case(const std::string& name);

}  // namespace vkflux::test
