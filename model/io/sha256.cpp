#include "model/io/sha256.h"

#include <fmt/format.h>
#include <nettle/sha2.h>

#include <algorithm>
#include <array>
#include <vector>

#include "model/io/file.h"
#include "vk/interrupt.h"

namespace vkflux::io {

std::string sha256_of_file(const std::string& path) {
  const ReadFile file(path);
  sha256_ctx context;
  sha256_init(&context);
  std::vector<std::byte> piece(size_t{1} << 20);
  for (uint64_t at = 0; at < file.size(); at += piece.size()) {
    check_interrupted("hashing");
    piece.resize(std::min<uint64_t>(piece.size(), file.size() - at));
    file.read(at, piece);
    sha256_update(&context, piece.size(), reinterpret_cast<const uint8_t*>(piece.data()));
  }
  std::array<uint8_t, SHA256_DIGEST_SIZE> digest{};
  sha256_digest(&context, digest.size(), digest.data());
  std::string out;
  for (const uint8_t byte : digest) out += fmt::format("{:02x}", byte);
  return out;
}

}  // namespace vkflux::io
