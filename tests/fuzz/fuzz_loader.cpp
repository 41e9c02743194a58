// libFuzzer entry for one loader of tests/harness/loaders.cpp, chosen by the environment variable
// VKFLUX_FUZZ_LOADER.
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/harness/loaders.h"
#include "vk/error.h"

namespace {

const vkflux::test::LoaderCase& chosen() {
  const char* name = std::getenv("VKFLUX_FUZZ_LOADER");
  for (const auto& c : vkflux::test::loader_cases()) {
    if (name && c.name == name) return c;
  }
  std::fprintf(stderr, "set VKFLUX_FUZZ_LOADER to one of:");
  for (const auto& c : vkflux::test::loader_cases()) std::fprintf(stderr, " %s", c.name.c_str());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

struct Target {
  const vkflux::test::LoaderCase& loader = chosen();
  std::string path;

  Target() {
    std::string folder = "/tmp/vkflux_fuzz_XXXXXX";
    if (!::mkdtemp(folder.data())) ::abort();
    if (loader.prepare) loader.prepare(folder);
    path = folder + "/" + loader.file_name;
    std::error_code exists;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), exists);
  }

  void run(std::string bytes) const {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) ::abort();
    ::close(fd);
    try {
      loader.load(path);
    } catch (const vkflux::Error& e) {
      if (e.code() == vkflux::ErrorCode::internal || e.code() == vkflux::ErrorCode::out_of_host_memory)
        ::abort();
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Target target;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  target.run(bytes);
  if (target.loader.repair) {
    target.loader.repair(bytes);
    target.run(bytes);
  }
  return 0;
}
